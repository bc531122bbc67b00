"""Simulates an aligned model behind OpenAI's and Anthropic's APIs: answers of a known law, in real time, counted.

It stands in for the operator's model, in the demo and in tests, and every answer states that it is simulated.
A call is answered with meaningless words, as many as the law of lengths draws, at a steady pace. With ``tools`` and a
user's message at the end the answer is a call of the tool that ``tool_choice`` names, else of the tool that the user
names, else of the first tool. Where the request has a schema for the answer or a call's arguments, they fit the schema.
"""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from urllib.parse import parse_qs

from gateway.clock import now_s
from gateway.errors import BadRequest, CallerGone, RequestTooLarge, RouteNotFound, TokencapError
from gateway.simulator.engines import QUIRKS
from gateway.simulator.formats import FORMATS, Format, Stream
from gateway.simulator.lengths import Exponential, Lengths, Table
from gateway.simulator.reply import Choice, Form, Reply, Text, ToolCall
from gateway.simulator.request import CheckedRequest
from gateway.simulator.token_count import CALLS_KEPT, Call, Count

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

SERVER = b"tokencap-simulator"
BODY_BYTES_MAX = 64 * 1024 * 1024
STEPS_AT_ONCE = 64
"""The most tokens of a choice that a late stream writes at once, so that no other stream starves."""


@dataclass(frozen=True, slots=True)
class Law:
    """How the simulated model answers. Equal laws and equal calls give equal answers.

    Token n of an answer is due ``first_token_s + n / tokens_per_s`` seconds after the request was read.
    ``lengths`` replaces the exponential law of ``mean_tokens``. An answer that would never finish ends at the limit or
    at the end of the context. With ``ignore_limits`` limits are checked but not obeyed.
    """

    tokens_per_s: float = 50.0
    mean_tokens: float = 200.0
    first_token_s: float = 0.2
    seed: int = 0
    ignore_limits: bool = False
    lengths: Table | None = None
    profile: str = "any"
    """The engine that the simulator behaves like: a key of ``QUIRKS``."""
    model: str = "aligned-1"
    embedding_model: str = "aligned-1-embedding"
    context_tokens: int = 262_144
    tool_calls: int = 1
    """How many tool calls, one after another, precede an answer where the request has tools."""

    def __post_init__(self) -> None:
        if self.profile not in QUIRKS:
            raise ValueError(f"profile is one of {', '.join(QUIRKS)}.")
        if not self.tokens_per_s > 0:
            raise ValueError("tokens_per_s is a positive number.")
        if not (math.isfinite(self.first_token_s) and self.first_token_s >= 0):
            raise ValueError("first_token_s is not negative.")


def build(law: Law, clock: Callable[[], float] = now_s, new_id: Callable[[], str] = lambda: uuid.uuid4().hex) -> App:
    """Return the simulator as an ASGI app; run it in one process, since each process has its own count."""
    return _Simulator(law, clock, new_id)


