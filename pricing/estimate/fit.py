"""From what customers did to the market they are: ``market.json`` with intervals, draws, and what is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pricing.estimate.drift import changed
from pricing.estimate.effects import kept, urgency_of
from pricing.estimate.given import Given
from pricing.estimate.influence import holders_of, of_holders, without_holders, without_machines
from pricing.estimate.laws.choices import Intervals
from pricing.estimate.laws.known import known
from pricing.estimate.laws.leaving import LeavingTests, examine, with_otherwise
from pricing.estimate.laws.length import LengthEstimate, Survival, estimate_length
from pricing.estimate.laws.other_leaving import as_own
from pricing.estimate.laws.own_lengths import own_laws
from pricing.estimate.laws.pace import Pace, estimate_pace
from pricing.estimate.laws.readings import are_chosen, as_timed
from pricing.estimate.laws.urgency import Mixing, mixing_of
from pricing.estimate.laws.value import ValueTold
from pricing.estimate.notes import (
    UNTOLD_SHARE,
    differing,
    notes_of,
    of_chains,
    of_conversations,
    of_few_left,
    of_lengths,
    of_otherwise,
    of_unread,
    of_untold,
    of_value,
)
from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.spread import Differing, by_urgency
from pricing.estimate.observations.statistics import Statistics, cleaned
from pricing.estimate.taken import taken_shares
from pricing.market.answers import Floats, Ints
from pricing.market.market import Market

LENGTHS_MOST = 400
"""Lengths in the market's table: so many places where a cap may be set."""

SHARE_LEAST = 1e-6
"""Types with a smaller share are left out of the market."""

CUSTOMERS_LEAST = 30

UNREAD_DRAWS = 8
"""In so many equally likely markets a menu is tried where leaving is not read."""

LENGTHS_ALPHA, RATIO_LEAST = 0.001, 1.25
"""Answers of the urgent differ where chance would seldom make them, and they end by more than this factor sooner or later."""

ANYWAY = "Say that lengths may differ to have one law of lengths all the same, and a menu of one tier, which they hurt least."

BAND = (2.5, 97.5)
"""Percentiles of the draws that an interval lies between."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The market as far as the records tell it.

    Attributes:
        market: a ``market.json``, its distribution of urgency the posterior mean; ``intervals`` stand beside it.
        draws: equally likely markets, for ``pricing.mechanism.uncertainty``.
        averaged: the same lengths and paces, each with the distribution of urgency averaged over all that is left
            uncertain once they are known. Profit is linear in the distribution, so over these a menu's mean profit is
            told with less chance in it than over ``draws``.
        length: answers, by tier and pooled.
        pace: speed and first-token delay.
        lengths_differ: whether customers' lengths differ by tier or by urgency, so that a menu has one tier.
        leaving: what was tested before leaving was read as urgency.
        mixing: the distribution of urgency.
        value: what choices tell of the value of an answer, None where nobody chose or leaving is not read.
        value_known_by: ``said`` or ``estimated``.
        sources: what urgency was learnt from: ``disconnects`` or ``disconnects_before_time_outs``,
            ``customer_choices``, ``conversation_choices``.
        unseen_worth_nanousd: the most that answers beyond the longest one seen can be worth, for each conversation.
        set_aside: records and customers left out, by reason.
        notes: what is not identified, and what was not used and why, in sentences.
        choices: what was taken of each menu, and what the estimate predicts: see ``taken``.
    """

    market: Json
    draws: tuple[Json, ...]
    averaged: tuple[Json, ...]
    length: LengthEstimate
    pace: Pace
    lengths_differ: bool
    leaving: LeavingTests
    mixing: Mixing
    value: ValueTold | None
    value_known_by: str
    sources: tuple[str, ...]
    unseen_worth_nanousd: float
    set_aside: Mapping[str, int]
    notes: tuple[str, ...]
    choices: tuple[Json, ...] = ()


