"""From records to a market: the pricing accepts it, it beats naive estimates, and it says what it lacks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from pricing.estimate.fit import fit
from pricing.estimate.given import Given
from pricing.estimate.laws.choices import intervals_of, taken_by
from pricing.estimate.laws.grouped_customers import joined, rows_of_customers
from pricing.estimate.laws.urgency import estimate_mixing
from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.statistics import Customers, Offer, Statistics
from pricing.market.answers import Floats
from pricing.market.market import read_market
from pricing.market.worth import valuation_of
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.rounding import publish
from pricing.mechanism.uncertainty import best_on_average, profit_of, understated
from tests.pricing.estimate.naive import by_heads, cut_as_short, maximum_likelihood
from tests.pricing.estimate.simulated import BRIEF, Truth, answers_of, choosing, watch

THREE = Truth((0.01, 0.05, 0.15), (0.3, 0.4, 0.3))
GIVEN = Given(value_nanousd=1e9, cost_nanousd_per_token=0.0)
briefly = partial(fit, sweeps=BRIEF)
OFFER = Offer((140, 1040, None), (60_000_000, 545_000_000, 625_000_000))


def seen(
    truth: Truth = THREE, *, customers: int = 300, conversations: int = 20, seed: int = 1, **more: Any
) -> Statistics:
    return watch(truth, customers=customers, conversations=conversations, random=np.random.default_rng(seed), **more)


def earned(market: dict[str, Any], truth: Truth, cap_tokens: int = 4000) -> float:
    """Return the profit of one market's full menu in the true market, as a share of the maximum there."""
    there = valuation_of(read_market(truth.to_json(cap_tokens=cap_tokens, step=1)))

    def profit(market: dict[str, Any]) -> float:
        valuation = valuation_of(read_market(market))
        published = publish(valuation, full_menu(valuation).caps)
        caps = [valuation.steps.cap_tokens(cap) for cap in published.caps.tolist()]
        tokens = np.array([10**9 if cap is None else cap for cap in caps], dtype=np.int64)
        return profit_of(there, tokens, published.prices.astype(np.float64))

    return profit(market) / profit(truth.to_json(cap_tokens=cap_tokens, step=1))


def test_a_fit_is_a_market_that_the_pricing_reads_with_its_intervals_and_its_draws() -> None:
    estimate = briefly(seen(), GIVEN, draws=8, random=np.random.default_rng(2))

    market = read_market(estimate.market)
    choice = best_on_average([read_market(draw) for draw in estimate.draws[:3]], discounts=(0.0, 0.05))
    beside = estimate.market["intervals"]
    assert market.cap_tokens_max == estimate.market["answer_length"]["tokens"][-1]
    assert sum(market.share) == pytest.approx(1)
    assert len(estimate.draws) == 8
    assert 0 < choice.low <= choice.mean <= choice.certain
    assert beside["tokens_per_s"][0] <= estimate.market["tokens_per_s"] <= beside["tokens_per_s"][1]
    assert np.all(np.array(beside["urgency"]["cumulative_share_low"]) <= beside["urgency"]["cumulative_share_high"])
    assert estimate.sources == ("disconnects",)


def test_what_was_learnt_earns_nearly_all_that_can_be_earned() -> None:
    estimate = briefly(seen(customers=3000, conversations=50), GIVEN, draws=4, random=np.random.default_rng(3))

    assert earned(estimate.market, THREE) > 0.95


def test_the_maximum_of_the_likelihood_plugged_in_earns_less() -> None:
    """Over three small markets: the converged mixture's atoms are slightly off, and price out their types."""
    averaged, plugged = [], []
    for seed in range(3):
        statistics = seen(seed=seed)
        estimate = briefly(statistics, GIVEN, draws=10, random=np.random.default_rng(seed))
        rows, _ = rows_of_customers(statistics.customers, [], leaving=True)
        grid = estimate.mixing.urgency_per_s[::4]
        possible = [read_market(one) for one in estimate.averaged]
        averaged.append(earned(understated(read_market(estimate.market), possible, tiers=(None,)).market, THREE))
        plugged.append(earned(estimate.market | types(grid, maximum_likelihood(rows, grid, 5000)), THREE))

    assert np.mean(averaged) > np.mean(plugged) + 0.02, (averaged, plugged)
    assert min(averaged) > 0.85 > min(plugged), (averaged, plugged)


