"""Who takes too long, too much or too many connections is told so and gone; others notice nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from gateway.runtime.http.connections import Door, group_of
from gateway.runtime.http.limits import BODY_GRACE_S, LINGER_BYTES_MAX, HttpLimits
from tests.gateway.runtime.http.wire import LONG_S, House, house, refusal, request, seen_to, statuses
from tests.serving import outlived

LIMITS = HttpLimits(head_deadline_s=10, body_rate_min=100, keep_alive_s=75, write_deadline_s=60)
HEAD = b"POST /v1/x HTTP/1.1\r\nHost: here\r\n"


class Caller(asyncio.Protocol):
    """A connection that knows what came and whether it has ended."""

    hangs_up = True
    """Whether it ends its half, too, once the server has ended its own."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received = b""
        self.is_open = True
        self._news = asyncio.Event()

    @classmethod
    async def of(cls, it: House, raw: bytes = b"") -> Caller:
        _, caller = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", it.port)
        await caller.say(raw)
        return caller

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._news.set()

    def eof_received(self) -> bool:
        self.is_open = False
        self._news.set()
        return not self.hangs_up

    def connection_lost(self, _: Exception | None) -> None:
        self.is_open = False
        self._news.set()

    async def say(self, raw: bytes) -> None:
        self.transport.write(raw)
        for _ in range(3):
            await seen_to()

    async def until(self, ending: bytes) -> bytes:
        while self.is_open and not self.received.endswith(ending):
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), LONG_S)
        return self.received

    async def rest(self) -> bytes:
        """Return all that came, once the connection has ended."""
        while self.is_open:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), LONG_S)
        return self.received

    async def has_heard_nothing(self) -> bool:
        for _ in range(3):
            await seen_to()
        return self.is_open and not self.received


class Lingering(Caller):
    hangs_up = False


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG_S):
        while not is_so():
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "begun",
    [b"G", b"GET /livez HTTP/1.1\r\nHost: a\r\na: b", HEAD + b"\r", b"\r"],
    ids=["one byte", "a header", "the end", "CR"],
)
async def test_a_head_that_does_not_come_is_408(begun: bytes) -> None:
    """The deadline runs from the accept for the first one, and is not put off by a byte now and then."""
    async with house(limits=LIMITS) as it:
        caller = await Caller.of(it)
        it.clock.run(6)
        await caller.say(begun)
        it.clock.run(3)
        assert await caller.has_heard_nothing()
        it.clock.run(1)

        assert refusal(await caller.rest()) == (408, "request_timeout")


async def test_who_says_nothing_is_hung_up_on_without_a_word() -> None:
    async with house(limits=LIMITS) as it:
        new, kept = await Caller.of(it), await Caller.of(it, request("Content-Length: 0"))
        await kept.until(b"x 0\n")
        it.clock.run(10)
        assert await new.rest() == b""
        assert kept.is_open
        it.clock.run(65)

        assert (await kept.rest()).endswith(b"x 0\n")


async def test_the_head_of_a_later_request_has_its_own_deadline() -> None:
    async with house(limits=LIMITS) as it:
        caller = await Caller.of(it, request("Content-Length: 0"))
        await caller.until(b"x 0\n")
        it.clock.run(70)
        await caller.say(HEAD)
        it.clock.run(9)
        for _ in range(3):
            await seen_to()
        assert caller.is_open
        assert caller.received.endswith(b"x 0\n")
        it.clock.run(1)

        assert refusal((await caller.rest()).partition(b"x 0\n")[2]) == (408, "request_timeout")


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
async def test_a_body_that_stops_is_408(framing: str) -> None:
    """However much came before: a caller that sent much may not stop for longer."""
    async with house(limits=LIMITS) as it:
        caller = await Caller.of(it, request(framing) + b"c350\r\n" + b"x" * 40_000)
        it.clock.run(int(BODY_GRACE_S))
        assert await caller.has_heard_nothing()
        it.clock.run(1)

        assert refusal(await caller.rest()) == (408, "request_timeout")


async def test_a_body_that_drips_is_408_and_one_that_comes_slowly_is_not() -> None:
    async with house(limits=LIMITS) as it:
        drips, slow = [await Caller.of(it, request("Content-Length: 4000", "Connection: close")) for _ in range(2)]
        for second in range(40):
            if second < 12:
                await drips.say(b"x" * 10)
            await slow.say(b"x" * 100)
            it.clock.run(1)
            assert second >= 10 or await drips.has_heard_nothing()

        assert refusal(await drips.rest()) == (408, "request_timeout")
        assert statuses(await slow.rest()) == [200]


