"""Callers who send a cut answer back and buy the next piece."""

from __future__ import annotations

import math
import tracemalloc
from functools import cache

import numpy as np
import pytest

from pricing.certificate import verify
from pricing.market.fields import NotAMarket
from pricing.market.market import read_market
from pricing.market.worth import Valuation, own_tokens, valuation_of, worth_at, worth_error
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.resumption import Resumption, resumption
from pricing.mechanism.rounding import Published, publish
from pricing.menus.menus import optimal_menu
from tests.pricing import markets, oracles


def figures(valuation: Valuation, published: Published) -> Resumption:
    margin = published.paid() - own_tokens(valuation, published.by_type()) * valuation.cost_per_token
    return resumption(valuation, published, margin)


def test_the_lognormal_menu_without_its_smallest_tier() -> None:
    """It earns a little less once, and more than twice as much from resuming callers."""
    valuation = valuation_of(read_market(markets.lognormal()))
    caps = full_menu(valuation).caps.copy()
    caps[-1] = 0
    published = publish(valuation, caps)

    assert np.dot(valuation.share, published.paid()) == pytest.approx(0.4187e9, abs=5e4)
    assert figures(valuation, published).profit == pytest.approx(0.422e9, abs=1e5)


def test_by_hand() -> None:
    """One type without urgency, answers of 10 or 20 tokens, one tier of 10 tokens at 400: two purchases pay."""
    description = read_market(
        markets.market(
            types=[{"urgency_per_s": 0, "share": 1}],
            value_nanousd=1000,
            answer_length={"family": "table", "tokens": [10, 20], "probability": [0.5, 0.5]},
            first_token_s=0,
        )
    )
    valuation = valuation_of(description)
    published = Published(
        caps=np.array([1]),
        prices=np.array([400]),
        takes=np.array([0]),
        worth=np.array([[500.0]]),
        error=1e-9,
        merged=0,
        unrounded=400.0,
        surplus=500.0,
    )

    # One purchase gains 500 - 400. A second, by the half whose answer has not ended, gains another 0.5 (1000 - 400).
    found = figures(valuation, published)
    assert (found.gain, found.profit) == (pytest.approx(300), pytest.approx(600))


def test_nobody_resumes_when_answers_end_at_a_constant_rate_and_nobody_is_urgent() -> None:
    """With one uncapped tier nothing is left to buy."""
    description = read_market(markets.market(types=[{"urgency_per_s": 0.1, "share": 1}]))
    valuation = valuation_of(description)
    published = publish(valuation, full_menu(valuation).caps)

    found = figures(valuation, published)
    assert (found.gain, found.profit) == (0.0, pytest.approx(float(published.prices[0])))