def test_cut_answers_taken_for_short_ones_earn_less() -> None:
    """Over two markets whose caps cut half of the answers: lengths look shorter, so prices are too high."""
    right, naive = [], []
    for seed in range(2):
        statistics = seen(cap_tokens=400, seed=seed)
        short = replace(statistics, lengths=tuple(cut_as_short(one) for one in statistics.lengths))
        right.append(earned(briefly(statistics, GIVEN, draws=4, random=np.random.default_rng(seed)).market, THREE, 400))
        naive.append(earned(briefly(short, GIVEN, draws=4, random=np.random.default_rng(seed)).market, THREE, 400))

    assert np.mean(right) > np.mean(naive) + 0.1, (right, naive)
    assert min(right) > max(naive), (right, naive)


def test_customers_weighted_equally_earn_less() -> None:
    """Over two markets whose patient customers talk ten times as much: the menu is made for the others."""
    truth = Truth((0.01, 0.05, 0.15), (0.6, 0.25, 0.15), volume=(10, 3, 1))
    right, naive = [], []
    for seed in range(2):
        statistics = seen(truth, customers=1000, conversations=20, seed=seed)
        estimate = briefly(statistics, GIVEN, draws=4, random=np.random.default_rng(seed))
        heads = by_heads(rows_of_customers(statistics.customers, [], leaving=True)[0])
        equal = estimate_mixing(heads, joined([]), draws=4, random=np.random.default_rng(seed), sweeps=BRIEF)
        right.append(earned(estimate.market, truth))
        naive.append(earned(estimate.market | types(equal.urgency_per_s, equal.share), truth))

    assert np.mean(right) > np.mean(naive) + 0.02, (right, naive)


def types(urgency_per_s: Floats, share: Floats) -> dict[str, Any]:
    """Return the types of a market."""
    kept = share > 1e-6
    shares = share[kept] / share[kept].sum()
    return {
        "types": [
            {"urgency_per_s": float(r), "share": float(q)} for r, q in zip(urgency_per_s[kept], shares, strict=True)
        ]
    }


def test_time_outs_are_not_read_as_urgency() -> None:
    """Read as urgency, time-outs would make all customers seem less patient; only the waits before them are read."""
    truth = Truth((0.002, 0.01, 0.05), (0.4, 0.3, 0.3), median_tokens=1500)
    statistics = seen(truth, customers=1000, timeout_s=30, cap_tokens=9000)

    estimate = briefly(statistics, GIVEN, draws=4, random=np.random.default_rng(4))
    untested = replace(statistics.customers, early=None, even=None)
    fooled = briefly(
        replace(statistics, ages=None, customers=untested), GIVEN, draws=4, random=np.random.default_rng(4)
    )

    right = float(np.dot(truth.urgency_per_s, truth.share))
    read, misread = (float(np.dot(one.mixing.share, one.mixing.urgency_per_s)) for one in (estimate, fooled))
    assert estimate.sources == ("disconnects_before_time_outs",)
    assert any("Disconnects pile up after 30 s" in note for note in estimate.notes)
    assert read == pytest.approx(right, rel=0.1)
    assert misread > 1.3 * right


def test_without_waits_before_the_time_outs_leaving_says_nothing() -> None:
    """The fit is then refused with the reason; with tier choices it goes on without disconnects."""
    truth = Truth((0.002, 0.01, 0.05), (0.4, 0.3, 0.3), median_tokens=1500)
    statistics = seen(truth, timeout_s=30, cap_tokens=9000)
    statistics = replace(statistics, customers=replace(statistics.customers, untimed=None))
    offer = Offer((300, 700, 1200), (12_000_000, 122_000_000, 319_000_000))
    random = np.random.default_rng(4)
    taken = np.bincount(choosing(truth, offer, 3000, 1, random).ravel(), minlength=4)
    offered = replace(offer, taken=tuple(taken[1:].tolist()), refused=int(taken[0]))

    with pytest.raises(CannotEstimate, match="after 30 s: clients give up"):
        briefly(statistics, GIVEN, draws=4, random=random)
    estimate = briefly(replace(statistics, offers=(offered,)), GIVEN, draws=4, random=random)

    assert estimate.sources == ("conversation_choices",)
    assert any("not read as urgency" in note for note in estimate.notes)


