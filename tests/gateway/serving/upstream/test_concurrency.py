"""The limit on simultaneous upstream calls: never more than its places, and a turn for every customer."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from gateway.errors import UpstreamOverloaded
from gateway.serving.upstream.concurrency import ConcurrencyLimit


class Crowd:
    """Callers at the limit, each of whom leaves when its event is set."""

    def __init__(self, concurrency: ConcurrencyLimit) -> None:
        self.concurrency = concurrency
        self.inside: list[str] = []
        self.most = 0
        self.leave: dict[str, asyncio.Event] = {}

    async def call(self, name: str, customer: str) -> None:
        self.leave[name] = asyncio.Event()
        async with self.concurrency.place(customer):
            self.inside.append(name)
            self.most = max(
                self.most, sum(not event.is_set() for one, event in self.leave.items() if one in self.inside)
            )
            await self.leave[name].wait()


async def settled() -> None:
    """Yield to the event loop until every task waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_burst_waits_behind_itself() -> None:
    """One customer never has the last place, and a free place goes to the longest waiting call that may have it."""
    crowd = Crowd(ConcurrencyLimit(4, wait_s=60))
    burst = [asyncio.create_task(crowd.call(f"a{number}", "acme")) for number in range(6)]
    await settled()
    assert crowd.inside == ["a0", "a1", "a2"]
    others = [asyncio.create_task(crowd.call(f"b{number}", "beta")) for number in range(2)]
    await settled()
    assert crowd.inside[3:] == ["b0"]
    for name in ("a0", "b0"):
        crowd.leave[name].set()
        await settled()

    assert crowd.inside[4:] == ["a3", "b1"]
    for name in ("a1", "a2", "a3", "b1", "a4", "a5"):
        crowd.leave[name].set()
        await settled()
    await asyncio.gather(*burst, *others)
    assert crowd.most == 4


async def test_one_place_is_for_everyone() -> None:
    """With a single place, none can be reserved for others."""
    concurrency = ConcurrencyLimit(1, wait_s=0)
    async with concurrency.place("acme"):
        with pytest.raises(UpstreamOverloaded):
            await concurrency.place("beta").__aenter__()

    async with concurrency.place("beta"):
        with pytest.raises(UpstreamOverloaded):
            await concurrency.place("acme").__aenter__()


async def test_who_waits_too_long_is_told_and_takes_no_place() -> None:
    concurrency = ConcurrencyLimit(1, wait_s=0)
    crowd = Crowd(concurrency)
    first = asyncio.create_task(crowd.call("a0", "acme"))
    await settled()
    with pytest.raises(UpstreamOverloaded):
        await crowd.call("a1", "acme")
    crowd.leave["a0"].set()
    await first

    async with concurrency.place("acme"):
        pass


async def test_a_place_is_never_lost_whoever_hangs_up_while_waiting() -> None:
    concurrency = ConcurrencyLimit(1, wait_s=60)
    crowd = Crowd(concurrency)
    first = asyncio.create_task(crowd.call("a0", "acme"))
    await settled()
    waiting = [asyncio.create_task(crowd.call(f"a{number}", "acme")) for number in range(1, 4)]
    await settled()
    waiting[0].cancel()
    crowd.leave["a0"].set()
    waiting[1].cancel()
    await asyncio.gather(first, *waiting[:2], return_exceptions=True)
    await settled()

    assert crowd.inside == ["a0", "a3"]
    crowd.leave["a3"].set()
    await waiting[2]
    async with concurrency.place("beta"):
        pass


async def test_a_place_that_comes_as_its_caller_hangs_up_goes_to_the_next() -> None:
    concurrency = ConcurrencyLimit(1, wait_s=60)
    first = concurrency.place("acme")
    await first.__aenter__()
    leaves, follows = (asyncio.create_task(concurrency.place(name).__aenter__()) for name in ("acme", "beta"))
    await settled()

    await first.__aexit__(None, None, None)
    leaves.cancel()
    await settled()

    assert leaves.cancelled()
    assert follows.done()


async def test_a_customer_that_was_called_in_goes_behind_those_that_wait() -> None:
    """A customer with many waiting calls does not get the next place as well."""
    crowd = Crowd(ConcurrencyLimit(8, wait_s=60))
    calls = [asyncio.create_task(crowd.call(f"{name}{number}", name)) for name in "xy" for number in range(4)]
    await settled()
    for name in ("a0", "a1", "b0"):
        calls.append(asyncio.create_task(crowd.call(name, name[0])))
        await settled()
    for name in ("x0", "y0"):
        crowd.leave[name].set()
        await settled()

    assert crowd.inside[8:] == ["a0", "b0"]
    for event in crowd.leave.values():
        event.set()
    await settled()
    crowd.leave["a1"].set()
    await asyncio.gather(*calls)


async def test_without_a_limit_everybody_is_let_through() -> None:
    concurrency, inside = ConcurrencyLimit(None, wait_s=0), 0
    async with AsyncExitStack() as stack:
        for customer in ("acme", "acme", "beta") * 100:
            await stack.enter_async_context(concurrency.place(customer))
            inside += 1

    assert inside == 300
