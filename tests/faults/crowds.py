"""Many calls at once: all failing, or all wanting the last tokens of a quota."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx

from tests.faults.calls import Faulty, body
from tests.faults.truth import Script
from tests.loop.rig import Sold, clients

BREAKS = (
    Script(fault="status", status=500),
    Script(fault="status", status=429),
    Script(fault="error event", at=3),
    Script(fault="error event"),
    Script(fault="reset", at=2),
    Script(fault="cut", at=4),
    Script(fault="not json"),
)
HANGS = (Script(fault="hang before head"), Script(fault="hang before token"), Script(fault="hang", at=1))
FAILURES = BREAKS * 3 + HANGS
CAPS = (7, 90, 600, 333)
AT_ONCE = 50


async def post_all(
    urls: list[str], who: Sold, bodies: list[dict[str, Any]], *, at_once: int = AT_ONCE
) -> list[httpx.Response]:
    """Post every body, spread over the gateways, ``at_once`` at a time."""
    places = asyncio.Semaphore(at_once)
    async with clients(at_once, timeout=120, headers=who.headers) as ours:

        async def call(number: int, one: dict[str, Any]) -> httpx.Response:
            async with places:
                client = ours[number % len(ours)]
                return await client.post(f"{urls[number % len(urls)]}/v1/chat/completions", json=one)

        return await asyncio.gather(*(call(number, one) for number, one in enumerate(bodies)))


async def fail(faulty: Faulty, who: Sold, calls: int) -> Counter[int]:
    """Make calls that all fail at the upstream; return the counts of their statuses."""
    bodies = [body(FAILURES[number % len(FAILURES)], stream=number % 4 < 2) for number in range(calls)]
    answers = await post_all(faulty.loop.urls, who, bodies)
    assert not any("[DONE]" in answer.text for answer in answers)
    return Counter(answer.status_code for answer in answers)


async def herd(faulty: Faulty, who: Sold, calls: int) -> Counter[int]:
    """Make calls of mixed caps, choices and kinds, each taking all it can get; return the counts of their statuses."""
    endless = Script(tokens=10**6)
    bodies = [
        body(endless, stream=number % 2 == 0, n=3 if number % 5 == 0 else 1, max_tokens=CAPS[number % len(CAPS)])
        for number in range(calls)
    ]
    answers = await post_all(faulty.loop.urls, who, bodies, at_once=calls)
    return Counter(answer.status_code for answer in answers)


def largest_hold() -> int:
    """Return the most tokens that one call of a herd holds."""
    return 3 * max(CAPS)