def test_a_tier_chosen_once_for_all_conversations_tells_where_the_customer_lies() -> None:
    """Disconnects are unused because of time-outs; the shares between thresholds are those of the choices."""
    truth = Truth((0.002, 0.01, 0.05), (0.4, 0.3, 0.3), median_tokens=1500)
    statistics = seen(truth, timeout_s=30, cap_tokens=9000)
    statistics = replace(statistics, customers=replace(statistics.customers, untimed=None))
    offer = Offer((300, 700, 1200), (12_000_000, 122_000_000, 319_000_000))
    choices = choosing(truth, offer, 300, 1, np.random.default_rng(11))
    chosen = replace(statistics, customers=replace(statistics.customers, choices=choices), offers=(offer,))

    estimate = briefly(chosen, GIVEN, draws=10, random=np.random.default_rng(12))

    rate, share = estimate.mixing.urgency_per_s, estimate.mixing.share
    assert estimate.sources == ("customer_choices",)
    edge = float(intervals_of(offer, answers_of(truth)).high[3])
    assert share[rate <= edge].sum() == pytest.approx(np.mean(choices == 3), abs=0.1)


def test_choices_between_tiers_that_nothing_tells_apart_are_not_used() -> None:
    """All answers were cut at 1,500 tokens: the worth of no cap is unknown, so a choice of it tells nothing."""
    truth = Truth((0.002, 0.01, 0.05), (0.4, 0.3, 0.3), median_tokens=1500)
    offer = Offer((500, None), (70_000_000, 600_000_000), taken=(50, 50), refused=0)
    statistics = replace(seen(truth, cap_tokens=1500), offers=(offer,))

    estimate = briefly(statistics, GIVEN, draws=4, random=np.random.default_rng(13))

    assert estimate.sources == ("disconnects",)
    assert any("answers beyond all lengths seen" in note for note in estimate.notes)


def test_a_large_tier_that_nobody_sees_to_its_end_leaves_the_choices_between_smaller_ones() -> None:
    """All answers were cut at 1,500 tokens: only the threshold of the smallest of three tiers is known."""
    answers, random = answers_of(THREE), np.random.default_rng(1)
    cut = replace(answers, tokens=answers.tokens[:75], probability=answers.probability[:75], time_s=answers.time_s[:75])
    taken = np.bincount(choosing(THREE, OFFER, 3000, 1, random).ravel(), minlength=4).tolist()
    statistics = replace(seen(cap_tokens=1500), offers=(replace(OFFER, taken=tuple(taken[1:]), refused=taken[0]),))
    known, unknown = intervals_of(OFFER, answers), taken_by(OFFER, cut)

    estimate = briefly(statistics, GIVEN, draws=6, random=np.random.default_rng(13))

    assert unknown.low[1] == pytest.approx(known.low[1], rel=0.1)
    assert unknown.low[2] == unknown.low[3] == 0
    assert unknown.high[2] == unknown.high[3] == pytest.approx(unknown.low[1], rel=0.1)
    assert estimate.sources == ("disconnects", "conversation_choices")
    rate, share = estimate.mixing.urgency_per_s, estimate.mixing.share
    assert share[rate > known.low[1]].sum() == pytest.approx(taken[1] / 3000, abs=0.03)


