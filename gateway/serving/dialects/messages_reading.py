"""Reads one answer of the Messages format, streamed or whole."""

from __future__ import annotations

import json
from typing import Any

from gateway.errors import UpstreamUnavailable
from gateway.serving.dialects.reading import Reading
from gateway.serving.dialects.wanted import Wanted
from gateway.serving.jsons import dumps, loads
from gateway.serving.meter import Usage, count
from gateway.serving.sse import named_event

PASSING = frozenset({"message_start", "content_block_start", "content_block_delta", "content_block_stop", "ping"})
TEXTS = ("text", "thinking", "partial_json")
"""What the model wrote, in a block or a delta."""

REASONS = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class MessagesReading(Reading):
    """Named events: a message, its blocks one after another, and at the end why it ended and what it used."""

    def __init__(self, wanted: Wanted, grant: int) -> None:
        super().__init__(wanted, grant)
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, str] = {}  # of tools, as JSON that may not be whole yet
        self._open: int | None = None
        self._ending: dict[str, Any] = {}  # stop_reason and stop_sequence

    def _take(self, event: dict[str, Any]) -> bytes:
        kind = str(event.get("type"))
        if kind == "message_start" and isinstance(message := event.get("message"), dict):
            self._begin(message)
        elif kind == "content_block_start":
            if not self._start(event):
                return self._closed()
        elif kind == "content_block_delta":
            if not self._grow(event):
                return self._closed()
        elif kind == "content_block_stop":
            self._open = None
        elif kind == "message_delta":
            self._end(event)
        elif kind == "message_stop":
            self.ended_by_itself = not self._was_cut
        return named_event(kind, dumps(event)) if kind in PASSING and self._wanted.stream else b""

    def _begin(self, message: dict[str, Any]) -> None:
        message["model"] = self._wanted.model
        self._message = message
        if isinstance(said := message.get("usage"), dict):
            self._said = said
            self._usage = Usage(None, *_input(said))  # the output that it says is not of the text

    def _start(self, event: dict[str, Any]) -> bool:
        """Take a block's beginning; return whether it was granted."""
        place, block = event.get("index"), event.get("content_block")
        if type(place) is not int or not isinstance(block, dict):
            return True
        if _wrote(block) and not self._counted(block):
            return False
        self._blocks[place], self._open = dict(block), place
        if block.get("type") == "tool_use" and isinstance(call := block.get("id"), str) and call:
            self.tool_calls.append(call)
        return True

    def _grow(self, event: dict[str, Any]) -> bool:
        """Take a delta of a block; return whether it was granted."""
        place, delta = event.get("index"), event.get("delta")
        if type(place) is not int or not isinstance(delta, dict):
            return True
        if _wrote(delta) and not self._counted(delta):
            return False
        block = self._blocks.setdefault(place, {"type": "text"})
        for name in (*TEXTS, "signature"):
            if isinstance(text := delta.get(name), str):
                if name == "partial_json":
                    self._arguments[place] = self._arguments.get(place, "") + text
                else:
                    before = block.get(name)
                    block[name] = (before if isinstance(before, str) else "") + text
        if (citation := delta.get("citation")) is not None:
            before = block.get("citations")
            block["citations"] = [*(before if isinstance(before, list) else []), citation]
        return True

    def _counted(self, piece: dict[str, Any]) -> bool:
        self._note_text()
        if not self._counts(0, piece):
            return False
        self._remember(0, piece.get("text"))
        return True

    def _closed(self) -> bytes:
        """Return the event that closes the block that was cut."""
        if self._open is None or not self._wanted.stream:
            return b""
        return named_event("content_block_stop", dumps({"type": "content_block_stop", "index": self._open}))

    def _end(self, event: dict[str, Any]) -> None:
        """Take how the message ended, and what it says of the usage."""
        delta, said = event.get("delta"), event.get("usage")
        if isinstance(said, dict):
            whole = {**self._said, **said}
            self._note_usage(whole, Usage(count(said.get("output_tokens")), *_input(whole), _thought(said)))
        if isinstance(delta, dict) and isinstance(reason := delta.get("stop_reason"), str):
            self._ending = delta
            self._ended[0] = REASONS.get(reason, "stop")

    def feed_whole(self, answer: Any) -> bytes:
        if not isinstance(answer, dict) or not isinstance(answer.get("content"), list):
            raise UpstreamUnavailable("The upstream's answer is not a message.")
        blocks = [dict(block) for block in answer["content"] if isinstance(block, dict)]
        self._begin(answer)
        self._end({"delta": {"stop_reason": answer.get("stop_reason") or "end_turn"}, "usage": answer.get("usage")})
        self._ending["stop_sequence"] = answer.get("stop_sequence")
        texts = [block.get(name) for block in blocks for name in ("text", "thinking", "input") if block.get(name)]
        made = self._usage.output_tokens or self._guess(texts)
        if made > self._granted:
            self._was_cut, self._ended[0] = True, "length"
            blocks = [
                {**block, "text": self._part(text, made)}
                for block in blocks
                if isinstance(text := block.get("text"), str)
            ]
        self._keep(0, blocks)
        self._blocks = dict(enumerate(blocks))
        self.tool_calls = [call for block in blocks if isinstance(call := block.get("id"), str) and call]
        self._remember(0, "".join(text for block in blocks if isinstance(text := block.get("text"), str)))
        self.ended_by_itself = True
        return self._told() if self._wanted.stream else b""

    def _told(self) -> bytes:
        """Return the events of an answer that came whole."""
        begun = {**self._message, "content": [], "stop_reason": None, "stop_sequence": None}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
        for place, block in self._blocks.items():
            empty, delta = dict(block), None
            if isinstance(text := block.get("text"), str):
                empty["text"], delta = "", {"type": "text_delta", "text": text}
            elif block.get("type") == "tool_use":
                written = json.dumps(block.get("input"))
                empty["input"], delta = {}, {"type": "input_json_delta", "partial_json": written}
            events.append({"type": "content_block_start", "index": place, "content_block": empty})
            if delta is not None:
                events.append({"type": "content_block_delta", "index": place, "delta": delta})
            events.append({"type": "content_block_stop", "index": place})
        return b"".join(named_event(event["type"], dumps(event)) for event in events)

    def ending(self, billed: int, charge_nanousd: int | None, conversation_left: int | None) -> bytes:
        told = {"charge_nanousd": charge_nanousd, "conversation_tokens_left": conversation_left}
        delta = {"stop_reason": "end_turn", "stop_sequence": None, **self._stop()}
        last = {"type": "message_delta", "delta": delta, "usage": self._shown_usage(billed), "tokencap": told}
        return named_event("message_delta", dumps(last)) + named_event("message_stop", b'{"type":"message_stop"}')

    def whole(self, billed: int) -> Any:
        blocks = [self._block(place) for place in sorted(self._blocks)]
        return {**self._message, "content": blocks, **self._stop(), "usage": self._shown_usage(billed)}

    def _block(self, place: int) -> dict[str, Any]:
        block = self._blocks[place]
        if place not in self._arguments:
            return block
        try:
            return {**block, "input": loads(self._arguments[place].encode("utf-8", "surrogatepass"))}
        except ValueError:
            return {**block, "input": {}}  # cut in the middle: nothing of it can be called

    def _stop(self) -> dict[str, Any]:
        return {"stop_reason": "max_tokens", "stop_sequence": None} if self._was_cut else self._ending

    def _shown_usage(self, billed: int) -> dict[str, Any]:
        """Return the upstream's usage, made to say what is billed."""
        is_said = self.input_tokens is None and self._usage.input_tokens is not None
        given = {} if is_said else {"input_tokens": self._input}
        return {**self._said, **given, "output_tokens": billed}


def _wrote(piece: dict[str, Any]) -> bool:
    return any(piece.get(name) for name in TEXTS)


def _input(said: dict[str, Any]) -> tuple[int | None, int]:
    """Return input tokens and those of them that were cached; here the input stands without its cached parts."""
    fresh, read = count(said.get("input_tokens")), count(said.get("cache_read_input_tokens")) or 0
    written = count(said.get("cache_creation_input_tokens")) or 0
    return (None if fresh is None else fresh + read + written), read


def _thought(said: dict[str, Any]) -> int:
    details = said.get("output_tokens_details")
    return count(details.get("thinking_tokens") if isinstance(details, dict) else None) or 0
