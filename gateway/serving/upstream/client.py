"""The client of the upstream: sends it requests, and translates each of its failures into an error of this gateway."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.clock import now_s
from gateway.errors import (
    RouteNotFound,
    TokencapError,
    UpstreamError,
    UpstreamErrorEvent,
    UpstreamRefused,
    UpstreamUnavailable,
)
from gateway.serving.json_codec import loads
from gateway.serving.upstream.error_bodies import OVERLOADS, WORDLESS, failure, failure_within, is_error, refused
from gateway.serving.upstream.error_redaction import NOBODY, House
from gateway.serving.upstream.transport import Reply, Sent, Sink, Transport, ignore_sent

ERROR_MOST = 64 * 2**10
"""The most bytes of an upstream's error that are read."""

ERROR_S = 5.0

WHOLE_MOST = 64 * 2**20
"""The most bytes of an answer that is not a stream."""

NO_ROUTE, NO_METHOD = 404, 405
UNKNOWN_PATH = re.compile(
    r"invalid url|unknown (?:request )?url|file not found|no route matched|cannot post|404 page not found"
    r"|(?:the |requested |resource |page |path |url |route |endpoint |api )*not found\.?\Z",
    re.IGNORECASE,
)
"""How OpenAI, Groq, llama.cpp, Kong, Express, Go, Azure and services made with FastAPI report a missing route."""

RETRY_HEADERS = ("retry-after", "retry-after-ms")

STREAM_BEGINS = (b":", b"data:", b"event:", b"id:", b"retry:", b"error:")
JSON_BEGINS = (b"{", b"[")
BEGINS = JSON_BEGINS + STREAM_BEGINS
BLANK_MOST = 1024
"""The most bytes of an answer that are read to recognise a stream; beyond them the head decides."""

DONE = b"data: [DONE]"
"""The ending that some upstreams write after an answer that they did not stream."""


Amend = Callable[[UpstreamRefused, bytes], bytes | None]


@dataclass(slots=True)
class WholeAnswer:
    """An answer that is not a stream."""

    raw: bytes
    parsed: Any
    """The value of ``raw``'s JSON."""


class Answer:
    """An answer that the upstream has begun: the 2xx head has come, the body is still to come."""

    def __init__(self, reply: Reply, first_token_s: float, idle_s: float) -> None:
        self._reply = reply
        self._patience_s = first_token_s
        self._idle_s = idle_s
        self._first = b""  # bytes read to recognise the answer, and not taken yet
        self._problem: UpstreamError | None = None

    async def is_stream(self) -> bool:
        """Wait for the first bytes and return whether they begin a stream. Some upstreams declare the wrong type."""
        is_declared = (self._reply.header("content-type") or "").startswith("text/event-stream")
        try:
            while len(self._first) <= BLANK_MOST and (more := await self._next()) is not None:
                self._first += more
                if (is_stream := _is_stream(self._first, is_declared)) is not None:
                    return is_stream
        except UpstreamError as error:
            self._problem = error
        return is_declared

    def _next(self) -> Awaitable[bytes | None]:
        patience_s, self._patience_s = self._patience_s, self._idle_s
        return self._reply.chunk(patience_s)

    async def pour(self, sink: Sink) -> bool:
        """Hand each piece to ``sink`` in the turn in which it comes, until ``sink`` wants no more or all has come.

        Return whether ``sink`` got all pieces.

        Raises:
            UpstreamUnavailable: the connection broke.
            UpstreamTimeout: nothing came for too long.
        """
        if self._first:
            first, self._first = self._first, b""
            if not sink(first):
                return False
        if self._problem is not None:
            raise self._problem
        patience_s, self._patience_s = self._patience_s, self._idle_s
        return await self._reply.pour(sink, patience_s, self._idle_s)

    async def whole(self) -> WholeAnswer:
        """Return an answer that is not a stream. It is whole once all of its JSON has come, even if the body then breaks."""
        parts = [self._first]
        size = len(self._first)
        problem = self._problem
        try:
            while problem is None and size <= WHOLE_MOST and (chunk := await self._next()) is not None:
                size += len(chunk)
                parts.append(chunk)
        except UpstreamError as error:
            problem = error
        if size > WHOLE_MOST:
            raise UpstreamUnavailable("The upstream's answer is too long.")
        raw = b"".join(parts)
        if (text := raw.rstrip()).endswith(DONE):
            raw = text.removesuffix(DONE)
        try:
            answer = loads(raw)
        except ValueError as error:
            raise problem or UpstreamUnavailable("The upstream's answer is not JSON.") from error
        if isinstance(answer, dict) and is_error(answer):
            raise UpstreamErrorEvent(answer)
        return WholeAnswer(raw, answer)