def fit(statistics: Statistics, given: Given, *, draws: int, random: np.random.Generator) -> Estimate:
    """Return the market that customers' behaviour, seen through the caps that cut it, makes most plausible.

    Answers are pooled if tiers agree. Urgency is read from leaving, if the tests let it stand for impatience, and from
    the tiers taken, both at once. A customer counts as often as it comes. Errors are those of the posterior for urgency,
    and of a bootstrap over customers for lengths. A value that nobody says is drawn with lengths and pace.

    Args:
        statistics: sums over the records.
        given: what the operator says.
        draws: how many equally likely markets to draw; with fewer than twenty, choices are read under fewer lengths.
        random: where chance comes from.

    Raises:
        CannotEstimate: too little was seen, tiers differ, or choices rule out the value, or nothing tells it or urgency.
    """
    seen, given = _kept(statistics, given), given.in_currency_of(statistics)
    length, pace = _pooled(seen, given), estimate_pace(seen.pace)
    assert length.pooled is not None
    grid = _grid(length.pooled, [cap for offer in seen.offers for cap in offer.caps_tokens if cap is not None])
    leaving = with_otherwise(examine(seen.customers, seen.ages), seen.customers, length.pooled, pace)
    with_urgency = _alike(seen, leaving, given)
    seen, changed_week = _told_apart(seen, leaving)
    found = known(seen, length, pace, grid, leaving, given.value_nanousd, draws, random)
    read = mixing_of(found.read, draws=draws, random=random)
    mixing = read if leaving.otherwise is None else as_own(read, leaving.otherwise, found.drawn_of(seen), random)
    rates = _seeming(seen, leaving, mixing, with_urgency, length, pace, grid)
    served_to = _all_served_to(found.offers, seen)
    prior, by_reading = None if served_to is None else given.prior, mixing.by_reading

    def market_of(curve: Survival, speed: Pace, value_nanousd: float, urgency: tuple[Floats, Floats]) -> Json:
        return _market(grid, curve, speed, urgency, replace(given, value_nanousd=value_nanousd), prior, served_to)

    def drawn_market(place: int, share: Floats) -> Json:
        at = place % len(found.drawn)
        return market_of(*found.drawn[at], found.values_nanousd[at], (rates, share))

    known_market = partial(market_of, length.pooled, pace, found.worth_nanousd)
    market = known_market((rates, mixing.share))
    notes = notes_of(length, pace, leaving, seen.ages is not None, served_to, prior is not None)
    notes += () if leaving.refused is not None else of_few_left(seen.customers, length, pace)
    notes += _of_effects(seen, leaving, (market, known_market), read, random)
    notes += of_lengths(length, with_urgency, are_chosen(seen)) + _of_value(found.value, given, market)
    return Estimate(
        market=market | {"intervals": _intervals(grid, length.pooled, pace, mixing)},
        draws=tuple(drawn_market(place, share) for place, share in enumerate(mixing.draws)),
        averaged=tuple(drawn_market(at, by_reading[at % len(by_reading)]) for at in range(len(found.drawn))),
        length=length,
        pace=pace,
        lengths_differ=length.differs or with_urgency is not None,
        leaving=leaving,
        mixing=mixing,
        value=found.value,
        value_known_by="estimated" if given.value_nanousd is None else "said",
        sources=found.sources,
        unseen_worth_nanousd=_unseen_worth(length, pace, mixing, found.worth_nanousd),
        set_aside=dict(seen.set_aside) | dict(found.left_out),
        notes=notes + of_conversations(seen.going, sum(found.blurred), changed_week) + of_chains(mixing),
        choices=tuple(taken_shares(seen, found.offers, mixing)),
    )


def _of_effects(
    seen: Statistics,
    leaving: LeavingTests,
    market: tuple[Json, Callable[[tuple[Floats, Floats]], Json]],
    read: Mixing,
    random: np.random.Generator,
) -> tuple[str, ...]:
    """Return what departs from the market and was let pass, each with what it does to a menu, in sentences."""
    notes, (here, made_of) = [], market
    if leaving.refused is None and leaving.otherwise is None and seen.customers.waited_s.any():
        notes.append(of_untold(*_untold(seen, leaving, market, read)))
    if leaving.refused is not None:
        notes.append(
            of_unread([kept(made_of((read.urgency_per_s, share)), here) for share in read.draws[:UNREAD_DRAWS]])
        )
    if leaving.otherwise is not None:
        notes.append(of_otherwise(leaving, kept(here, made_of((read.urgency_per_s, read.share)))))
    parted = holders_of(seen.customers)
    if parted is not None:
        others = urgency_of(seen, parted[1], leaving, random)
        there = None if others is None else made_of(others)
        notes.append(
            of_holders(seen.customers, parted, None if there is None else (kept(there, here), kept(here, there)))
        )
    return tuple(notes)


def _of_value(value: ValueTold | None, given: Given, market: Json) -> tuple[str, ...]:
    """Return what choices tell of the value, and what a menu made for another one keeps, in sentences."""
    return of_value(value, given.value_nanousd, lambda worth: kept(market | {"value_nanousd": worth}, market))


