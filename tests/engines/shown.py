"""The same few facts of an answer in any format, streamed or whole, from an engine or for a caller.

An engine's own stream is read here as leniently as possible: its content counts, not its form.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gateway.serving.upstream.profiles import CHAT, COMPLETIONS, MESSAGES, RESPONSES

ENDS = {
    **{"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"},
    **{"completed": "stop", "incomplete": "length", "function_call": "tool_calls"},
}
"""Maps each format's names of endings to those of chat completions."""


@dataclass(frozen=True)
class Call:
    """A call of a tool."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Choice:
    """One choice of an answer."""

    text: str = ""
    thought: str = ""
    calls: tuple[Call, ...] = ()
    end: str | None = None

    @property
    def content(self) -> tuple[str, str, tuple[Call, ...]]:
        return self.text, self.thought, self.calls


@dataclass(frozen=True)
class Shown:
    """An answer or a refusal. ``tokens`` is the reported count, of all choices unless the engine counts only one."""

    choices: tuple[Choice, ...] = ()
    input_tokens: int | None = None
    tokens: int | None = None
    status: int = 200
    error: str = ""


def in_whole(endpoint: str, answer: dict[str, Any]) -> Shown:
    """Return the facts of a whole answer; Messages count cached input separately."""
    usage = answer.get("usage") or {}
    choices = {CHAT: _chat, COMPLETIONS: _completion, RESPONSES: _response, MESSAGES: _message}[endpoint](answer)
    cached = sum(usage.get(name) or 0 for name in ("cache_read_input_tokens", "cache_creation_input_tokens"))
    read = usage.get("prompt_tokens", usage.get("input_tokens"))
    return Shown(
        choices,
        None if read is None else read + cached,
        usage.get("completion_tokens", usage.get("output_tokens")),
    )


def in_stream(endpoint: str, raw: bytes) -> Shown:
    """Return the facts of an engine's own stream."""
    data = [line[5:].strip() for line in raw.decode().splitlines() if line.startswith("data:")]
    chunks = [json.loads(one) for one in data if one != "[DONE]"]
    if error := next((chunk["error"] for chunk in chunks if chunk.get("error")), None):
        return Shown(error=json.dumps(error))
    if endpoint == RESPONSES:
        last: dict[str, Any] = next((chunk["response"] for chunk in reversed(chunks) if "response" in chunk), {})
        return in_whole(endpoint, last)
    if endpoint == MESSAGES:
        return in_whole(endpoint, _put_together(chunks))
    choices: dict[int, dict[str, Any]] = {}
    usage: dict[str, Any] = {}
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for one in chunk.get("choices", ()):
            _add(choices.setdefault(one["index"], {}), one)
    return in_whole(endpoint, {"choices": [choices[index] for index in sorted(choices)], "usage": usage})


def _add(choice: dict[str, Any], piece: dict[str, Any]) -> None:
    choice["finish_reason"] = piece.get("finish_reason") or choice.get("finish_reason")
    choice["text"] = choice.get("text", "") + (piece.get("text") or "")
    delta, message = piece.get("delta") or {}, choice.setdefault("message", {})
    for name in ("content", "reasoning_content", "reasoning"):
        message[name] = message.get(name, "") + (delta.get(name) or "")
    calls = message.setdefault("tool_calls", [])
    for one in delta.get("tool_calls") or ():
        if one["index"] >= len(calls):
            calls.append({"function": {"name": "", "arguments": ""}})
        function, shown = calls[one["index"]]["function"], one["function"]
        function["name"] = function["name"] or shown.get("name") or ""
        function["arguments"] += shown.get("arguments") or ""


def _put_together(events: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"content": [], "usage": {}}
    blocks: dict[int, dict[str, Any]] = {}
    for event in events:
        message["usage"] |= (event.get("message") or event).get("usage") or {}
        if event["type"] == "content_block_start":
            blocks[event["index"]] = {**event["content_block"], "json": ""}
        elif event["type"] == "content_block_delta":
            block, delta = blocks[event["index"]], event["delta"]
            for name in ("text", "thinking"):
                block[name] = block.get(name, "") + delta.get(name, "")
            block["json"] += delta.get("partial_json", "")
        elif event["type"] == "message_delta":
            message["stop_reason"] = event["delta"].get("stop_reason")
    return {**message, "content": [blocks[index] for index in sorted(blocks)]}


def _chat(answer: dict[str, Any]) -> tuple[Choice, ...]:
    found = []
    for one in answer["choices"]:
        message = one["message"]
        calls = [
            Call(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()
        ]
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
        found.append(Choice(message.get("content") or "", thought, tuple(calls), _end(one["finish_reason"])))
    return tuple(found)


def _completion(answer: dict[str, Any]) -> tuple[Choice, ...]:
    return tuple(Choice(one["text"], end=_end(one["finish_reason"])) for one in answer["choices"])


def _response(answer: dict[str, Any]) -> tuple[Choice, ...]:
    text, thought, calls = "", "", []
    for item in answer["output"]:
        if item["type"] == "function_call":
            calls.append(Call(item["name"], item["arguments"]))
        elif item["type"] == "reasoning":
            thought += "".join(part.get("text", "") for part in item.get("content") or ())
        else:
            text += "".join(part.get("text", "") for part in item["content"])
    end = _end(answer["status"])
    return (Choice(text, thought, tuple(calls), "tool_calls" if calls and end == "stop" else end),)


def _message(answer: dict[str, Any]) -> tuple[Choice, ...]:
    text, thought, calls = "", "", []
    for block in answer["content"]:
        if block["type"] == "tool_use":
            calls.append(Call(block["name"], block.get("json") or json.dumps(block["input"])))
        text, thought = text + block.get("text", ""), thought + block.get("thinking", "")
    return (Choice(text, thought, tuple(calls), _end(answer.get("stop_reason"))),)


def _end(shown: str | None) -> str | None:
    return shown and ENDS.get(shown, shown)
