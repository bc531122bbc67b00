"""An upstream that keeps its own count of every call, and fails or lies as the call's script tells it to."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway.serving.caller.exchange import Receive, Scope, Send
from tests.faults.dialects import DIALECTS, Chat, Messages, Responses
from tests.serving import call_id

Dialect = Chat | Responses | Messages

GIVEN_UP_S = 60.0
"""After this time an upstream that hangs gives up, so that a failing test ends."""


IN_THE_MIDDLE = frozenset({"hang", "error event", "reset", "cut", "not json"})
"""Faults that happen after ``at`` tokens."""


@dataclass(frozen=True)
class Script:
    """How one call is answered. The caller writes the script into a field that passes the gateway unchanged."""

    tokens: int = 10
    """Tokens of each choice, if no limit is lower."""
    obeys: bool = True
    """Whether the limit is kept."""
    tokens_per_s: float = 0
    """0 is at once."""
    per_chunk: int = 1
    padding: int = 0
    """Extra characters of each token."""
    ending: str | None = "stop"
    fault: str = ""
    """``hang before head``, ``hang before token``, ``status``, a fault of ``IN_THE_MIDDLE``, ``hang before done``,
    ``no done``, or ``wait before usage``, which waits until the test sets ``may_end``."""
    at: int = 0
    status: int = 500
    usage: str = "honest"
    """``missing``, ``null``, ``zero``, ``negative``, ``text``, ``huge``, ``twice``, ``cumulative``, ``per chunk``,
    ``middle``, ``above``, ``wrong total``."""
    hidden: int = 0
    """Reasoning tokens made before any token is shown; only the usage counts them."""
    prompt: int = 7
    """Input tokens in the usage."""
    tool_call: bool = False
    torn: int = 0
    """Bytes of each piece of the stream; 0 sends whole events."""
    whole: bool = False
    """Whether the answer is one JSON object although a stream was requested."""
    streams: bool = False
    """Whether the answer is a stream although none was requested."""


@dataclass
class UpstreamCall:
    """The upstream's own account of one call."""

    request: dict[str, Any]
    was_answered: bool = False
    """Whether a head of success was sent; for an answer requested whole it is sent once the answer is made."""
    is_live: bool = True
    was_left: bool = False
    """Whether the gateway hung up before the answer was over."""
    sent_at: list[float] = field(default_factory=list)
    """When each token was sent, monotonic seconds."""
    ended_at: float = 0.0
    may_end: threading.Event = field(default_factory=threading.Event)
    answer: bytes = b""
    """The sent bytes of an answer requested whole."""

    @property
    def tokens(self) -> int:
        return len(self.sent_at)

    def tokens_of_last(self, seconds: float) -> int:
        """Return how many tokens were sent in the last ``seconds`` of the call."""
        return sum(at > self.ended_at - seconds for at in self.sent_at)


