"""The bytes sent to a caller and their order, with a server that can write at once and without."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.deadlines import Deadlines
from gateway.errors import CallerGone
from gateway.serving.caller.exchange import WRITE_NOW, Exchange


class Server:
    """An ASGI server of one request; ``is_full`` while its caller reads nothing."""

    def __init__(self, *, writes_at_once: bool) -> None:
        self.sent: list[bytes] = []
        self.is_full = False
        self.taken = asyncio.Event()
        self._writes_at_once = writes_at_once

    @property
    def scope(self) -> dict[str, Any]:
        extensions = {WRITE_NOW: {"write": self._write}} if self._writes_at_once else {}
        return {"method": "POST", "path": "/", "query_string": b"", "headers": [], "extensions": extensions}

    def _write(self, chunk: bytes) -> bool:
        self.sent.append(chunk)
        return not self.is_full

    async def receive(self) -> Any:
        raise AssertionError("nothing is read here")

    async def send(self, message: Any) -> None:
        if self.is_full:
            await self.taken.wait()
        if body := message.get("body"):
            self.sent.append(body)


def exchange_with(server: Server, deadlines: Deadlines, write_ticks: int = 2) -> Exchange:
    return Exchange(server.scope, server.receive, server.send, "req_1", deadlines, write_ticks)


@pytest.mark.parametrize("writes_at_once", [True, False])
async def test_everything_is_sent_in_its_order(writes_at_once: bool) -> None:
    server = Server(writes_at_once=writes_at_once)
    exchange = exchange_with(server, Deadlines())

    for number in range(4):
        if number == 2:
            exchange.keep(b"kept")
        if not exchange.write_now(b"%d" % number):
            await exchange.flush()
    await exchange.end(b"end")

    assert b" ".join(server.sent).replace(b"kept2", b"kept 2") == b"0 1 kept 2 3 end"


async def test_who_takes_nothing_is_waited_for() -> None:
    server = Server(writes_at_once=True)
    exchange = exchange_with(server, Deadlines())
    server.is_full = True

    assert not exchange.write_now(b"one")
    flushing = asyncio.create_task(exchange.flush())
    await asyncio.sleep(0)
    assert not flushing.done()
    server.is_full = False
    server.taken.set()
    await flushing

    assert exchange.write_now(b"two")


async def test_who_takes_nothing_for_too_long_is_given_up() -> None:
    server, deadlines = Server(writes_at_once=True), Deadlines(tick_s=0.001)
    server.is_full = True

    async def write() -> None:
        with exchange_with(server, deadlines) as exchange:
            exchange.write_now(b"one")
            await exchange.flush()

    with pytest.raises(CallerGone):
        await asyncio.wait_for(write(), 20)


async def test_what_does_not_come_in_time_is_not_waited_for_any_longer() -> None:
    server, deadlines = Server(writes_at_once=True), Deadlines(tick_s=0.001)
    coming: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    with exchange_with(server, deadlines) as exchange:
        found = await asyncio.wait_for(exchange.in_time(coming, 0.002), 20)

    assert found is None
    assert coming.done()
