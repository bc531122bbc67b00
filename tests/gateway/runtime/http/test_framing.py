"""Every byte after a head is its body's until that is whole: nothing a caller names makes bytes of a body a request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.runtime.http.limits import READ_MAX, UNREAD_CHUNKS_MAX, UNREAD_MAX
from tests.gateway.runtime.http.wire import LONG_S, cuts, house, refusal, request, statuses
from tests.serving import outlived

INNER = request("Content-Length: 0", target="/smuggled")
LAST = request("Connection: close", "Content-Length: 0", target="/last")

SHORT = b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" + b"POST /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
GET = b"GET /in HTTP/1.1\r\n\r\n"
AHEAD = 8_000
"""Requests that are sent ahead: 370 kB, three times as much as may wait."""


def upgrading(*lines: str, method: str = "POST", version: str = "1.1") -> bytes:
    length = f"Content-Length: {len(INNER)}"
    return request(*lines, length, method=method, version=version, body=INNER)


UPGRADES = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    "websocket": (
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: eA==",
        "Sec-WebSocket-Version: 13",
    ),
    "anything": ("Connection: upgrade", "Upgrade: anything/1"),
    "two of them": ("Connection: Upgrade", "Upgrade: a", "Upgrade: b", "Connection: x"),
    "with expect": ("Connection: Upgrade", "Upgrade: h2c", "Expect: 100-continue"),
}


@pytest.mark.parametrize("lines", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "DELETE", "OPTIONS"])
async def test_an_upgrade_is_ignored_and_the_body_is_a_body(lines: tuple[str, ...], method: str) -> None:
    """Also where the body comes in a later read, is a request by itself, and the connection goes on after it."""
    raw = upgrading(*lines, method=method)
    head, body = raw[: -len(INNER)], INNER
    async with house() as it:
        for pieces in ((raw + LAST,), (head, body + LAST), (head, body, LAST), (head + body[:7], body[7:], LAST)):
            it.app.seen.clear()
            answered = await it.send_all(*pieces)

            assert statuses(answered.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")) == [200, 200]
            assert it.app.seen == [(method, "/v1/x", INNER), ("POST", "/last", b"")]


@pytest.mark.parametrize(
    "raw",
    [
        SHORT % (b"Upgrade: a\r\nConnection: Upgrade\r\nContent-Length: 20", GET),
        SHORT
        % (
            b"Transfer-Encoding: chunked\r\nUpgrade: a\r\nConnection: Upgrade",
            b"14\r\n" + GET + b"\r\n0\r\na: b\r\n\r\n",
        ),
    ],
    ids=["length", "chunks"],
)
async def test_wherever_the_reads_end_a_body_is_the_same(raw: bytes) -> None:
    async with house() as it:
        for pieces in cuts(raw):
            it.app.seen.clear()

            assert statuses(await it.send_all(*pieces)) == [200, 200]
            assert it.app.seen == [("POST", "/", GET), ("POST", "/last", b"")]


async def test_byte_by_byte_is_as_good() -> None:
    raw = SHORT % (b"Content-Length: 20", GET)
    async with house() as it:
        assert statuses(await it.send_all(*(raw[place : place + 1] for place in range(len(raw))))) == [200, 200]
        assert it.app.seen == [("POST", "/", GET), ("POST", "/last", b"")]


async def test_trailers_are_never_headers() -> None:
    chunks = b"2\r\nhi\r\n0\r\nAuthorization: Bearer x\r\nContent-Length: 100\r\n\r\n"
    async with house() as it:
        answered = await it.send_all(
            request("Transfer-Encoding: chunked", "Trailer: Authorization", body=chunks) + LAST
        )

        assert statuses(answered) == [200, 200]
        assert b"authorization" not in dict(it.app.scopes[0]["headers"])


@pytest.mark.parametrize(
    "raw",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
        b"CONNECT here:80 HTTP/1.1\r\nHost: here\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET http://there/v1/x HTTP/1.1\r\nHost: here\r\n\r\n",
        request("Content-Length: 1", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        request("Transfer-Encoding: chunked", version="1.0", body=b"0\r\n\r\n"),
        request("Transfer-Encoding: chunked", body=b"zz\r\n"),
        request(target="/v1/%63hat"),
    ],
)
async def test_a_refusal_is_told_and_ends_the_connection(raw: bytes) -> None:
    """Whatever follows it is no request, and does not keep the refusal from being read."""
    async with house() as it:
        answered = await it.send_all(raw + INNER * 50)

        assert refusal(answered) == (400, "invalid_http")
        assert ("POST", "/smuggled", b"") not in it.app.seen


async def test_a_refusal_stands_behind_the_answers_before_it() -> None:
    async with house() as it:
        answered = await it.send_all(request("Content-Length: 2", body=b"hi") * 3 + b"nonsense\r\n\r\n")

        assert statuses(answered) == [200, 200, 200, 400]


async def test_an_empty_line_may_stand_before_a_request() -> None:
    async with house() as it:
        answered = await it.send_all(request("Content-Length: 2", body=b"hi"), b"\r", b"\n", b"\r\n" + LAST)

        assert statuses(answered) == [200, 400]
    async with house() as it:
        assert statuses(await it.send_all(request("Content-Length: 2", body=b"hi"), b"\r", b"\n" + LAST)) == [200, 200]


@pytest.mark.parametrize(("size", "stays"), [(10, True), (UNREAD_MAX, True), (UNREAD_MAX + 1, False)])
async def test_a_body_that_nobody_reads_is_dropped_or_ends_the_connection(size: int, stays: bool) -> None:
    """Its bytes are no request either way."""
    body = (INNER * (size // len(INNER) + 1))[:size]
    async with house() as it:
        answered = await it.send_all(request(f"Content-Length: {size}", target="/at-once"), body, LAST)

        assert statuses(answered) == ([200, 200] if stays else [200])
        assert (b"connection: close" in answered.partition(b"\r\n\r\n")[0]) is not stays
        assert [path for _, path, _ in it.app.seen] == (["/at-once", "/last"] if stays else ["/at-once"])


@pytest.mark.parametrize(("size", "stays"), [(20, True), (UNREAD_CHUNKS_MAX, True), (UNREAD_CHUNKS_MAX + 1, False)])
@pytest.mark.parametrize("cut", [True, False], ids=["after the answer", "with the head"])
async def test_chunks_that_nobody_reads_are_dropped_or_end_the_connection(cut: bool, size: int, stays: bool) -> None:
    """Fewer than of other bytes: each chunk costs work until the last is found."""
    length = size - len("123\r\n\r\n0\r\n\r\n")
    body = b"%03x\r\n%b\r\n0\r\n\r\n" % (length, b"x" * length)
    head = request("Transfer-Encoding: chunked", target="/at-once")
    async with house() as it:
        answered = await it.send_all(*([head, body] if cut else [head + body]), LAST)

        assert len(body) == size
        assert statuses(answered) == ([200, 200] if stays else [200])
        assert [path for _, path, _ in it.app.seen] == (["/at-once", "/last"] if stays else ["/at-once"])


async def test_chunks_that_nobody_asks_for_are_not_looked_at_before_the_answer() -> None:
    """A caller without a key hears that it has none, and its chunks cost nothing."""
    async with house() as it:
        answered = await it.send_all(
            request("Transfer-Encoding: chunked", target="/at-once", body=b"no chunk\r\n"), LAST
        )

        assert statuses(answered) == [200]
        assert it.app.seen == [("POST", "/at-once", b"")]


async def test_who_waits_to_be_told_and_is_answered_at_once_is_not_waited_for() -> None:
    async with house() as it:
        answered = await it.send_all(request("Expect: 100-continue", "Content-Length: 5", target="/at-once"))

        assert statuses(answered) == [200]
        assert b"connection: close" in answered


async def test_what_is_sent_ahead_waits_in_bounded_room() -> None:
    """A caller that sends requests and more requests while the first runs is not read beyond a few reads."""
    go = asyncio.Event()
    began = asyncio.Event()

    class Slow:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                began.set()
                await go.wait()
            await it_is(scope, receive, send)

    async with house() as plain:
        it_is = plain.app
        async with house(Slow()) as it:
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            writer.write(request("Content-Length: 0", target="/first"))
            await began.wait()
            writer.write(request("Content-Length: 0") * AHEAD + LAST)
            (connection,) = it.clock.watched
            while connection._is_reading:  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            ahead = len(connection._ahead)  # type: ignore[attr-defined]
            go.set()
            answered = await asyncio.wait_for(reader.read(), 10 * LONG_S)
            writer.close()

    assert ahead < 2 * READ_MAX
    assert answered.count(b"HTTP/1.1 200 OK") == AHEAD + 2


async def test_an_answer_to_http_1_0_is_told_by_its_end() -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if not await outlived(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"Hello"})

    async with house(answer) as it:
        answered = await it.send_all(request(version="1.0"))

    assert b"chunked" not in answered
    assert answered.endswith(b"\r\n\r\nHello")


async def test_an_escaped_slash_is_no_slash() -> None:
    async with house() as it:
        await it.send_all(request("Connection: close", target="/v1/chat%2fcompletions", method="GET"))

        assert it.app.seen == [("GET", "/v1/chat%2fcompletions", b"")]
