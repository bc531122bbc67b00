"""What holds for one call holds for a crowd: failures leave nothing held, and a quota is served to its edge, not beyond."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.calls import Faulty, both_ways, faulty_loop
from tests.faults.crowds import fail, herd, largest_hold
from tests.faults.truth import Script
from tests.waiting import until

QUOTA = 10_000


@pytest.fixture
def three(tmp_path: Path, way: str) -> Iterator[Faulty]:
    settings = {"first_token_deadline_s": 2, "call_deadline_s": 10, "lease_s": 30, "upstream_streams": way}
    with faulty_loop(tmp_path, gateways=3, **settings) as running:
        yield running


@both_ways
async def test_a_crowd_of_calls_that_fail_upstream_leaves_nothing_held_within_two_seconds(three: Faulty) -> None:
    who = three.loop.customer("open")
    answers = await fail(three, who, 500)

    await asyncio.to_thread(until, lambda: three.loop.open_holds() == 0, 2.0)
    assert three.loop.account(who)["period"]["tokens_held"] == 0
    assert set(answers) == {200, 502, 503, 504}
    assert three.post(who, Script()).status_code == 200, "the next call is admitted"
    assert len(three.loop.usage(who)) == sum(call.was_answered for call in three.truth.calls.values())


@both_ways
@pytest.mark.parametrize("price", [0, 1])
async def test_a_mixed_herd_is_served_to_the_edge_of_its_quota_and_not_one_token_more(
    three: Faulty, price: int
) -> None:
    """With a price, a conversation buys its whole cap or nothing, so up to the largest hold may stay unserved."""
    three.loop.tier("herd", period_tokens_max=QUOTA, conversation_tokens_max=largest_hold(), price_nanousd=price)
    who = three.loop.customer("herd")
    answers = await herd(three, who, 400)

    assert set(answers) == {200, 429}, answers
    await asyncio.to_thread(three.loop.until_nothing_is_held)
    period = three.loop.account(who)["period"]
    assert QUOTA - largest_hold() <= period["tokens_used"] <= QUOTA
    assert period["tokens_used"] + period["tokens_remaining"] == QUOTA
    rows = three.loop.usage(who)
    assert sum(row["billed_output_tokens"] for row in rows) == period["tokens_used"] == sum_made(three)
    assert len(rows) == answers[200] == len(three.truth.calls), "a refused call never reaches the upstream"


def sum_made(faulty: Faulty) -> int:
    return sum(call.tokens for call in faulty.truth.calls.values())