class _Simulator:
    def __init__(self, law: Law, clock: Callable[[], float], new_id: Callable[[], str]) -> None:
        self._law = law
        self._quirks = QUIRKS[law.profile]
        self._lengths: Lengths = law.lengths or Exponential(law.mean_tokens)
        self._clock = clock
        self._new_id = new_id
        self._count = Count()
        self._answered = 0
        self._results: OrderedDict[str, int] = OrderedDict()
        self._routes: dict[str, Callable[[Message], Any]] = {
            "/v1/models": self._models,
            f"/v1/models/{law.model}": self._model,
            "/simulator/count": self._counted,
            **({"/props": self._props} if law.profile == "llamacpp" else {}),
            "/livez": lambda _: {"status": "live"},
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RouteNotFound("The simulator speaks HTTP only.")
        is_supported = scope["method"] == "POST" and scope["path"] in self._quirks.speaks
        wire_format = FORMATS[scope["path"]] if is_supported else None
        try:
            if wire_format is not None:
                await self._complete(wire_format, scope, receive, send)
            else:
                await _answer(send, 200, _json(await self._look_up(scope, receive)))
        except CallerGone:
            return
        except TokencapError as error:
            if wire_format is not None:
                self._count.refuse(error.status)
            await _answer(
                send, error.status, wire_format.error(error, self._quirks) if wire_format else _json(error.body())
            )

    async def _look_up(self, scope: Message, receive: Receive) -> Any:
        """Return the answer of a route that generates nothing."""
        if (scope["method"], scope["path"]) == ("POST", "/tokenize") and self._quirks.tokenizes:
            return self._quirks.tokenize(await _body(receive))
        if scope["method"] != "GET" or scope["path"] not in self._routes:
            raise RouteNotFound("The simulator has completions, embeddings, models and its own count, nothing else.")
        return self._routes[scope["path"]](scope)

    def _models(self, scope: Message) -> Any:
        return {"object": "list", "data": [self._model(scope)]}

    def _model(self, scope: Message) -> Any:
        description = {"id": self._law.model, "object": "model", "created": 0, "owned_by": self._quirks.owner}
        return description | ({"max_model_len": self._law.context_tokens} if self._quirks.names_length else {})

    def _props(self, scope: Message) -> Any:
        return {"default_generation_settings": {"n_ctx": self._law.context_tokens}}

    def _counted(self, scope: Message) -> Any:
        """Return the totals, or with ``?call=`` a call by its id or its ``x-request-id``."""
        call_ids = parse_qs(scope["query_string"].decode("latin-1")).get("call")
        if not call_ids:
            return self._count.totals()
        call = self._count.call(call_ids[0])
        if call is None:
            raise RouteNotFound("The simulator knows no such call.")
        return call

    async def _complete(self, wire_format: Format, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request: read it, decide the complete answer, then send it at its pace."""
        model = self._law.embedding_model if wire_format.embeds else self._law.model
        request = wire_format.read(self._quirks.without_ignored(await _body(receive)), model, self._law.context_tokens)
        start = asyncio.get_running_loop().time()
        request = self._recall(
            replace(request, continuous_usage=request.continuous_usage and self._quirks.continuous_usage)
        )
        self._answered += 1
        reply = self._decide(request, self._answered, wire_format.prefix)
        call = Call(
            id=reply.id,
            request_id=_header(scope, b"x-request-id"),
            stream=request.stream,
            choices=request.choices,
            limit=request.limit,
            prompt_tokens=request.prompt_tokens,
        )
        self._count.admit(call)
        self._results[reply.id] = request.results or 0
        if len(self._results) > CALLS_KEPT:
            self._results.popitem(last=False)
        disconnect = asyncio.ensure_future(_until_disconnect(receive))
        try:
            if request.stream:
                await self._stream(reply, wire_format.stream(reply, request), call, start, disconnect, send)
            else:
                await self._whole(reply, wire_format.whole(reply, request), call, start, disconnect, send)
        finally:
            disconnect.cancel()
            if call.state == "live":
                self._count.close(call, unsent_tokens=0)

    def _recall(self, request: CheckedRequest) -> CheckedRequest:
        """Return the request, with the number of tool results in the response that it continues added to its own."""
        for reference in request.references:
            if reference.partition("_")[2] not in self._results:
                raise BadRequest(f"Item with id '{reference}' not found.", param="input", code="item_not_found")
        if request.previous is None:
            return request
        if request.previous not in self._results:
            raise BadRequest(
                f"Previous response with id '{request.previous}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        results = request.results
        return replace(request, results=None if results is None else results + self._results[request.previous])

    def _decide(self, request: CheckedRequest, number: int, prefix: str) -> Reply:
        """Return the answer to the ``number``-th call; a request with its own seed gets the same words each time."""
        source = f"{self._law.seed}:{f'call {number}' if request.seed is None else f'seed {request.seed}'}"
        return Reply(
            id=f"{prefix}{self._new_id()}",
            created=int(self._clock()),
            model=request.model,
            prompt_tokens=request.prompt_tokens,
            choices=tuple(self._choice(request, f"{source}:{index}") for index in range(request.choices)),
            engine=self._law.profile,
        )

    def _choice(self, request: CheckedRequest, seed: str) -> Choice:
        tokens_left = self._law.context_tokens - request.prompt_tokens
        limit = tokens_left if request.limit is None or self._law.ignore_limits else request.limit
        calls_tool = request.results is not None and request.results < self._law.tool_calls
        tool = request.tool if calls_tool else None
        if tool is not None:
            length: int | None = 1 + len(tool.arguments)
        elif request.form is not None:
            length = len(request.form)
        else:
            length = self._lengths.length(Random(f"{seed}:length").random())  # noqa: S311 - no secret
        tokens = limit if length is None else min(length, limit)
        is_finished = length is not None and length <= limit
        if tool is not None:
            reason, call_id = "tool_calls" if is_finished else "length", f"call_{self._new_id()}"
            return ToolCall(tokens, reason, call_id, tool.name, tool.arguments)
        if request.form is not None:
            return Form(tokens, "stop" if is_finished else "length", request.form)
        return Text(tokens, "stop" if is_finished else "length", f"{seed}:words")

    async def _stream(
        self, reply: Reply, chunks: Stream, call: Call, start: float, disconnect: asyncio.Future[None], send: Send
    ) -> None:
        """Send each token when due, several after a late wake-up, until the answer ends or the caller leaves."""
        await send(_start(200, b"text/event-stream; charset=utf-8"))
        step, steps = 0, reply.steps
        while step < steps:
            due = await self._wait(start, step + 1, disconnect)
            if disconnect.done():
                self._count.close(call, unsent_tokens=0)
                return
            until = min(steps, due, step + STEPS_AT_ONCE)
            # Counted before it is sent: a caller that has read a token finds it in the count.
            self._count.send(call, reply.tokens_after(until) - reply.tokens_after(step))
            step = until
            if step < steps:
                await send({"type": "http.response.body", "body": chunks.up_to(step), "more_body": True})
        self._count.finish(call)
        await send({"type": "http.response.body", "body": chunks.up_to(steps) + chunks.ending()})

    async def _whole(
        self, reply: Reply, body: bytes, call: Call, start: float, disconnect: asyncio.Future[None], send: Send
    ) -> None:
        """Send the answer when its last token is due, unless the caller has left by then."""
        await self._wait(start, reply.steps, disconnect)
        if disconnect.done():
            generated = min(self._due(start), reply.steps)
            self._count.close(call, unsent_tokens=reply.tokens_after(generated))
            return
        self._count.send(call, reply.tokens_after(reply.steps))
        self._count.finish(call)
        await _answer(send, 200, body)

    async def _wait(self, start: float, step: int, disconnect: asyncio.Future[None]) -> int:
        """Wait until token ``step`` is due or the caller has left, and return how many tokens are due by now.

        The schedule counts from the start of the call, so delays of wake-ups do not add up.
        """
        due_at = start + self._law.first_token_s + step / self._law.tokens_per_s
        delay = due_at - asyncio.get_running_loop().time()
        await asyncio.wait((disconnect,), timeout=max(0.0, delay))
        return max(step, self._due(start))

    def _due(self, start: float) -> int:
        elapsed = asyncio.get_running_loop().time() - start - self._law.first_token_s
        tokens = max(0.0, elapsed) * self._law.tokens_per_s
        return int(tokens) if math.isfinite(tokens) else self._law.context_tokens


async def _until_disconnect(receive: Receive) -> None:
    """Return once the caller has hung up; uvicorn reports it in no other way."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone("The caller hung up.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES_MAX:
            raise RequestTooLarge(f"A body has at most {BODY_BYTES_MAX} bytes.")
        if not message.get("more_body", False):
            return b"".join(parts)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return


async def _answer(send: Send, status: int, body: bytes) -> None:
    await send(_start(status, b"application/json", (b"content-length", str(len(body)).encode())))
    await send({"type": "http.response.body", "body": body})


def _start(status: int, media: bytes, *more: tuple[bytes, bytes]) -> Message:
    headers = [(b"server", SERVER), (b"content-type", media), (b"cache-control", b"no-store"), *more]
    return {"type": "http.response.start", "status": status, "headers": headers}


def _header(scope: Message, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