def test_a_menu_of_very_many_tiers_is_looked_at_in_part() -> None:
    """Of 600 tiers callers consider 512, so they gain at most what all tiers would allow."""
    table = {"family": "table", "tokens": list(range(1, 701)), "probability": [1 / 700] * 700}
    valuation = valuation_of(read_market(markets.market(answer_length=table, value_nanousd=1e9, tokens_per_s=5)))
    caps = np.arange(1, 601)
    worth = worth_at(valuation, caps)
    prices = np.floor(0.9 * worth[1]).astype(np.int64)
    takes = (worth - prices).argmax(axis=1)
    many = Published(caps, prices, takes, worth, worth_error(valuation, 600), 0, 0.0, 0.0)
    few = Published(caps[::2], prices[::2], takes // 2, worth[:, ::2], many.error, 0, 0.0, 0.0)

    assert (figures(valuation, many).tiers, figures(valuation, few).tiers) == (512, 300)
    assert 0 < figures(valuation, few).gain <= figures(valuation, many).gain * 1.01


def by_recursion(valuation: Valuation, published: Published, row: int) -> tuple[float, float]:
    """Return a type's expected gain and the house's income, by trying every sequence of purchases."""
    steps = valuation.steps
    worth, cost = oracles.tables(valuation)
    end = int(steps.tokens[-1])
    prices = published.prices.tolist()
    sizes = [end if steps.cap_tokens(int(cap)) is None else int(steps.tokens[cap - 1]) for cap in published.caps]

    def complete(tokens: int) -> int:
        return sum(1 for step in steps.tokens if step <= tokens)

    @cache
    def on(tokens: int) -> tuple[float, float]:
        """Return (gain, income) from here on, both weighted by the chance of being here."""
        here = complete(tokens)
        longer = 1.0 if here == 0 else steps.survival[here - 1] - steps.probability[here - 1]
        moment = steps.first_token_s + tokens / steps.tokens_per_s
        patience = 1.0 if tokens == 0 else oracles.left(valuation.delay, valuation.urgency_per_s[row], moment)
        best = (0.0, 0.0)
        if tokens >= end:
            return best
        for price, size in sorted(zip(prices, sizes, strict=True), reverse=True):
            there = complete(tokens + size)
            gain, income = on(tokens + size)
            gain += worth[row, there] - worth[row, here] - price * longer * patience
            spent = (cost[row, there] - cost[row, here]) * (1.0 if valuation.stops else patience)
            if gain > best[0] + 1e-12:
                best = (gain, income + price * longer * patience - spent)
        return best

    return on(0)


@pytest.mark.parametrize("delay", ["exponential", "hyperbolic", "linear", "sunk_linear"])
def test_backward_induction_equals_trying_every_sequence(delay: str) -> None:
    """Few types, few caps, grids of equal and of unequal steps, any prices: equal to twelve digits."""
    random = np.random.default_rng(17)
    resumed = 0
    for trial in range(25):
        description = markets.random_market(random, types_max=5, steps_max=12, cost=bool(trial % 2))
        if trial % 3:
            size = len(description["answer_length"]["tokens"])
            description["answer_length"]["tokens"] = list(range(7, 7 * size + 1, 7))
        valuation = valuation_of(read_market(description | {"delay": {"family": delay}}))
        published = at_any_prices(random, valuation)
        found = figures(valuation, published)
        expected = [by_recursion(valuation, published, row) for row in range(len(valuation.share))]
        own = published.own(published.worth - published.prices)
        margin = published.paid() - own_tokens(valuation, published.by_type()) * valuation.cost_per_token
        gains = np.array([gain for gain, _ in expected]) - own
        incomes = np.where(gains > 1e-9, [income for _, income in expected], margin)

        assert found.gains.tolist() == pytest.approx(np.where(gains > 1e-9, gains, 0.0).tolist(), abs=1e-12)
        assert found.profit == pytest.approx(float(np.dot(valuation.share, incomes)), abs=1e-12)
        resumed += int((gains > 1e-9).sum())
    assert resumed > 10


def at_any_prices(random: np.random.Generator, valuation: Valuation) -> Published:
    """Return random caps of the grid at rising random prices, each type taking its best tier or none."""
    steps = len(valuation.steps.tokens)
    caps = np.unique(random.integers(1, steps + 1, 3))
    prices = np.sort(random.uniform(0, 0.4, len(caps)))
    worth = worth_at(valuation, caps)
    takes = np.where((worth - prices).max(axis=1) > 0, (worth - prices).argmax(axis=1), -1)
    return Published(caps, prices, takes, worth, worth_error(valuation, 3), 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("longest", "objective"), [(10**7, "profit"), (10**7, "profit_if_resumed"), (9 * 10**9, "profit")]
)
def test_lengths_of_millions_with_caps_that_share_no_divisor_fit_into_memory(longest: int, objective: str) -> None:
    """Callers can be at only some thousands of places, however long answers are."""
    random = np.random.default_rng(0)
    tokens = np.unique(np.append(random.integers(1, longest, 400), longest)).tolist()
    market = markets.market(
        types=markets.types(np.array(markets.LOGNORMAL_URGENCY) / 1000, markets.LOGNORMAL_SHARE),
        answer_length={"family": "table", "tokens": tokens, "probability": [1 / len(tokens)] * len(tokens)},
        cap_tokens_max=longest,
    )

    tracemalloc.start()
    menu = optimal_menu(
        read_market(market),
        tiers=3,
        bill="conversation",
        names=None,
        created="2025-01-01T00:00:00Z",
        objective=objective,
    )
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    caps = [tier["conversation_tokens_max"] for tier in menu["tiers"]]
    assert math.gcd(*caps[:-1], longest) < 10
    assert most < 64 << 20
    assert verify(menu).ok


def test_answers_of_more_tokens_than_can_be_priced_are_refused_in_a_sentence() -> None:
    market = read_market(
        markets.market(answer_length={"family": "exponential", "mean_tokens": 2e9}, cap_tokens_max=9 * 10**9)
    )

    with pytest.raises(NotAMarket, match="give answer_length as a table of coarser steps"):
        optimal_menu(market, tiers=3, bill="conversation", names=None, created="2025-01-01T00:00:00Z")
