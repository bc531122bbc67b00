"""The certificate's upper bound on any mechanism's profit is never understated, compared with fifty digits."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from pricing.bounds.bound import Multipliers, bound_error, lagrangian, upper_bound
from pricing.market.market import Market, read_market
from pricing.market.worth import Valuation, valuation_of, worth_error
from tests.pricing import markets
from tests.pricing.market.test_worth import exactly, left


def multipliers(random: np.random.Generator, share: np.ndarray) -> Multipliers:
    """Return weights on some pairs of types, where no type passes on more than it has."""
    types = len(share)
    patient, urgent, flow = [], [], []
    for low in range(types - 1):
        for high in range(low + 1, types):
            if random.random() < 0.7:
                patient.append(low)
                urgent.append(high)
                flow.append(float(share[low] * random.uniform(0, 1) / types))
    return Multipliers(np.array(patient, dtype=np.int64), np.array(urgent, dtype=np.int64), np.array(flow))


def tokens_exactly(market: Market, row: int, valuation: Valuation) -> list[Decimal]:
    """Return the cost of serving each cap to one type, to fifty digits."""
    costs, total, longer, before = [], Decimal(0), Decimal(1), 0
    length = market.answer_length
    for n, chance in zip(length.tokens, length.probability, strict=True):  # type: ignore[union-attr]
        time_s = Decimal(market.first_token_s) + n / Decimal(market.tokens_per_s)
        part = left(market.delay, market.urgency_per_s[row], time_s) if valuation.stops else Decimal(1)
        total += (n - before) * longer * part * Decimal(valuation.cost_per_token)
        longer, before = longer - Decimal(chance), n
        costs.append(total)
    return costs


def lagrangian_exactly(market: Market, weights: Multipliers) -> Decimal:
    """Return sum_k max_N [(q_k + what k receives) u_k(N) - sum_l lambda_lk u_l(N) - q_k C_k(N)], to fifty digits."""
    valuation = valuation_of(market)
    worth = [exactly(market, row) for row in range(len(market.share))]
    total = Decimal(0)
    for row, share in enumerate(valuation.share.tolist()):
        received = [(patient, Decimal(flow)) for patient, urgent, flow in weights.entries() if urgent == row]
        out = Decimal(share) + sum((flow for _, flow in received), Decimal(0))
        cost = tokens_exactly(market, row, valuation)
        total += max(
            Decimal(0),
            *(
                out * worth[row][cap]
                - sum((flow * worth[patient][cap] for patient, flow in received), Decimal(0))
                - Decimal(share) * cost[cap]
                for cap in range(len(worth[row]))
            ),
        )
    return total


@pytest.mark.parametrize("cost", [False, True])
def test_it_is_above_what_fifty_digits_say_and_hardly(cost: bool) -> None:
    """The plain computation is below the exact value in some markets; the bound on its rounding corrects that."""
    random = np.random.default_rng(11)
    below = 0
    for _ in range(30):
        market = read_market(markets.random_market(random, types_max=4, steps_max=12, cost=cost))
        valuation = valuation_of(market)
        weights = multipliers(random, valuation.share)
        exact = lagrangian_exactly(market, weights)
        error = bound_error(valuation, weights)

        assert weights.wrong(valuation.share) is None
        assert abs(Decimal(lagrangian(valuation, weights)) - exact) <= Decimal(error)
        assert exact <= Decimal(upper_bound(valuation, weights)) <= exact + 2 * Decimal(error)
        assert error < 1e-12
        below += Decimal(lagrangian(valuation, weights)) < exact
    assert below > 0


def test_more_weight_is_more_rounding() -> None:
    valuation = valuation_of(read_market(markets.market()))
    none = Multipliers(np.array([], dtype=np.int64), np.array([], dtype=np.int64), np.array([]))
    all_of_it = Multipliers(np.arange(3), np.arange(1, 4), np.cumsum(valuation.share)[:3])

    assert bound_error(valuation, all_of_it) > 2 * bound_error(valuation, none)


def test_more_steps_and_a_cost_are_more_rounding() -> None:
    """Each step is one more sum, and a cost is summed beside the worth."""
    few, many, dear = (
        valuation_of(read_market(markets.market(**changes)))
        for changes in (
            {"cap_tokens_max": 40, "answer_length": {"family": "table", "tokens": [40], "probability": [1.0]}},
            {"answer_length": {"family": "table", "tokens": list(range(1, 4_001)), "probability": [1 / 4_000] * 4_000}},
            {"cost_nanousd_per_token": 10_000, "cap_tokens_max": 4_000, "cost_on_disconnect": "runs"},
        )
    )
    none = Multipliers(np.array([], dtype=np.int64), np.array([], dtype=np.int64), np.array([]))

    assert bound_error(many, none) > 50 * bound_error(few, none)
    assert bound_error(dear, none) > 1.2 * bound_error(replace(dear, cost_per_token=0.0), none)


def test_two_weights_on_one_pair_of_types_are_their_sum() -> None:
    """A file may state a pair twice."""
    valuation = valuation_of(read_market(markets.market()))
    once = Multipliers(np.array([0]), np.array([1]), np.array([0.15]))
    twice = Multipliers(np.array([0, 0]), np.array([1, 1]), np.array([0.05, 0.1]))

    assert lagrangian(valuation, twice) == pytest.approx(lagrangian(valuation, once), rel=1e-12)


def test_what_lies_beyond_the_last_step_is_in_it() -> None:
    """For answers of any length, the bound and a worth's error include what lies beyond the last step."""
    valuation = valuation_of(read_market(markets.market()))
    weights = Multipliers(np.arange(3), np.arange(1, 4), np.cumsum(valuation.share)[:3] / 2)
    short = replace(
        valuation.steps,
        **{
            name: getattr(valuation.steps, name)[:400]
            for name in ("tokens", "size", "time_s", "wait_s", "probability", "survival")
        },
        left_out=float(np.exp(-1)),
    )
    cut = replace(valuation, steps=short, kept=None)

    assert lagrangian(cut, weights) < lagrangian(valuation, weights) < upper_bound(cut, weights)
    assert worth_error(cut, 1) >= valuation.worth_most * np.exp(-1)


@pytest.mark.parametrize(
    ("patient", "urgent", "flow", "wrong"),
    [
        ([0], [1], [0.5], None),
        ([0, 1], [1, 2], [0.5, 0.75], None),
        ([0], [1], [0.51], "pass on more"),
        ([0, 1], [1, 2], [0.5, np.nextafter(0.75, 1)], "pass on more"),
        ([0], [1], [np.nextafter(0.5, 1)], "pass on more"),
        ([1], [1], [0.1], "more patient"),
        ([1], [0], [0.1], "more patient"),
        ([0], [3], [0.1], "more patient"),
        ([-1], [1], [0.1], "more patient"),
        ([0], [1], [-0.1], "negative"),
        ([0], [1], [np.inf], "finite"),
        ([0], [1, 2], [0.1], "one length"),
    ],
)
def test_what_are_no_multipliers_is_told(
    patient: list[int], urgent: list[int], flow: list[float], wrong: str | None
) -> None:
    """A type passes on at most its share and what it receives, to the last digit."""
    found = Multipliers(np.array(patient), np.array(urgent), np.array(flow)).wrong(np.array([0.5, 0.25, 0.25]))

    assert (found is None) if wrong is None else wrong in (found or "")