def _is_stream(first: bytes, is_declared: bool) -> bool | None:
    """Return whether the first bytes of an answer begin a stream, or None while there are too few to tell.

    For bytes that begin neither JSON nor a stream, the head decides: ``is_declared``.
    """
    beginning = first if first.startswith(BEGINS) else first.removeprefix(codecs.BOM_UTF8).lstrip()
    if beginning.startswith(JSON_BEGINS):
        return False
    if beginning.startswith(STREAM_BEGINS):
        return True
    return None if any(begin.startswith(beginning) for begin in STREAM_BEGINS) else is_declared


class Upstream:
    """The model's endpoint.

    Args:
        first_token_s: how long the endpoint may be silent before an answer's head, and again before its first bytes.
        idle_s: how long it may be silent between two pieces of an answer.
        whole_s: replaces ``first_token_s`` for an answer that is not streamed, which comes only when it is complete.
        house: the operator's own names, which are removed from all messages of the endpoint.
        now: returns the time, for endpoints that send a date in ``Retry-After``.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        first_token_s: float,
        idle_s: float,
        whole_s: float,
        house: House = NOBODY,
        now: Callable[[], float] = now_s,
    ) -> None:
        self._transport = transport
        self._whole_s = whole_s
        self._house = house
        self._now = now
        self._first_token_s = first_token_s
        self._idle_s = idle_s

    def request(
        self,
        path: str,
        body: bytes,
        request_id: str,
        more: Mapping[str, str],
        *,
        comes_whole: bool = False,
        amend: Amend | None = None,
        sent: Sent = ignore_sent,
    ) -> UpstreamRequest:
        """Return a context that opens an answer; leaving the context closes a connection on which more was to come.

        ``more`` are the request's own headers. ``amend`` takes a refusal and the refused body, and returns another
        body, which is sent once, or None. ``sent`` is called each time before the request is sent.

        Raises:
            UpstreamRefused: the request itself was refused; status, message and code are the upstream's.
            UpstreamErrorEvent: the answer is an error; ``redacted`` translates it.
            UpstreamUnavailable, UpstreamOverloaded, UpstreamTimeout: the endpoint does not answer.
            RouteNotFound: the endpoint has no such route.
        """
        # Some engines accept only a UUID; the part of our id after ``req_`` is a UUID without dashes.
        patience_s = self._whole_s if comes_whole else self._first_token_s
        return UpstreamRequest(self, (path, body, request_id.removeprefix("req_"), more, patience_s, sent), amend)

    def redacted(self, error: UpstreamError) -> UpstreamError:
        """Return an error in the endpoint's answer as the caller may see it, and any other error unchanged."""
        return failure_within(error.event, self._house) if isinstance(error, UpstreamErrorEvent) else error

    async def open(
        self, path: str, body: bytes, request_id: str, more: Mapping[str, str], patience_s: float, sent: Sent
    ) -> tuple[Reply, Answer]:
        reply = await self._transport.post(path, body, request_id, more, patience_s, sent)
        if 200 <= reply.status < 300:
            return reply, Answer(reply, patience_s, self._idle_s)
        try:
            raise await _failure(reply, path, self._house, self._now())
        finally:
            await reply.aclose()


class UpstreamRequest:
    """One request, from its first byte to the last byte of its answer that is wanted."""

    def __init__(
        self, upstream: Upstream, arguments: tuple[str, bytes, str, Mapping[str, str], float, Sent], amend: Amend | None
    ) -> None:
        self._upstream = upstream
        self._arguments: tuple[Any, ...] = arguments
        self._amend = amend
        self._reply: Reply | None = None

    async def __aenter__(self) -> Answer:
        arguments, self._arguments = self._arguments, ()
        try:
            self._reply, answer = await self._upstream.open(*arguments)
        except UpstreamRefused as error:
            path, body, *others = arguments
            amended = None if self._amend is None else self._amend(error, body)
            if amended is None:
                raise
            self._reply, answer = await self._upstream.open(path, amended, *others)
        return answer

    async def __aexit__(self, *_: object) -> None:
        if self._reply is not None:
            await self._reply.aclose()


async def _failure(reply: Reply, path: str, house: House, now: float) -> TokencapError:
    status = reply.status
    body = await _error_body(reply) if status < 500 or status in OVERLOADS else None
    if status == NO_METHOD or (status == NO_ROUTE and _names_no_route(refused(body, status, house).message)):
        return RouteNotFound(f"The model's endpoint does not speak /v1{path}.")
    headers = {name: value for name in RETRY_HEADERS if (value := reply.header(name)) is not None}
    return failure(body, status, headers, house, now)


def _names_no_route(message: str) -> bool:
    return message.startswith(WORDLESS) or UNKNOWN_PATH.match(message) is not None


async def _error_body(reply: Reply) -> Any:
    raw = b""
    try:
        async with asyncio.timeout(ERROR_S):
            while len(raw) <= ERROR_MOST and (chunk := await reply.chunk(ERROR_S)) is not None:
                raw += chunk
        return loads(raw)
    except (ValueError, TimeoutError, UpstreamError):
        return None
