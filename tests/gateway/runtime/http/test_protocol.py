"""HTTP/1.1 as callers meet it on the wire: whole answers in one piece, streams at once, and nothing smuggled in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.runtime import sockets
from gateway.runtime.http.connections import Door
from gateway.runtime.http.limits import HttpLimits
from gateway.runtime.http.server import serve
from tests.serving import body_of, outlived

Handler = Callable[[Any, Any, Any], Awaitable[None]]
WHOLE = [(b"content-type", b"text/plain"), (b"Content-Length", b"5")]


@asynccontextmanager
async def stoppable(
    handler: Handler, door: Door | None = None, shutdown_s: float = 5
) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Serve ``handler`` as the gateway is served; yield the port, and what stops the server before the end does."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not await outlived(scope, receive, send):
            await handler(scope, receive, send)

    listener = sockets.listen("127.0.0.1", 0)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve([(app, listener)], stop.wait(), shutdown_s, lambda: door or Door()))
    try:
        yield listener.getsockname()[1], stop
    finally:
        stop.set()
        await serving


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[int]:
    async with stoppable(handler) as (port, _):
        yield port


async def send_request(port: int, request: bytes) -> bytes:
    """Return all that is answered to ``request`` until the connection ends, which its last call asks for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


def get(path: str, *lines: str, method: str = "GET", version: str = "1.1", last: bool = True) -> bytes:
    lines_sent = [f"{method} {path} HTTP/{version}", "host: here", *lines, *(["connection: close"] if last else [])]
    return "\r\n".join([*lines_sent, "", ""]).encode()


def answering(headers: list[tuple[bytes, bytes]], *pieces: bytes, status: int = 200) -> Handler:
    async def answer(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": pieces[-1]})

    return answer


class Wire(asyncio.Protocol):
    """A caller that keeps apart what arrived apart."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.arrived = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self.arrived.set()


async def test_a_whole_answer_is_one_write() -> None:
    async with served(answering(WHOLE, b"Hello")) as port:
        transport, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", port)
        transport.write(get("/", last=False))
        await asyncio.wait_for(wire.arrived.wait(), 20)
        transport.close()

    assert wire.pieces[0].endswith(b"content-length: 5\r\n\r\nHello")


async def test_the_head_of_a_stream_does_not_wait_for_its_first_bytes() -> None:
    go = asyncio.Event()

    async def answer(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await go.wait()
        await send({"type": "http.response.body", "body": b"Hello"})

    async with served(answer) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/"))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        go.set()
        rest = await asyncio.wait_for(reader.read(), 20)
        writer.close()

    assert b"transfer-encoding: chunked" in head
    assert rest == b"5\r\nHello\r\n0\r\n\r\n"


async def test_calls_on_one_connection_are_answered_in_their_order() -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        body = scope["path"].encode() + b" " + await body_of(receive)
        await answering([(b"content-length", b"%d" % len(body))], body)(scope, receive, send)

    first = get("/one", "content-length: 3", method="POST", last=False) + b"abc"
    async with served(answer) as port:
        answers = await send_request(port, first + get("/two?x=1"))

    bodies = [part.partition(b"\r\n\r\n")[2] for part in answers.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"/one abc", b"/two "]


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (get("/path?x=1?y"), b"/path x=1?y"),
        (get("/p%C3%A4th%20%2f?x=1"), "/päth %2f x=1".encode()),
        (get("/path"), b"/path "),
        (get("/path", version="1.0", last=False), b"/path "),
    ],
)
async def test_a_path_and_its_query_are_found(request_line: bytes, expected: bytes) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        body = scope["path"].encode() + b" " + scope["query_string"]
        await answering([(b"content-length", b"%d" % len(body))], body)(scope, receive, send)

    async with served(answer) as port:
        answered = await send_request(port, request_line)

    assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in answered
    assert answered.endswith(b"\r\n\r\n" + expected)


async def test_the_head_of_an_answer_has_no_body() -> None:
    async with served(answering(WHOLE, b"Hello")) as port:
        answered = await send_request(port, get("/", method="HEAD"))

    assert b"content-length: 5" in answered
    assert answered.endswith(b"\r\n\r\n")


async def test_no_content_has_no_length() -> None:
    async with served(answering([], b"", status=204)) as port:
        answered = await send_request(port, get("/"))

    assert answered.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert b"chunked" not in answered


@pytest.mark.parametrize(
    "header",
    [
        (b"x-name", b"one\r\nset-cookie: two"),
        (b"x-name", b"one\x00"),
        (b"x name", b"one"),
        (b"x-name\r\n", b"one"),
        (b"transfer-encoding", b"chunked"),
    ],
)
async def test_no_header_makes_another_one(header: tuple[bytes, bytes]) -> None:
    async with served(answering([*WHOLE, header], b"Hello")) as port:
        answered = await send_request(port, get("/"))

    assert b"set-cookie" not in answered
    assert b"Hello" not in answered


@pytest.mark.parametrize("pieces", [(b"Hell",), (b"Hello", b"!")])
async def test_an_answer_of_another_length_than_it_says_breaks_the_connection(pieces: tuple[bytes, ...]) -> None:
    async with served(answering(WHOLE, *pieces)) as port:
        answered = await send_request(port, get("/", last=False))

    assert not answered.endswith(b"!")


async def test_an_answer_can_end_the_connection() -> None:
    async with served(answering([*WHOLE, (b"connection", b"Close")], b"Hello")) as port:
        answered = await send_request(port, get("/", last=False))

    assert answered.endswith(b"Hello")


async def test_a_caller_who_waits_to_be_told_is_told_to_go_on() -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await answering(WHOLE, await body_of(receive))(scope, receive, send)

    async with served(answer) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/", "expect: 100-continue", "content-length: 5", method="POST"))
        lines_sent = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        writer.write(b"Hello")
        rest = await asyncio.wait_for(reader.read(), 20)
        writer.close()

    assert lines_sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert rest.endswith(b"Hello")


STAYING, LEAVING = HttpLimits(parting_s=600), HttpLimits(parting_s=0)


class Caller:
    """One connection, kept for one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connected(cls, port: int) -> Caller:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, path: str) -> None:
        self.writer.write(get(path, last=False))

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)

    async def answer(self, path: str) -> bytes:
        """Ask, and return the head of a whole answer that has come."""
        self.send(path)
        head = await self.head()
        await asyncio.wait_for(self.reader.readexactly(5), 20)
        return head