async def test_who_waits_to_be_told_is_not_taken_for_slow() -> None:
    """An app that has not asked for the body yet is the one who is waited for."""
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if await outlived(scope, receive, send):
            return
        await go.wait()
        await receive()
        await send({"type": "http.response.start", "status": 204, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body"})

    async with house(app, LIMITS) as it:
        caller = await Caller.of(it, request("Content-Length: 5", "Expect: 100-continue"))
        it.clock.run(600)
        go.set()
        await caller.until(b"100 Continue\r\n\r\n")
        await caller.say(b"Hello")

        assert (await caller.rest()).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204")


async def test_who_reads_nothing_is_hung_up_on() -> None:
    """Also by an app that watches nothing itself, in a stream as well as after the last byte was written."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if await outlived(scope, receive, send):
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        is_stream = scope["path"] == "/stream"
        for _ in range(30 if is_stream else 1):
            await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": is_stream})

    async with house(app, LIMITS) as it:
        callers = [await Caller.of(it) for _ in range(2)]
        for one in callers:
            one.transport.pause_reading()
        await callers[0].say(request("Content-Length: 0", target="/stream"))
        await callers[1].say(request("Content-Length: 0", target="/whole") * 30)
        it.clock.run(60)
        for _ in range(3):
            await seen_to()
        assert len(it.clock.watched) == 2
        it.clock.run(1)
        await until(lambda: not it.clock.watched)
        for one in callers:
            one.transport.abort()


async def test_a_listener_has_so_many_connections_and_who_waits_longest_makes_room() -> None:
    limits = HttpLimits(connections_max=3, connections_per_address_max=9)
    async with house(limits=limits) as it:
        running = await Caller.of(it, request("Content-Length: 5") + b"Hell")
        kept = await Caller.of(it, request("Content-Length: 0"))
        half = await Caller.of(it, HEAD)
        new = await Caller.of(it, request("Content-Length: 1"))
        assert (await kept.rest()).endswith(b"x 0\n"), "it waited longest"
        newer = await Caller.of(it, request("Content-Length: 1"))
        assert await half.rest() == b""
        refused = await Caller.of(it, request("Content-Length: 1") * 1_000)
        answered = await refused.rest()
        for one in (running, new, newer):
            await one.say(b"o")
            assert (await one.until(b"\n")).startswith(b"HTTP/1.1 200")
            one.transport.close()

    assert refusal(answered) == (503, "too_many_connections")
    assert b"retry-after: 1\r\n" in answered


async def test_one_address_has_so_many_connections() -> None:
    async with house(limits=HttpLimits(connections_max=100, connections_per_address_max=2)) as it:
        callers = [await Caller.of(it, request("Content-Length: 1")) for _ in range(2)]
        refused = await Caller.of(it, request("Content-Length: 1"))
        assert refusal(await refused.rest()) == (503, "too_many_connections")
        callers[0].transport.close()
        await until(lambda: len(it.clock.watched) == 1)

        another = await Caller.of(it, request("Connection: close"))
        assert statuses(await another.rest()) == [200]
        callers[1].transport.close()


async def test_who_is_refused_is_not_listened_to_for_ever() -> None:
    """It may send 1 MB more, for two seconds."""
    async with house(limits=LIMITS) as it:
        loud, still = [await Lingering.of(it, b"nonsense\r\n\r\n") for _ in range(2)]
        loud.transport.write(b"x" * (2 * LINGER_BYTES_MAX))
        await until(lambda: len(it.clock.watched) == 1)
        it.clock.run(2)
        await until(lambda: not it.clock.watched)

        assert refusal(await still.rest()) == (400, "invalid_http")
        for one in (loud, still):
            one.transport.abort()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (group_of(one) == group_of(other)) is same


async def test_a_door_forgets_who_left() -> None:
    async with house(limits=LIMITS) as it:
        for _ in range(20):
            caller = await Caller.of(it, request("Connection: close"))
            await caller.rest()
        await until(lambda: not it.clock.watched)

        assert (it.door._count, dict(it.door._of_address), it.door._waiting) == (0, {}, {})


def test_doors_are_apart() -> None:
    """Who crowds the customers' listener leaves the operator's alone."""
    assert Door()._waiting is not Door()._waiting


async def test_what_is_refused_is_counted_by_its_code_and_told_a_line_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also whom there is no room for, and who is slow; who never sends a byte was refused nothing."""
    now_s, codes = 0.0, Counter[str]()

    def count(code: str) -> None:
        codes[code] += 1

    limits = HttpLimits(connections_per_address_max=2)
    async with house(limits=limits, door_of=partial(Door, count=count, monotonic=lambda: now_s)) as it:
        silent = await Caller.of(it)
        for raw in (b"get / HTTP/1.1\r\n\r\n", b"GET /" + b"a" * 9_000, request(f"a: {'b' * 40_000}")):
            await (await Caller.of(it, raw)).rest()
        slow = await Caller.of(it, HEAD)
        await (await Caller.of(it)).rest()
        it.clock.run(10)
        await slow.rest()
        await silent.rest()
        now_s = 60.0
        await (await Caller.of(it, b"\0")).rest()

    assert codes == {
        "invalid_http": 2,
        "url_too_long": 1,
        "headers_too_large": 1,
        "too_many_connections": 1,
        "request_timeout": 1,
    }
    first, second = (
        record.getMessage() for record in caplog.records if record.name == "gateway.runtime.http.connections"
    )
    assert first == "refused at the door since this was last said: 1 invalid_http; now from 127.0.0.1"
    assert {"1 url_too_long", "1 too_many_connections", "1 request_timeout"} <= set(
        second.partition(": ")[2].partition(";")[0].split(", ")
    )


async def test_no_more_than_so_many_are_waited_for_until_they_have_read_a_refusal() -> None:
    async with house() as it:
        others: set[Any] = {object() for _ in range(255)}
        it.door.lingering |= others
        assert it.door.may_linger
        it.door.lingering.add(others_too := Lingering())  # type: ignore[arg-type]
        assert not it.door.may_linger
        it.door.lingering -= {others_too, *others}  # type: ignore[arg-type]
