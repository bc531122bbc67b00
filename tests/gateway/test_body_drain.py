"""Refused bodies are dropped a few at a time, and nobody waits for ever for another's."""

from __future__ import annotations

import asyncio

from gateway.body_drain import AT_ONCE, DROPPED_MOST, SMALL, BodyDrain, More


def body(pieces: int, size: int, taken: list[int], *, then: asyncio.Event | None = None) -> More:
    """Return a body of so many pieces; after the first, ``then`` is waited for. ``taken`` counts what was read of it."""
    left = iter(range(pieces))

    async def more() -> bytes | None:
        number = next(left, None)
        if number is None:
            return None
        if number and then is not None:
            await then.wait()
        taken[0] += size
        return bytes(size)

    return more


async def test_what_is_small_is_dropped_at_once_and_what_is_endless_is_not_dropped_for_ever() -> None:
    dropping, taken = BodyDrain(at_once=0), [0]

    assert await dropping.drop(body(2, SMALL // 4, taken))
    assert not await BodyDrain().drop(body(10**9, 2**20, taken))
    assert taken[0] <= DROPPED_MOST + 2**21


async def test_larger_ones_have_their_turns_and_nothing_is_read_of_who_waits() -> None:
    go_on, taken = asyncio.Event(), [[0] for _ in range(AT_ONCE + 5)]
    dropping = BodyDrain()
    drops = [
        asyncio.create_task(dropping.drop(body(3, 2 * SMALL, one, then=go_on if number < AT_ONCE else None)))
        for number, one in enumerate(taken)
    ]
    for _ in range(10):
        await asyncio.sleep(0)

    assert [one[0] for one in taken] == [2 * SMALL] * len(taken)
    go_on.set()
    assert all(await asyncio.gather(*drops))
    assert [one[0] for one in taken] == [6 * SMALL] * len(taken)


async def test_who_sends_slowly_is_given_up_and_the_next_has_its_turn() -> None:
    never, taken = asyncio.Event(), [0]
    dropping = BodyDrain(at_once=1, wait_s=0.05)
    slow = asyncio.create_task(dropping.drop(body(3, 2 * SMALL, taken, then=never)))
    await asyncio.sleep(0)

    assert not await slow
    assert await dropping.drop(body(3, 2 * SMALL, taken))
