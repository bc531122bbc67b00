"""The estimate beside a market is read as a whole or refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from pricing.market.estimated import Value, estimated
from pricing.market.fields import NotAMarket
from pricing.market.market import read_market

DRAW = {"value_nanousd": 900, "tokens_per_s": 40, "first_token_s": 0.2, "share": [1, 3], "survival": [0.4, 0.1]}
VALUE = {"nanousd": 1000, "low": 800, "high": 1200, "known_by": "estimated", "sigma": 0.1}


def market_with(**beside: Any) -> dict[str, Any]:
    return {
        "types": [{"urgency_per_s": 0.1, "share": 0.5}, {"urgency_per_s": 0.2, "share": 0.5}],
        "value_nanousd": 950,
        "delay": {"family": "exponential"},
        "answer_length": {"family": "kaplan_meier", "tokens": [10, 20], "survival": [0.5, 0.2]},
        "tokens_per_s": 50,
        "first_token_s": 0.1,
        "cost_nanousd_per_token": 0,
        "cap_tokens_max": 20,
        "currency": "USD",
        "estimate": beside,
    }


def test_draws_are_the_market_with_values_lengths_pace_and_shares_of_their_own() -> None:
    description = market_with(tiers=2, value_understated_by=0.05, value=VALUE, draws=[DRAW], notes=["Nobody knows."])

    beside = estimated(read_market(description))

    assert beside is not None
    assert (beside.tiers, beside.understated_by, beside.notes) == (2, 0.05, ("Nobody knows.",))
    assert beside.value == Value(1000, 800, 1200, "estimated", 0.1)
    (draw,) = beside.draws
    assert (draw.share, set(draw.value_nanousd), draw.tokens_per_s) == ((0.25, 0.75), {900}, 40)


def test_a_draw_may_lack_a_type() -> None:
    beside = estimated(read_market(market_with(draws=[DRAW | {"share": [0, 2]}])))

    assert beside is not None
    assert beside.draws[0].urgency_per_s == (0.2,)


def test_a_market_that_nobody_estimated_has_nothing_beside_it() -> None:
    description = {name: field for name, field in market_with().items() if name != "estimate"}

    assert estimated(read_market(description)) is None


@pytest.mark.parametrize(
    ("beside", "sentence"),
    [
        ({"tiers": 0}, "estimate.tiers"),
        ({"tiers": "all"}, "estimate.tiers"),
        ({"value_understated_by": 1}, "estimate.value_understated_by"),
        ({"value": VALUE | {"low": 1100}}, "lies from low to high"),
        ({"value": VALUE | {"known_by": "guess"}}, "estimate.value.known_by"),
        ({"draws": {}}, "estimate.draws"),
        ({"draws": [DRAW | {"share": [1]}]}, "estimate.draws[0].share"),
        ({"draws": [DRAW | {"share": [0, 0]}]}, "estimate.draws[0].share"),
        ({"draws": [DRAW | {"survival": [0.1, 0.4]}]}, "survival"),
        ({"draws": [DRAW | {"tokens_per_s": 0}]}, "tokens_per_s"),
        ({"notes": "none"}, "estimate.notes"),
    ],
)
def test_a_malformed_estimate_is_one_sentence(beside: dict[str, Any], sentence: str) -> None:
    with pytest.raises(NotAMarket) as refused:
        estimated(read_market(market_with(**beside)))

    assert sentence in str(refused.value)
