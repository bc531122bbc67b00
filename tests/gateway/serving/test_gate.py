"""The gate in front of the upstream: never more than its places, and a turn for every customer."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import UpstreamOverloaded
from gateway.serving.gate import Gate


class Crowd:
    """Callers at a gate, each of whom leaves when told."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.inside: list[str] = []
        self.most = 0
        self.leave: dict[str, asyncio.Event] = {}

    async def call(self, name: str, customer: str) -> None:
        self.leave[name] = asyncio.Event()
        async with self.gate.place(customer):
            self.inside.append(name)
            self.most = max(
                self.most, sum(not event.is_set() for one, event in self.leave.items() if one in self.inside)
            )
            await self.leave[name].wait()


async def settled() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_burst_waits_behind_itself() -> None:
    crowd = Crowd(Gate(2, wait_s=60))
    burst = [asyncio.create_task(crowd.call(f"a{number}", "acme")) for number in range(6)]
    await settled()
    other = asyncio.create_task(crowd.call("b0", "beta"))
    await settled()
    assert crowd.inside == ["a0", "a1"]
    crowd.leave["a0"].set()
    await settled()
    crowd.leave["a1"].set()
    await settled()

    assert crowd.inside[2:] == ["a2", "b0"]
    for name in [f"a{number}" for number in range(2, 6)] + ["b0"]:
        crowd.leave[name].set()
        await settled()
    await asyncio.gather(*burst, other)
    assert crowd.most == 2


async def test_who_waits_too_long_is_told_and_takes_no_place() -> None:
    gate = Gate(1, wait_s=0)
    crowd = Crowd(gate)
    first = asyncio.create_task(crowd.call("a0", "acme"))
    await settled()
    with pytest.raises(UpstreamOverloaded):
        await crowd.call("a1", "acme")
    crowd.leave["a0"].set()
    await first

    async with gate.place("acme"):
        pass


async def test_a_place_is_never_lost_whoever_hangs_up_while_waiting() -> None:
    gate = Gate(1, wait_s=60)
    crowd = Crowd(gate)
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
    async with gate.place("beta"):
        pass


async def test_without_a_limit_everybody_is_let_through() -> None:
    gate = Gate(None, wait_s=0)
    async with gate.place("acme"), gate.place("acme"), gate.place("beta"):
        pass