async def told_to_stop(port: int, stop: asyncio.Event) -> None:
    """Stop a server, and wait until it has said so to every connection that it has."""
    stop.set()
    with pytest.raises(ConnectionError):
        while True:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()


def when(go: asyncio.Event) -> Handler:
    """Answer at once; ``/waits`` not before ``go``, and of ``/runs`` the head alone until then."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/waits":
            await go.wait()
        if scope["path"] != "/runs":
            await answering(WHOLE, b"Hello")(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await go.wait()
        await send({"type": "http.response.body", "body": b"Hello"})

    return answer


async def test_a_stop_loses_no_request_of_a_kept_connection() -> None:
    """Of an idle one, of one whose answer had not begun, and of one whose answer ran: each is answered, and told then."""
    go = asyncio.Event()

    async with stoppable(when(go), Door(STAYING), shutdown_s=60) as (port, stop):
        idle, waits, runs = [await Caller.connected(port) for _ in range(3)]
        kept = await idle.answer("/")
        runs.send("/runs")
        await runs.head()
        waits.send("/waits")
        await told_to_stop(port, stop)

        go.set()
        heads = [await idle.answer("/"), await waits.head()]
        running = await asyncio.wait_for(runs.reader.readuntil(b"0\r\n\r\n"), 20)
        heads.append(await runs.answer("/"))
        rest = [await asyncio.wait_for(one.reader.read(), 20) for one in (idle, waits, runs)]
        for one in (idle, waits, runs):
            one.writer.close()

    assert b"connection: close" not in kept
    assert running.startswith(b"5\r\nHello\r\n")
    assert all(b"connection: close" in head for head in heads)
    assert rest == [b"", b"Hello", b""]


async def test_a_kept_connection_that_nobody_uses_ends_with_the_server() -> None:
    """One that was used, one that never was, and one whose answer ran when the server was told to stop."""
    go = asyncio.Event()

    async with stoppable(when(go), Door(LEAVING), shutdown_s=60) as (port, stop):
        used, new, runs = [await Caller.connected(port) for _ in range(3)]
        await used.answer("/")
        runs.send("/runs")
        await runs.head()
        await told_to_stop(port, stop)

        go.set()
        rest = [await asyncio.wait_for(one.reader.read(), 20) for one in (used, new, runs)]
        for one in (used, new, runs):
            one.writer.close()

    assert rest == [b"", b"", b"5\r\nHello\r\n0\r\n\r\n"]


async def test_an_answer_that_breaks_off_ends_with_a_reset_where_an_end_would_pass_for_its_own() -> None:
    """An answer of HTTP/1.0 without a length ends where its connection does."""

    async def answer(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"Hello", "more_body": True})
        raise RuntimeError("broken off")

    async with served(answer) as port:
        with pytest.raises(ConnectionResetError):
            await send_request(port, get("/", version="1.0"))


async def test_an_app_hears_that_its_caller_is_gone() -> None:
    """It waits for nothing else then: what it holds for the caller is given back at once."""
    aborted = asyncio.Event()

    async def answer(_: Any, receive: Any, __: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        aborted.set()

    async with served(answer) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/"))
        await writer.drain()
        writer.transport.abort()
        await asyncio.wait_for(aborted.wait(), 20)


async def test_a_body_that_nobody_reads_stays_with_its_sender() -> None:
    """However often the server could have taken more of it."""
    go, size = asyncio.Event(), 24 * 2**20

    async def answer(scope: Any, _: Any, send: Any) -> None:
        if scope["path"] == "/unread":
            await go.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with served(answer) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/unread", f"content-length: {size}", method="POST") + bytes(size))
        for _ in range(300):
            await send_request(port, get("/"))
        assert writer.transport.get_write_buffer_size() > size / 2
        go.set()
        writer.transport.abort()
