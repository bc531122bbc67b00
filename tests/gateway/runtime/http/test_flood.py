"""What has no end costs next to nothing: so many bytes are taken, each of them looked at a fixed number of times."""

from __future__ import annotations

import asyncio
import logging
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import repeat
from types import FrameType
from typing import Any

import pytest

from gateway.runtime.http import protocol
from gateway.runtime.http.connections import Door
from gateway.runtime.http.limits import HttpLimits
from tests.gateway.runtime.http.wire import LONG_S, HandClock, house, refusal, request

MOST = HttpLimits().head_max
START = b"GET /livez HTTP/1.1\r\nHost: here\r\n"
CHUNKED = request("Transfer-Encoding: chunked")

ENDLESS = {
    "a value": (START + b"a: ", b"x" * 1_000, (431, "headers_too_large")),
    "a name": (START, b"x" * 1_000, (431, "headers_too_large")),
    "headers": (START, b"a: b\r\n" * 100, (431, "headers_too_large")),
    "a URL": (b"GET /", b"x" * 1_000, (414, "url_too_long")),
    "a query": (b"GET /?", b"x" * 1_000, (414, "url_too_long")),
    "a method": (b"", b"X" * 1_000, (400, "invalid_http")),
    "empty lines": (b"", b"\r\n" * 100, (400, "invalid_http")),
    "nothing at all": (b"", b"\x00" * 1_000, (400, "invalid_http")),
    "an extension of a chunk": (CHUNKED + b"1;", b"x" * 1_000, (400, "invalid_http")),
    "a length of a chunk": (CHUNKED, b"0" * 1_000, (400, "invalid_http")),
    "a trailer": (CHUNKED + b"0\r\na: ", b"x" * 1_000, (400, "invalid_http")),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n" * 100, (400, "invalid_http")),
    "chunks of a byte": (CHUNKED, b"1\r\nx\r\n" * 200, (400, "invalid_http")),
}


@pytest.mark.parametrize(("start", "piece", "expected"), ENDLESS.values(), ids=ENDLESS)
async def test_what_has_no_end_is_refused_at_its_limit(start: bytes, piece: bytes, expected: tuple[int, str]) -> None:
    """The caller hears it while it still sends, and the server keeps nothing of it."""
    async with house() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        answered = asyncio.create_task(reader.read())
        tracemalloc.start()
        writer.write(start)
        for _ in range(5_000):
            if answered.done():
                break
            writer.write(piece)
            await asyncio.sleep(0)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert refusal(await asyncio.wait_for(answered, LONG_S)) == expected
        assert most < 4 * 2**20
        writer.close()


class Unwatched:
    """What uvicorn hands a connection, and a transport that goes nowhere."""

    loaded_app: Any = None
    default_headers: Any = ()
    total_requests = 0

    def __init__(self) -> None:
        self.connections: set[Any] = set()
        self.tasks: set[Any] = set()
        self.written = b""
        self.closes = False

    def get_extra_info(self, _: str) -> None:
        return None

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closes

    def write_eof(self) -> None:
        self.closes = True


def bytes_looked_at(pieces: Iterator[bytes]) -> tuple[int, int, bytes]:
    """Feed pieces to a connection until it refuses; return how many bytes it took, and how many functions were called."""
    wire, door = Unwatched(), Door(None, HandClock())
    connection = protocol.Connection(wire, wire, {}, asyncio.get_running_loop(), door=door)
    connection.connection_made(wire)  # type: ignore[arg-type]
    looked_at = calls = 0

    def note(_: FrameType, event: str, __: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        for piece in pieces:
            looked_at += len(piece)
            connection.get_buffer(-1)[: len(piece)] = piece
            connection.buffer_updated(len(piece))
            if wire.written:
                break
    finally:
        sys.setprofile(None)
    return looked_at, calls, wire.written


@pytest.mark.parametrize("size", [1, 100, 10_000])
async def test_a_head_is_counted_before_it_is_read(size: int, caplog: pytest.LogCaptureFixture) -> None:
    """However small its pieces are, it is refused with the piece that crosses the limit, at a fixed cost a piece."""
    caplog.set_level(logging.ERROR, "gateway.runtime.http.connections")  # a line a minute is not what is counted

    def pieces() -> Iterator[bytes]:
        yield START + b"a: "
        yield from repeat(b"x" * size)

    looked_at, calls, answered = bytes_looked_at(pieces())

    assert answered.startswith(b"HTTP/1.1 431 ")
    assert MOST < looked_at <= MOST + size + len(START) + 3
    assert calls <= 40 * (looked_at // size + 2)


@pytest.mark.parametrize("begun", [1_000, 30_000])
async def test_a_byte_costs_the_same_wherever_it_stands_in_a_head(begun: int) -> None:
    """Nothing that was there before is copied or looked at again: it would be 30 times the bytes."""
    wire, door = Unwatched(), Door(None, HandClock())
    connection = protocol.Connection(wire, wire, {}, asyncio.get_running_loop(), door=door)
    connection.connection_made(wire)  # type: ignore[arg-type]

    def feed(piece: bytes) -> None:
        connection.get_buffer(-1)[: len(piece)] = piece
        connection.buffer_updated(len(piece))

    feed(START + b"a: " + b"x" * begun)
    feed(b"x")  # the first one moves what is there into room that grows

    assert _allocated(lambda: feed(b"x")) < 1_000


def _allocated(act: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        act()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