def test_types_that_the_menu_excluded_are_kept_from_the_prior_or_said_to_be_missing() -> None:
    statistics = seen()
    taken = replace(OFFER, taken=(30, 40, 30))
    prior = read_market(Truth((0.05, 3.0), (0.75, 0.25)).to_json(step=20))

    without = briefly(replace(statistics, offers=(taken,)), GIVEN, draws=2, random=np.random.default_rng(5))
    believed = briefly(
        replace(statistics, offers=(taken,)), replace(GIVEN, prior=prior), draws=2, random=np.random.default_rng(5)
    )
    counted = briefly(
        replace(statistics, offers=(replace(taken, refused=0),)), GIVEN, draws=2, random=np.random.default_rng(5)
    )

    last = believed.market["types"][-1]
    assert any("are missing from the market" in note for note in without.notes)
    assert any("keep the share that was assumed" in note for note in believed.notes)
    assert (last["urgency_per_s"], last["share"]) == (3.0, pytest.approx(0.25, abs=1e-4))
    assert not any("Refusals" in note for note in counted.notes)


def test_bad_data_are_set_aside_with_a_count() -> None:
    """The bad data: one customer with a million disconnects, one with negative seconds, one that left too often."""
    statistics = seen()
    them = statistics.customers
    assert them.early is not None
    assert them.even is not None

    def grown(values: Any, *more: float) -> Any:
        return np.append(values, np.array(more, dtype=values.dtype))

    spoilt = Customers(
        grown(them.disconnects, 10**6, 1, 9),
        grown(them.waited_s, 10**6, -5, 10),
        grown(them.conversations, 10**6, 5, 3),
        type(them.early)(grown(them.early.disconnects, 0, 0, 0), grown(them.early.waited_s, 0, 0, 0)),
        type(them.even)(grown(them.even.disconnects, 0, 0, 0), grown(them.even.waited_s, 0, 0, 0)),
    )
    faulty = replace(
        statistics, customers=spoilt, pace=replace(statistics.pace, set_aside=4), set_aside={"deleted_tier": 2}
    )

    estimate = briefly(faulty, GIVEN, draws=4, random=np.random.default_rng(6))

    clean = briefly(statistics, GIVEN, draws=4, random=np.random.default_rng(6))
    assert estimate.set_aside == {
        "deleted_tier": 2,
        "customers_impossible": 2,
        "customers_outsized": 1,
        "calls_of_impossible_times": 4,
    }
    assert estimate.market == clean.market


def test_tiers_that_were_not_offered_or_that_nobody_should_want_are_counted() -> None:
    """Five customers have a fourth tier of three; seven chose a tier that its neighbour beats for everybody."""
    statistics = seen()
    choices = np.full((300, 1), -1)
    choices[:5] = 4
    dear = Offer((140, 1040, 4000), (60_000_000, 900_000_000, 900_000_001), taken=(50, 7, 30), refused=1)
    chosen = replace(statistics, customers=replace(statistics.customers, choices=choices), offers=(dear,))

    estimate = briefly(chosen, GIVEN, draws=4, random=np.random.default_rng(10))

    assert estimate.set_aside == {"customers_impossible": 5, "choices_unexplained": 7}


def test_the_tail_above_the_largest_cap_is_said_to_be_unknown_and_bounded() -> None:
    estimate = briefly(seen(cap_tokens=600), GIVEN, draws=4, random=np.random.default_rng(7))

    unfinished = float(estimate.market["answer_length"]["survival"][-1])
    assert estimate.market["cap_tokens_max"] == 600
    assert unfinished == pytest.approx(0.305, abs=0.04)
    assert 0 < estimate.unseen_worth_nanousd < unfinished * 1e9
    assert any("Not identified above the largest cap" in note for note in estimate.notes)


def test_a_few_customers_are_refused() -> None:
    with pytest.raises(CannotEstimate, match="12 customers are too few"):
        briefly(seen(customers=12), GIVEN, draws=4, random=np.random.default_rng(8))


def test_an_empty_period_is_refused() -> None:
    statistics = seen()
    nobody = statistics.customers.only(np.array([], dtype=np.int64))

    with pytest.raises(CannotEstimate, match="0 customers are too few"):
        briefly(replace(statistics, customers=nobody), GIVEN, draws=4, random=np.random.default_rng(9))
