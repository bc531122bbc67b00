"""Worth is computed within its stated error bound, compared with fifty digits."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, getcontext

import numpy as np
import pytest

from pricing.market.market import ExponentialLength, Market, TableLength, read_market
from pricing.market.worth import own_tokens, summed_to, tokens_at, valuation_of, worth_at, worth_error
from tests.pricing import markets

getcontext().prec = 50


def left(delay: str, urgency: float, time_s: Decimal) -> Decimal:
    waited = Decimal(urgency) * time_s
    families = {
        "exponential": (-waited).exp(),
        "hyperbolic": 1 / (1 + waited),
        "linear": max(Decimal(0), 1 - waited),
        "sunk_linear": Decimal(1),
    }
    return families[delay]


def exactly(market: Market, row: int) -> list[Decimal]:
    """Return the worth of every cap to one type, from the market's numbers as written, to fifty digits."""
    value, urgency = Decimal(market.value_nanousd[row]), market.urgency_per_s[row]
    length = market.answer_length
    if isinstance(length, TableLength):
        tokens, chances = list(length.tokens), [Decimal(one) for one in length.probability]
    else:
        assert isinstance(length, ExponentialLength) and market.cap_tokens_max
        mean = Decimal(length.mean_tokens)
        tokens = list(range(1, market.cap_tokens_max + 1))
        chances = [(-(n - 1) / mean).exp() - (-n / mean).exp() for n in tokens]
    sums, total, longer, before = [], Decimal(0), Decimal(1), Decimal(0)
    for n, chance in zip(tokens, chances, strict=True):
        time_s = Decimal(market.first_token_s) + n / Decimal(market.tokens_per_s)
        total += value * chance * left(market.delay, urgency, time_s)
        if market.delay == "sunk_linear":
            total -= value * Decimal(urgency) * longer * (time_s - before)
        longer, before = longer - chance, time_s
        sums.append(total)
    return sums


@pytest.mark.parametrize("delay", ["exponential", "hyperbolic", "linear", "sunk_linear"])
@pytest.mark.parametrize("law", ["table", "exponential"])
def test_worth_is_within_its_bound(delay: str, law: str) -> None:
    """Hundreds of steps, values of a thousand dollars, waits many times as long as patience."""
    random = np.random.default_rng(37)
    for _ in range(4):
        description = markets.random_market(random, types_max=4, steps_max=300) | {
            "delay": {"family": delay},
            "value_nanousd": 1e9 if delay == "sunk_linear" else 1e12,
        }
        if law == "exponential":
            description |= {"answer_length": {"family": "exponential", "mean_tokens": 70.0}, "cap_tokens_max": 300}
        if delay != "sunk_linear":
            # The value halves from the most patient type to the most urgent.
            value = description.pop("value_nanousd")
            reach = max(one["urgency_per_s"] for one in description["types"])
            description["value_by_urgency"] = {
                "family": "points",
                "urgency_per_s": [0, reach],
                "value_nanousd": [value, value / 2],
            }
        market = read_market(description)
        valuation = valuation_of(market)
        steps = len(valuation.steps.tokens)
        caps = np.unique(random.integers(1, steps + 1, 6))
        worth, bound = worth_at(valuation, caps), worth_error(valuation, len(caps))
        for row in range(len(valuation.share)):
            exact = exactly(market, row)
            errors = [abs(float(Decimal(worth[row, place]) - exact[cap - 1])) for place, cap in enumerate(caps)]

            assert max(errors) <= bound
            assert bound < 0.01


def test_no_cap_is_worth_what_an_endless_sum_is() -> None:
    """Exponential answers without a cap are worth the geometric series, within the bound."""
    market = read_market(markets.market(value_nanousd=1e9))
    valuation = valuation_of(market)
    last = np.array([len(valuation.steps.tokens)])
    stays = np.exp(-1 / 400)
    for row, urgency in enumerate(market.urgency_per_s):
        waits = np.exp(-urgency / 50)
        endless = 1e9 * np.exp(-urgency * 0.4) * (1 - stays) * waits / (1 - stays * waits)

        assert worth_at(valuation, last)[row, 0] == pytest.approx(endless, abs=worth_error(valuation, 1) + 1e-4)


def test_sums_in_pairs_are_sums() -> None:
    """For any number of terms and any caps, including equal caps and zero."""
    random = np.random.default_rng(41)
    for size in (1, 2, 3, 7, 64, 65, 1000):
        terms = random.normal(size=(3, size))
        caps = np.sort(random.integers(0, size + 1, 5))

        expected = np.array([[row[:cap].sum() for cap in caps] for row in terms])
        assert summed_to(terms, caps) == pytest.approx(expected, abs=1e-12)


def test_tokens_of_the_own_cap_are_those_of_the_table() -> None:
    valuation = valuation_of(read_market(markets.lognormal() | {"cost_nanousd_per_token": 10}))
    caps = np.array([400, 122, 23, 0])
    table = tokens_at(valuation, np.array([0, 23, 122, 400]))

    assert own_tokens(valuation, caps).tolist() == pytest.approx(np.diag(table[:, ::-1]).tolist())


def test_an_answer_without_a_cap_leaves_out_what_is_longer_than_its_steps() -> None:
    endless = valuation_of(read_market(markets.market())).steps
    capped = valuation_of(read_market(markets.market(cap_tokens_max=300))).steps

    assert endless.left_out == pytest.approx(np.exp(-len(endless.tokens) / 400), rel=1e-12)
    assert endless.left_out > 0
    assert capped.left_out == 0


def test_tokens_are_served_to_who_still_waits_where_the_engine_stops_with_its_caller() -> None:
    valuation = valuation_of(read_market(markets.market(cap_tokens_max=300, cost_nanousd_per_token=10)))
    left = valuation.left(slice(None))
    generated = valuation.steps.size * valuation.steps.survival

    assert replace(valuation, stops=True).served(left) == pytest.approx(left * generated)
    assert (replace(valuation, stops=False).served(left) == generated).all()


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_rent_counts_for_as_much_as_the_aim_gives_to_the_house(weight: float) -> None:
    valuation = replace(valuation_of(read_market(markets.market())), surplus_weight=weight)

    assert valuation.rent_weight == pytest.approx((1 - weight) * np.cumsum(valuation.share))
    assert valuation.own_weight == pytest.approx(valuation.rent_weight + weight * valuation.share)