def _untold(
    seen: Statistics,
    leaving: LeavingTests,
    market: tuple[Json, Callable[[tuple[Floats, Floats]], Json]],
    read: Mixing,
) -> tuple[float, float]:
    """Return at what rate some conversations may be left for another reason, and what a menu keeps that knows nothing of it."""
    (here, made_of), them = market, as_timed(seen.customers, leaving)
    per_s = UNTOLD_SHARE * float(them.conversations.sum()) / float(them.waited_s.sum())
    own = np.maximum(read.urgency_per_s - per_s, read.urgency_per_s / 10)
    return per_s, kept(made_of((own, read.share)), here)


def _kept(statistics: Statistics, given: Given) -> Statistics:
    """Return the statistics of the customers who count."""
    seen = without_machines(cleaned(statistics))
    seen = without_holders(seen) if given.without_holders else seen
    customers = len(seen.customers.conversations)
    if customers < CUSTOMERS_LEAST:
        few = "1 customer is" if customers == 1 else f"{customers} customers are"
        raise CannotEstimate(f"{few} too few; {CUSTOMERS_LEAST} are the least.{_aside(seen)}")
    if not seen.lengths:
        raise CannotEstimate(
            "No answer's length is known: no conversation of a known menu and tier has a token and an end other than a call of "
            f"tools.{_aside(seen)}"
        )
    return seen


def _aside(seen: Statistics) -> str:
    """Return what was set aside, in a sentence, empty if nothing was."""
    reasons = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in sorted(seen.set_aside.items()) if count]
    return f" Set aside: {', '.join(reasons)}." if reasons else ""


def _pooled(seen: Statistics, given: Given) -> LengthEstimate:
    length = estimate_length(seen.lengths, seen.own, may_differ=given.lengths_may_differ)
    if length.pooled is None:
        raise CannotEstimate(
            f"Answers of different tiers differ in length below the smaller cap (p = {length.p_value:.2g}), so callers "
            f"choose tiers by it, and no one market has them all. {ANYWAY}"
        )
    return length


def _alike(seen: Statistics, leaving: LeavingTests, given: Given) -> Differing | None:
    """Return by how much answers of the urgent differ from those of the patient, None if they do not or nothing tells.

    Raises:
        CannotEstimate: they differ, and the operator does not say that they may.
    """
    them = seen.customers
    if seen.own is None or them.even is None or leaving.spikes_s or leaving.refused is not None:
        return None
    even = them.even.disconnects.astype(np.float64), them.even.waited_s
    found = by_urgency(seen.own, them.disconnects.astype(np.float64), them.waited_s, even)
    if found is None or found.p_value >= LENGTHS_ALPHA or max(found.ratio, 1 / max(found.ratio, 1e-9)) < RATIO_LEAST:
        return None
    if not given.lengths_may_differ:
        raise CannotEstimate(f"{differing(found)} {ANYWAY}")
    return found


def _seeming(
    seen: Statistics,
    leaving: LeavingTests,
    mixing: Mixing,
    with_urgency: Differing | None,
    length: LengthEstimate,
    pace: Pace,
    grid: Ints,
) -> Floats:
    """Return the urgencies that the market is written with: where lengths go with urgency, those that whole answers are worth as much to."""
    if with_urgency is None or seen.own is None or length.pooled is None:
        return mixing.urgency_per_s
    laws = own_laws(seen.own, as_timed(seen.customers, leaving), mixing.urgency_per_s, mixing.share)
    return laws.seeming(mixing.urgency_per_s, length.pooled, pace, grid)


def _told_apart(seen: Statistics, leaving: LeavingTests) -> tuple[Statistics, int | None]:
    """Return the statistics with windows only where customers have changed, and the week from which on they are as now.

    Time-outs are no part of a customer's rate, so with them, or where leaving is not read, nobody is told apart by time.
    """
    windows = seen.customers.windows
    if windows is not None:
        windows = None if leaving.spikes_s or leaving.refused is not None else changed(windows)
    customers = replace(seen.customers, windows=windows)
    return replace(seen, customers=customers), None if windows is None else windows.starts[-1]