class Truth:
    """The ASGI app, and its own count: ``calls`` by the gateway's request id."""

    def __init__(self) -> None:
        self.calls: dict[str, UpstreamCall] = {}

    @property
    def live(self) -> int:
        return sum(call.is_live for call in list(self.calls.values()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        raw = await _body(receive)
        if raw is None:
            return
        dialect = DIALECTS.get(scope["path"]) if scope["method"] == "POST" else None
        if dialect is None:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        request = json.loads(raw)
        call = UpstreamCall(request)
        self.calls[call_id(scope)] = call
        script = Script(**(request.get("metadata") or json.loads(request.get("suffix") or "{}")))
        try:
            async with _watching(receive) as gone:
                await Answering(script, call, dialect(), send, gone).run()
        finally:
            call.is_live, call.ended_at = False, time.monotonic()


class Answering:
    """One answer being given."""

    def __init__(self, script: Script, call: UpstreamCall, dialect: Dialect, send: Send, gone: asyncio.Event) -> None:
        self._script = script
        self._call = call
        self._dialect = dialect
        self._send = send
        self._gone = gone
        self._choices = int(call.request.get("n") or 1)
        limit = int(call.request.get("max_tokens") or call.request["max_output_tokens"])
        most = limit if script.obeys else script.hidden + script.tokens
        self._hidden = min(script.hidden, most)
        self._of_each = min(script.tokens, most - self._hidden)
        self._is_limited = script.hidden + script.tokens > most
        self._piece = b""

    async def run(self) -> None:
        script = self._script
        if script.fault == "hang before head":
            await self._hang()
            return
        if script.fault == "status":
            body = json.dumps({"error": {"message": "No.", "type": "x", "param": None, "code": "because"}}).encode()
            await self._head("application/json", script.status)
            await self._send({"type": "http.response.body", "body": body})
            return
        if not (self._call.request.get("stream") or script.whole or script.streams):
            await self._asked_whole()
            return
        self._call.was_answered = True
        if script.whole:
            await self._head("application/json")
            await self._send(
                {"type": "http.response.body", "body": json.dumps(self._dialect.whole(self._whole())).encode()}
            )
            return
        await self._head("text/event-stream")
        if script.fault == "hang before token":
            await self._hang()
            return
        if await self._body() and not self._gone.is_set():
            await self._send({"type": "http.response.body", "body": b""})

    async def _asked_whole(self) -> None:
        """Make the answer at its speed, and send it once it is made; a fault in the middle shows in its bytes."""
        script = self._script
        if script.fault == "hang before token":
            self._call.was_answered = True
            await self._head("application/json")
            await self._hang()
            return
        texts = [""] * self._choices
        await self._think()
        for number in range(0, self._of_each, script.per_chunk):
            if self._gone.is_set() or (script.fault in IN_THE_MIDDLE and number >= script.at):
                break
            for index in range(self._choices):
                texts[index] += self._text(min(script.per_chunk, self._of_each - number))
            await self._pause()
        if script.fault == "hang" and not self._gone.is_set():
            await self._hang()
        if script.fault == "wait before usage":
            await self._wait()
        if self._gone.is_set():
            self._call.was_left = True
            return
        answer = json.dumps(self._dialect.whole(self._made(texts)), ensure_ascii=False).encode()
        part = {"error event": ERROR, "not json": b"{broken", "reset": answer[: len(answer) // 2]}.get(script.fault)
        part = answer[: len(answer) // 2] if script.fault == "cut" else part or answer
        self._call.was_answered = True
        await self._head("application/json")
        self._call.answer = part
        await self._bytes(part)
        if script.fault == "hang before done":
            await self._hang()
        elif script.fault != "reset":
            await self._send({"type": "http.response.body", "body": b""})

    async def _body(self) -> bool:
        """Send the events; return whether the response has to be ended properly."""
        for index in range(self._choices):
            await self._chunk(index, {"role": "assistant", "content": ""})
        await self._think()
        for number in range(0, self._of_each, self._script.per_chunk):
            if self._gone.is_set() or (self._script.fault in IN_THE_MIDDLE and number >= self._script.at):
                break
            for index in range(self._choices):
                await self._tokens(index, min(self._script.per_chunk, self._of_each - number))
            await self._pause()
        if self._gone.is_set():
            self._call.was_left = True
            return False
        match self._script.fault:
            case "hang":
                await self._hang()
                return False
            case "reset":
                return False
            case "error event":
                await self._event({"error": {"message": "Out of luck.", "type": "server_error", "code": 500}})
                return True
            case "not json":
                await self._bytes(b"data: {broken\n\n")
                return True
            case "cut":
                return True
        return await self._ending()

    async def _wait(self) -> bool:
        """Wait until the answer may end; return whether the gateway hung up meanwhile."""
        while not (self._call.may_end.is_set() or self._gone.is_set()):
            await asyncio.sleep(0.005)
        return self._gone.is_set()

    async def _ending(self) -> bool:
        if self._script.fault == "wait before usage" and await self._wait():
            self._call.was_left = True
            return False
        for index in range(self._choices if self._reason else 0):
            await self._chunk(index, {}, self._reason)
        for usage in self._usages():
            await self._event({**FRAME, "choices": [], "usage": usage})
        if self._script.fault == "hang before done":
            await self._hang()
            return False
        if self._script.fault != "no done":
            await self._bytes(self._dialect.done())
        return True

    async def _think(self) -> None:
        """Make the hidden reasoning tokens."""
        for _ in range(self._hidden):
            if self._gone.is_set():
                return
            self._call.sent_at.append(time.monotonic())
            await self._pause()

    @property
    def _reason(self) -> str | None:
        return "length" if self._is_limited and self._script.ending == "stop" else self._script.ending

    async def _tokens(self, index: int, count: int) -> None:
        is_first = self._call.tokens == self._hidden
        text = self._text(count)
        if self._script.tool_call:
            call = {"index": 0, "function": {"arguments": text}}
            named = {"id": "call_truth", "type": "function", "function": {"name": "f", "arguments": text}}
            delta: dict[str, Any] = {"tool_calls": [{"index": 0, **named} if is_first else call]}
        else:
            delta = {"content": text}
        await self._chunk(index, delta)

    def _text(self, count: int) -> str:
        """Make ``count`` more tokens and return their text."""
        padding, before = "." * self._script.padding, self._call.tokens
        self._call.sent_at += [time.monotonic()] * count
        return "".join(f"ü{before + extra}{padding} " for extra in range(count))

    async def _chunk(self, index: int, delta: dict[str, Any], reason: str | None = None) -> None:
        chunk = {**FRAME, "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}
        tokens, has_text = self._call.tokens, any(delta.get(name) for name in ("content", "tool_calls"))
        if self._script.usage == "cumulative" or (self._script.usage == "middle" and tokens == 2 and has_text):
            chunk["usage"] = self._usage(tokens)
        elif self._script.usage == "per chunk":
            chunk["usage"] = self._usage(self._script.per_chunk if has_text else 0)
        await self._event(chunk)

    def _usages(self) -> list[Any]:
        """Return the usages that the chunks after the text report."""
        tokens = self._call.tokens
        honest = self._usage(tokens)
        return {
            "honest": [honest],
            "null": [None],
            "zero": [self._usage(0)],
            "negative": [self._usage(-tokens)],
            "text": [{"prompt_tokens": "7", "completion_tokens": str(tokens)}],
            "huge": [self._usage(2**60)],
            "twice": [honest, honest],
            "above": [self._usage(tokens + 1_000)],
            "wrong total": [{**honest, "total_tokens": 1}],
        }.get(self._script.usage, [])

    def _usage(self, tokens: int) -> dict[str, Any]:
        prompt_tokens = self._script.prompt
        return {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}

    def _whole(self) -> dict[str, Any]:
        self._call.sent_at += [time.monotonic()] * self._of_each * self._choices
        return self._made(["abc " * self._of_each] * self._choices)

    def _made(self, texts: list[str]) -> dict[str, Any]:
        """Return a whole answer with a choice for each of ``texts``."""
        choices = []
        for index, text in enumerate(texts):
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if self._script.tool_call:
                function = {"name": "f", "arguments": json.dumps({"text": text})}
                call = {"id": "call_truth", "type": "function", "function": function}
                message = {"role": "assistant", "content": None, "tool_calls": [call]}
            choices.append({"index": index, "message": message, "finish_reason": self._reason})
        usages = self._usages()
        return {**FRAME, "object": "chat.completion", "choices": choices, **({"usage": usages[-1]} if usages else {})}

    async def _head(self, content_type: str, status: int = 200) -> None:
        headers = [(b"content-type", content_type.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _event(self, chunk: dict[str, Any]) -> None:
        await self._bytes(self._dialect.event(chunk))

    async def _bytes(self, data: bytes) -> None:
        size = self._script.torn or len(data) or 1
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _pause(self) -> None:
        if self._script.tokens_per_s:
            await _within(self._gone, self._script.per_chunk / self._script.tokens_per_s)
        else:
            await asyncio.sleep(0)

    async def _hang(self) -> None:
        self._call.was_left = await _within(self._gone, GIVEN_UP_S)


ERROR = b'{"error":{"message":"Out of luck.","type":"server_error","code":500}}'
FRAME = {"id": "chatcmpl-truth", "object": "chat.completion.chunk", "created": 1, "model": "upstream"}


async def _within(gone: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await gone.wait()
    except TimeoutError:
        return False
    return True


@asynccontextmanager
async def _watching(receive: Receive) -> AsyncIterator[asyncio.Event]:
    """Yield an event that is set once the gateway has hung up."""
    gone = asyncio.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watching = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        watching.cancel()


async def _body(receive: Receive) -> bytes | None:
    """Return the body, or None if the gateway hung up before all of it had arrived."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
