"""Memory for bodies is never exceeded, never goes to one customer alone, and is granted in the order of waiting."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import TooMuchAtOnce
from gateway.serving.caller.body_memory import BodyMemory


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_one_customer_waits_for_itself_while_others_pass() -> None:
    room = BodyMemory(100, 40, wait_s=30)
    await room.take("greedy", 40)
    waiting = asyncio.create_task(room.take("greedy", 40))
    await settled()
    await room.take("other", 40)
    assert not waiting.done()

    room.give_back("greedy", 40)
    await waiting


async def test_who_came_first_is_not_passed_by_smaller_ones() -> None:
    room = BodyMemory(100, 60, wait_s=30)
    await room.take("a", 60)
    large = asyncio.create_task(room.take("b", 60))
    await settled()
    small = asyncio.create_task(room.take("c", 10))
    await settled()
    assert not large.done()
    assert not small.done()

    room.give_back("a", 60)
    await asyncio.gather(large, small)


async def test_who_waits_too_long_is_told_to_come_again_and_leaves_nothing() -> None:
    room = BodyMemory(10, 10, wait_s=0.01)
    await room.take("a", 10)
    with pytest.raises(TooMuchAtOnce) as error:
        await room.take("b", 10)
    assert (error.value.status, error.value.headers) == (503, {"retry-after": "1"})

    room.give_back("a", 10)
    await room.take("b", 10)


async def test_room_that_comes_as_its_caller_hangs_up_goes_to_the_next() -> None:
    room = BodyMemory(10, 10, wait_s=30)
    await room.take("a", 10)
    leaves, follows = (asyncio.create_task(room.take(name, 10)) for name in "bc")
    await settled()

    room.give_back("a", 10)
    leaves.cancel()
    await settled()

    assert leaves.cancelled()
    assert follows.done()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40), st.booleans()), max_size=40))
async def test_room_is_conserved_whoever_gives_up(bodies: list[tuple[str, int, bool]]) -> None:
    room, taken, high = BodyMemory(100, 40, wait_s=30), {"a": 0, "b": 0, "c": 0}, 0

    async def use(customer: str, size: int) -> None:
        nonlocal high
        await room.take(customer, size)
        try:
            taken[customer] += size
            assert taken[customer] <= 40
            high = max(high, sum(taken.values()))
            await asyncio.sleep(0)
        finally:
            taken[customer] -= size
            room.give_back(customer, size)

    tasks = [(asyncio.create_task(use(customer, size)), leaves) for customer, size, leaves in bodies]
    await asyncio.sleep(0)
    for task, leaves in tasks:
        if leaves:
            task.cancel()
    await asyncio.gather(*(task for task, leaves in tasks if not leaves))
    await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)

    assert high <= 100
    await asyncio.gather(room.take("a", 40), room.take("b", 40), room.take("c", 20))