def _grid(curve: Survival, caps: list[int]) -> Ints:
    """Return the lengths of the market's table: even in probability, even in tokens, and the caps in force."""
    known = curve.tokens[curve.tokens >= 1]
    if len(known) <= LENGTHS_MOST:
        return known
    levels = np.linspace(0, curve.unfinished - 1, LENGTHS_MOST // 2)
    places = np.searchsorted(-curve.survival, -1 - levels)
    by_chance = curve.tokens[np.minimum(places, len(curve.tokens) - 1)]
    by_tokens = np.linspace(known[0], known[-1], LENGTHS_MOST // 2).astype(np.int64)
    within = [cap for cap in caps if known[0] <= cap <= known[-1]]
    joint = np.unique(np.concatenate((by_chance, by_tokens, np.array(within, dtype=np.int64))))
    return joint[joint >= 1]


def _all_served_to(offers: Sequence[Intervals], seen: Statistics) -> float | None:
    """Return the largest urgency that any offer has a tier for, None where refusals tell of those beyond it as well."""
    served_to = max((_served_to(offer) for offer in offers), default=np.inf)
    return None if _refusals_counted(seen) or not np.isfinite(served_to) else served_to


def _served_to(offer: Intervals) -> float:
    """Return the largest urgency for which an offer has a tier."""
    served = offer.high[1:][offer.low[1:] < offer.high[1:]]
    return float(served.max(initial=0.0))


def _refusals_counted(seen: Statistics) -> bool:
    by_customer = seen.customers.choices is not None and bool(np.any(seen.customers.choices == 0))
    return by_customer or any(offer.refused is not None for offer in seen.offers)


def _market(
    grid: Ints,
    curve: Survival,
    pace: Pace,
    urgency: tuple[Floats, Floats],
    given: Given,
    prior: Market | None,
    served_to: float | None,
) -> Json:
    """Return ``market.json``: the estimated types, and above what any menu served, the prior's."""
    rate, share = urgency
    if prior is not None and served_to is not None:
        believed, weight = np.array(prior.urgency_per_s), np.array(prior.share)
        beyond = believed > served_to
        rate = np.concatenate((rate, believed[beyond]))
        share = np.concatenate((share * (1 - weight[beyond].sum()), weight[beyond]))
    kept = share > SHARE_LEAST
    shares = share[kept] / share[kept].sum()
    survival = curve.at(grid)
    market: Json = {
        "types": [
            {"urgency_per_s": float(one), "share": float(part)} for one, part in zip(rate[kept], shares, strict=True)
        ],
        "value_nanousd": given.value_nanousd,
        "delay": {"family": "exponential"},
        "answer_length": {"family": "kaplan_meier", "tokens": grid.tolist(), "survival": survival.tolist()},
        "tokens_per_s": pace.tokens_per_s,
        "first_token_s": pace.first_token_s,
        "cost_nanousd_per_token": given.cost_nanousd_per_token,
        "input_cost_nanousd_per_token": given.input_cost_nanousd_per_token,
        "cost_on_disconnect": given.cost_on_disconnect,
        "currency": given.currency,
    }
    if survival[-1] > 0 or given.cost_nanousd_per_token > 0:
        market["cap_tokens_max"] = int(grid[-1])
    return market


def _intervals(grid: Ints, curve: Survival, pace: Pace, mixing: Mixing) -> Json:
    """Return the intervals that stand beside the market: 95 %, pointwise."""
    low, high = curve.band_at(grid)
    below, above = np.percentile(np.cumsum(mixing.draws, axis=1), BAND, axis=0)
    return {
        "level": 0.95,
        "answer_length": {"tokens": grid.tolist(), "survival_low": low.tolist(), "survival_high": high.tolist()},
        "tokens_per_s": _normal(pace.tokens_per_s, pace.tokens_per_s_error),
        "first_token_s": _normal(pace.first_token_s, pace.first_token_s_error),
        "urgency": {
            "urgency_per_s": mixing.urgency_per_s.tolist(),
            "cumulative_share": np.cumsum(mixing.share).tolist(),
            "cumulative_share_low": below.tolist(),
            "cumulative_share_high": above.tolist(),
        },
    }


def _normal(estimate: float, error: float) -> list[float]:
    return [max(0.0, estimate - 1.96 * error), estimate + 1.96 * error]


def _unseen_worth(length: LengthEstimate, pace: Pace, mixing: Mixing, value_nanousd: float) -> float:
    """Return what answers beyond the last length can be worth at most: as if all ended with the next token."""
    assert length.pooled is not None
    moment = pace.first_token_s + length.identified_to_tokens / pace.tokens_per_s
    kept = float(np.dot(mixing.share, np.exp(-mixing.urgency_per_s * moment)))
    return value_nanousd * length.pooled.unfinished * kept
