"""What a refused call is told: when to come back, and when the next period starts."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.holds.hold import FACTS, Facts
from gateway.holds.offer import HouseLimits, Offer, offer
from gateway.holds.refusals import refusal
from pricing.menus.menu import Tier

HOUSE = HouseLimits(answer_tokens_max=16_384, conversation_tokens_max=131_072, grant_tokens_min=16, observes=False)
OFFER: Offer = offer(Tier("basic", period_tokens_max=500, requests_per_minute=60), "v1", {}, HOUSE)
ENDS_AT = 10_000_000
CALL: dict[str, Any] = dict.fromkeys(FACTS) | {"choices": 1, "input_bound": 100, "period_end": ENDS_AT}


@pytest.mark.parametrize(
    ("left_us", "wait_s"), [(1, "1"), (1_000_000, "1"), (1_000_001, "2"), (2_000_000, "2"), (59_000_001, "60")]
)
def test_the_wait_for_a_turn_is_rounded_up(left_us: int, wait_s: str) -> None:
    """A caller that comes back after so many seconds is admitted."""
    error = refusal(OFFER, Facts(**CALL), ["refused", "rate", str(left_us)], 0, most_tokens=10, grant_min=10)

    assert error.headers["retry-after"] == wait_s


@pytest.mark.parametrize(
    ("left_ms", "reset"), [(0, "0s"), (-5_000, "0s"), (999, "0s"), (61_000, "1m1s"), (7_384_000, "2h3m4s")]
)
def test_a_used_up_period_says_in_how_many_seconds_the_next_one_starts(left_ms: int, reset: str) -> None:
    reply = ["refused", "period", "7", "490", "3", "10"]

    error = refusal(OFFER, Facts(**CALL), reply, ENDS_AT - left_ms, most_tokens=10, grant_min=10)

    assert error.headers == {
        "x-should-retry": "false",
        "x-ratelimit-limit-tokens": "500",
        "x-ratelimit-remaining-tokens": "7",
        "x-ratelimit-reset-tokens": reset,
    }
    assert f"the next period starts in {reset}" in error.message
