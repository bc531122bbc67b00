"""Work for a caller ends at the moment when the server reports that the caller is gone, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.deadlines import Deadlines
from gateway.errors import CallerGone
from gateway.serving.caller.exchange import CallerWatch

FAR_OFF_S = 1_000.0


class Server:
    """Reports to one listener that the caller is gone, at once if it is gone already."""

    def __init__(self) -> None:
        self.on_gone: Callable[[], None] | None = None
        self.is_gone = False

    def when_gone(self, on_gone: Callable[[], None] | None) -> None:
        self.on_gone = on_gone
        if on_gone is not None and self.is_gone:
            on_gone()

    async def receive(self) -> Any:
        raise AssertionError("nobody has to wait for it")


def attended(server: Server, *, heeds_caller: bool = True) -> CallerWatch:
    """Return a block that no tick ever visits."""
    return CallerWatch(server.receive, server.when_gone, Deadlines(FAR_OFF_S), FAR_OFF_S, heeds_caller=heeds_caller)


async def test_a_caller_that_leaves_ends_it_at_once() -> None:
    server = Server()

    async def wait() -> None:
        async with attended(server):
            await asyncio.sleep(FAR_OFF_S)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert server.on_gone is not None
    server.on_gone()

    with pytest.raises(CallerGone):
        await asyncio.wait_for(waiting, 20)
    assert server.on_gone is None


async def test_for_a_caller_that_has_left_nothing_is_begun() -> None:
    server = Server()
    server.is_gone = True
    begun = False

    with pytest.raises(CallerGone):
        async with attended(server):
            begun = True

    assert not begun
    assert server.on_gone is None
    await asyncio.sleep(0)  # and nothing cancels the code after it


async def test_what_goes_on_to_its_end_hears_of_no_caller() -> None:
    server = Server()

    async with attended(server, heeds_caller=False):
        assert server.on_gone is None


async def test_what_is_read_on_ends_so_long_after_its_caller_left() -> None:
    server, deadlines = Server(), Deadlines(FAR_OFF_S)
    caller_watch = CallerWatch(
        server.receive,
        server.when_gone,
        deadlines,
        FAR_OFF_S * 100,
        heeds_caller=True,
        on_disconnect=lambda: FAR_OFF_S * 2,
    )

    async def wait() -> None:
        async with caller_watch:
            await asyncio.sleep(FAR_OFF_S)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert server.on_gone is not None
    server.on_gone()
    assert caller_watch.is_unheard
    for _ in range(deadlines.within(FAR_OFF_S * 2) - 1):
        caller_watch.tick()
    await asyncio.sleep(0)
    assert not waiting.done()
    caller_watch.tick()

    with pytest.raises(CallerGone):
        await asyncio.wait_for(waiting, 20)


async def test_what_is_over_goes_on_for_nobody() -> None:
    server = Server()
    caller_watch = CallerWatch(
        server.receive,
        server.when_gone,
        Deadlines(FAR_OFF_S),
        FAR_OFF_S,
        heeds_caller=True,
        on_disconnect=lambda: FAR_OFF_S,
    )
    async with caller_watch:
        pass
    assert not caller_watch.stays()


async def test_it_has_so_long_and_ends_at_its_deadline() -> None:
    """The end is exact to the tick: nothing ends the block before, whether it heeds its caller or not."""
    for heeds_caller in (True, False):
        server, deadlines = Server(), Deadlines(FAR_OFF_S)
        caller_watch = CallerWatch(
            server.receive, server.when_gone, deadlines, 3 * FAR_OFF_S, heeds_caller=heeds_caller, on_disconnect=None
        )

        async def wait(attended: CallerWatch) -> None:
            async with attended:
                await asyncio.sleep(FAR_OFF_S)

        waiting = asyncio.create_task(wait(caller_watch))
        await asyncio.sleep(0)
        for _ in range(deadlines.within(3 * FAR_OFF_S) - 1):
            caller_watch.tick()
        await asyncio.sleep(0)
        assert not waiting.done()
        caller_watch.tick()

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting, 20)


async def test_an_answer_that_is_read_on_for_nobody_has_no_more_time_than_the_call() -> None:
    server, deadlines = Server(), Deadlines(FAR_OFF_S)
    caller_watch = CallerWatch(
        server.receive,
        server.when_gone,
        deadlines,
        2 * FAR_OFF_S,
        heeds_caller=True,
        on_disconnect=lambda: 100 * FAR_OFF_S,
    )

    async def wait() -> None:
        async with caller_watch:
            await asyncio.sleep(FAR_OFF_S)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert server.on_gone is not None
    server.on_gone()
    for _ in range(deadlines.within(2 * FAR_OFF_S)):
        caller_watch.tick()

    with pytest.raises(CallerGone):
        await asyncio.wait_for(waiting, 20)
