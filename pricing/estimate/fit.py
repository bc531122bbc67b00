"""Estimate the market behind the usage records: ``market.json`` with intervals, draws and what is not identified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pricing.estimate.drift import changed
from pricing.estimate.effects import kept, kept_at, kept_in, urgency_of
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
from pricing.estimate.laws.sampling import FULL, Sweeps
from pricing.estimate.laws.urgency import Mixing, mixing_of
from pricing.estimate.laws.value import ValueEstimate
from pricing.estimate.notes import (
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
from pricing.estimate.untold import untold
from pricing.market.answers import Floats, Ints
from pricing.market.market import Market

LENGTHS_MOST = 400
"""The most lengths in the market's table besides the caps in force; a cap may be set at each length."""

SHARE_LEAST = 1e-6
"""Types with a smaller share are left out of the market."""

CUSTOMERS_LEAST = 30

UNREAD_DRAWS = 8
"""The number of equally likely markets in which a menu is tried where leaving is not read."""

LENGTHS_ALPHA, RATIO_LEAST = 0.001, 1.25
"""Lengths depend on urgency where the p-value is below the first number and the rates of ending differ by the second."""

ANYWAY = "State that lengths may differ to estimate one law of lengths, and a menu of one tier, which differences hurt least."

BAND = (2.5, 97.5)
"""The percentiles of the draws that are the ends of an interval."""

Json = dict[str, Any]
Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Estimate:
    """The market as far as the records identify it.

    Attributes:
        market: a ``market.json`` with its ``intervals``; its distribution of urgency is the posterior mean.
        draws: equally likely markets, for ``pricing.mechanism.uncertainty``.
        averaged: the same lengths and paces, each with the mean distribution of urgency under them. Profit is linear in
            the distribution, so a menu's mean profit has less sampling error over these than over ``draws``.
        length: lengths of answers, by tier and pooled.
        pace: speed and first-token delay.
        lengths_differ: whether customers' lengths differ by tier or by urgency, so that a menu has one tier.
        leaving: the tests made before leaving was read as urgency.
        mixing: the distribution of urgency.
        value: the value of an answer by customers' choices, None where nobody chose or leaving is not read.
        value_known_by: ``said`` or ``estimated``.
        sources: the data behind urgency: ``disconnects`` or ``disconnects_before_time_outs``, ``customer_choices``,
            ``conversation_choices``.
        unseen_worth_nanousd: the most that answers beyond the longest observed length can be worth, per conversation.
        set_aside: numbers of excluded records and customers, by reason.
        notes: sentences on what is not identified, and on what was not used and why.
        choices: shares of each menu's tiers, observed and predicted: see ``taken``.
    """

    market: Json
    draws: tuple[Json, ...]
    averaged: tuple[Json, ...]
    length: LengthEstimate
    pace: Pace
    lengths_differ: bool
    leaving: LeavingTests
    mixing: Mixing
    value: ValueEstimate | None
    value_known_by: str
    sources: tuple[str, ...]
    unseen_worth_nanousd: float
    set_aside: Mapping[str, int]
    notes: tuple[str, ...]
    choices: tuple[Json, ...] = ()


def fit(statistics: Statistics, given: Given, *, draws: int, random: Random, sweeps: Sweeps = FULL) -> Estimate:
    """Return the most plausible market, given the behaviour of customers, which caps censor.

    Answers are pooled if tiers agree. Urgency is estimated jointly from leaving, if the tests accept it as impatience,
    and from the tiers taken. A customer is weighted by its conversations. Errors are those of the posterior for urgency
    and of a bootstrap over customers for lengths. A value not stated by the operator is drawn with lengths and pace.

    Args:
        statistics: sums over the records.
        given: the operator's inputs.
        draws: how many equally likely markets to draw; fewer than twenty read choices under fewer lengths and paces.
        random: the source of randomness.
        sweeps: how long the sampler of urgency runs.

    Raises:
        CannotEstimate: data are too few, tiers differ, choices rule out the value, or value or urgency is not identified.
    """
    observed, given = _kept(statistics, given), given.in_currency_of(statistics)
    length, pace = _pooled(observed, given), estimate_pace(observed.pace)
    assert length.pooled is not None
    grid = _grid(length.pooled, [cap for offer in observed.offers for cap in offer.caps_tokens if cap is not None])
    leaving = with_otherwise(examine(observed.customers, observed.ages), observed.customers, length.pooled, pace)
    with_urgency = _alike(observed, leaving, given)
    observed, changed_week = _told_apart(observed, leaving)
    inferred = known(observed, length, pace, grid, leaving, given.value_nanousd, draws, random, sweeps)
    raw = mixing_of(inferred.read, draws=draws, random=random, sweeps=sweeps)
    mixing = raw if leaving.otherwise is None else as_own(raw, leaving.otherwise, inferred.drawn_of(observed), random)
    rates = _seeming(observed, leaving, mixing, with_urgency, length, pace, grid)
    served_to = _all_served_to(inferred.offers, observed)
    prior = None if served_to is None else given.prior

    def market_of(curve: Survival, speed: Pace, value_nanousd: float, urgency: tuple[Floats, Floats]) -> Json:
        return _market(grid, curve, speed, urgency, replace(given, value_nanousd=value_nanousd), prior, served_to)

    def drawn_market(place: int, share: Floats) -> Json:
        return market_of(*inferred.draw(place), (rates, share))

    known_market = partial(market_of, length.pooled, pace, inferred.worth_nanousd)
    market = known_market((rates, mixing.share))
    notes = notes_of(length, pace, leaving, observed.ages is not None, served_to, prior is not None)
    notes += () if leaving.refused is not None else of_few_left(observed.customers, length, pace)
    notes += _of_effects(observed, leaving, (market, known_market), raw, random, given, sweeps)
    notes += of_lengths(length, with_urgency, are_chosen(observed)) + _of_value(inferred.value, given, market)
    return Estimate(
        market=market | {"intervals": _intervals(grid, length.pooled, pace, mixing)},
        draws=tuple(drawn_market(place, share) for place, share in enumerate(mixing.draws)),
        averaged=tuple(drawn_market(at, mixing.of_reading(at)) for at in range(len(inferred.drawn))),
        length=length,
        pace=pace,
        lengths_differ=length.differs or with_urgency is not None,
        leaving=leaving,
        mixing=mixing,
        value=inferred.value,
        value_known_by="estimated" if given.value_nanousd is None else "said",
        sources=inferred.sources,
        unseen_worth_nanousd=_unseen_worth(length, pace, mixing, inferred.worth_nanousd),
        set_aside=dict(observed.set_aside) | dict(inferred.left_out),
        notes=notes + of_conversations(observed, sum(inferred.blurred), changed_week) + of_chains(mixing),
        choices=tuple(taken_shares(observed, inferred.offers, mixing)),
    )


def _of_effects(
    observed: Statistics,
    leaving: LeavingTests,
    market: tuple[Json, Callable[[tuple[Floats, Floats]], Json]],
    raw: Mixing,
    random: Random,
    inputs: Given,
    sweeps: Sweeps,
) -> tuple[str, ...]:
    """Return a sentence for each tolerated departure from the model, with its effect on a menu."""
    notes, (estimated, market_with) = [], market
    if leaving.refused is None and leaving.otherwise is None and observed.customers.waited_s.any():
        is_said = inputs.value_nanousd is not None
        notes.append(of_untold(untold(observed, leaving, estimated, market_with, raw, is_value_said=is_said)))
    if leaving.refused is not None:
        likely = [market_with((raw.urgency_per_s, share)) for share in raw.draws[:UNREAD_DRAWS]]
        notes.append(of_unread(kept_in(likely, estimated)))
    if leaving.otherwise is not None:
        notes.append(of_otherwise(leaving, kept(estimated, market_with((raw.urgency_per_s, raw.share)))))
    split = holders_of(observed.customers)
    if split is not None:
        urgency = urgency_of(observed, split[1], leaving, random, sweeps)
        others = None if urgency is None else market_with(urgency)
        notes.append(
            of_holders(
                observed.customers,
                split,
                None if others is None else (kept(others, estimated), kept(estimated, others)),
            )
        )
    return tuple(notes)


def _of_value(value: ValueEstimate | None, inputs: Given, market: Json) -> tuple[str, ...]:
    """Return sentences on the value by customers' choices, and on the profit that a menu for a wrong value keeps."""
    return of_value(value, inputs.value_nanousd, partial(kept_at, market))


def _kept(statistics: Statistics, inputs: Given) -> Statistics:
    """Return the statistics without impossible customers, programs and, on request, holders.

    Raises:
        CannotEstimate: too few customers remain, or no answer's length is known.
    """
    observed = without_machines(cleaned(statistics))
    observed = without_holders(observed) if inputs.without_holders else observed
    customers = len(observed.customers.conversations)
    if customers < CUSTOMERS_LEAST:
        few = "1 customer is" if customers == 1 else f"{customers} customers are"
        raise CannotEstimate(f"{few} too few; {CUSTOMERS_LEAST} are the least.{_aside(observed)}")
    if not observed.lengths:
        raise CannotEstimate(
            "No answer's length is known: no conversation of a known menu and tier has a token and an end other than tool "
            f"calls.{_aside(observed)}"
        )
    return observed


def _aside(observed: Statistics) -> str:
    """Return a sentence that lists the exclusions, empty if there are none."""
    reasons = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in sorted(observed.set_aside.items()) if count]
    return f" Set aside: {', '.join(reasons)}." if reasons else ""


def _pooled(observed: Statistics, inputs: Given) -> LengthEstimate:
    length = estimate_length(observed.lengths, observed.own, may_differ=inputs.lengths_may_differ)
    if length.pooled is None:
        raise CannotEstimate(
            f"Answers of different tiers differ in length below the smaller cap (p = {length.p_value:.2g}), so callers "
            f"choose tiers by length, and no single market describes all of them. {ANYWAY}"
        )
    return length


def _alike(observed: Statistics, leaving: LeavingTests, inputs: Given) -> Differing | None:
    """Return by how much answers of the urgent differ from those of the patient, None if not at all or unknown.

    Raises:
        CannotEstimate: they differ, and the operator's inputs do not allow it.
    """
    customers = observed.customers
    if observed.own is None or customers.even is None or leaving.spikes_s or leaving.refused is not None:
        return None
    even = customers.even.disconnects.astype(np.float64), customers.even.waited_s
    gap = by_urgency(observed.own, customers.disconnects.astype(np.float64), customers.waited_s, even)
    if gap is None or gap.p_value >= LENGTHS_ALPHA or max(gap.ratio, 1 / max(gap.ratio, 1e-9)) < RATIO_LEAST:
        return None
    if not inputs.lengths_may_differ:
        raise CannotEstimate(f"{differing(gap)} {ANYWAY}")
    return gap


def _seeming(
    observed: Statistics,
    leaving: LeavingTests,
    mixing: Mixing,
    with_urgency: Differing | None,
    length: LengthEstimate,
    pace: Pace,
    grid: Ints,
) -> Floats:
    """Return the market's urgencies; where lengths depend on urgency, those that value answers of the common law as much
    as each type values answers of its own length.
    """
    if with_urgency is None or observed.own is None or length.pooled is None:
        return mixing.urgency_per_s
    laws = own_laws(observed.own, as_timed(observed.customers, leaving), mixing.urgency_per_s, mixing.share)
    return laws.seeming(mixing.urgency_per_s, length.pooled, pace, grid)


def _told_apart(observed: Statistics, leaving: LeavingTests) -> tuple[Statistics, int | None]:
    """Return the statistics, with windows only where customers have changed, and the week of the last change.

    Windows are not used where clients time out, because time-outs are no part of a customer's rate, and where leaving is
    not read.
    """
    windows = observed.customers.windows
    if windows is not None:
        windows = None if leaving.spikes_s or leaving.refused is not None else changed(windows)
    customers = replace(observed.customers, windows=windows)
    return replace(observed, customers=customers), None if windows is None else windows.starts[-1]


def _grid(curve: Survival, caps: list[int]) -> Ints:
    """Return the lengths of the market's table: evenly spaced in probability and in tokens, with the caps in force."""
    observed_tokens = curve.tokens[curve.tokens >= 1]
    if len(observed_tokens) <= LENGTHS_MOST:
        return observed_tokens
    levels = np.linspace(0, curve.unfinished - 1, LENGTHS_MOST // 2)
    places = np.searchsorted(-curve.survival, -1 - levels)
    by_chance = curve.tokens[np.minimum(places, len(curve.tokens) - 1)]
    by_tokens = np.linspace(observed_tokens[0], observed_tokens[-1], LENGTHS_MOST // 2).astype(np.int64)
    within = [cap for cap in caps if observed_tokens[0] <= cap <= observed_tokens[-1]]
    merged = np.unique(np.concatenate((by_chance, by_tokens, np.array(within, dtype=np.int64))))
    return merged[merged >= 1]


def _all_served_to(offers: Sequence[Intervals], observed: Statistics) -> float | None:
    """Return the largest urgency for which any offer has a tier.

    None where refusals were counted, which cover larger urgencies, and where every urgency has a tier.
    """
    served_to = max((_served_to(offer) for offer in offers), default=np.inf)
    return None if _refusals_counted(observed) or not np.isfinite(served_to) else served_to


def _served_to(offer: Intervals) -> float:
    """Return the largest urgency for which an offer has a tier."""
    served = offer.high[1:][offer.low[1:] < offer.high[1:]]
    return float(served.max(initial=0.0))


def _refusals_counted(observed: Statistics) -> bool:
    by_customer = observed.customers.choices is not None and bool(np.any(observed.customers.choices == 0))
    return by_customer or any(offer.refused is not None for offer in observed.offers)


def _market(
    grid: Ints,
    curve: Survival,
    pace: Pace,
    urgency: tuple[Floats, Floats],
    inputs: Given,
    prior: Market | None,
    served_to: float | None,
) -> Json:
    """Return ``market.json``: the estimated types, and the prior's types above the urgency ``served_to``."""
    rate, share = urgency
    if prior is not None and served_to is not None:
        prior_rate, prior_share = np.array(prior.urgency_per_s), np.array(prior.share)
        beyond = prior_rate > served_to
        rate = np.concatenate((rate, prior_rate[beyond]))
        share = np.concatenate((share * (1 - prior_share[beyond].sum()), prior_share[beyond]))
    retained = share > SHARE_LEAST
    shares = share[retained] / share[retained].sum()
    survival = curve.at(grid)
    market: Json = {
        "types": [
            {"urgency_per_s": float(urgency_per_s), "share": float(part)}
            for urgency_per_s, part in zip(rate[retained], shares, strict=True)
        ],
        "value_nanousd": inputs.value_nanousd,
        "delay": {"family": "exponential"},
        "answer_length": {"family": "kaplan_meier", "tokens": grid.tolist(), "survival": survival.tolist()},
        "tokens_per_s": pace.tokens_per_s,
        "first_token_s": pace.first_token_s,
        "cost_nanousd_per_token": inputs.cost_nanousd_per_token,
        "input_cost_nanousd_per_token": inputs.input_cost_nanousd_per_token,
        "cost_on_disconnect": inputs.cost_on_disconnect,
        "currency": inputs.currency,
    }
    if survival[-1] > 0 or inputs.cost_nanousd_per_token > 0:
        market["cap_tokens_max"] = int(grid[-1])
    return market


def _intervals(grid: Ints, curve: Survival, pace: Pace, mixing: Mixing) -> Json:
    """Return the market's 95 % intervals, pointwise."""
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
    """Return the most that answers beyond the last length can be worth, nano-units per conversation.

    The bound assumes that all these answers end with the last observed length.
    """
    assert length.pooled is not None
    time_s = pace.first_token_s + length.identified_to_tokens / pace.tokens_per_s
    discount = float(np.dot(mixing.share, np.exp(-mixing.urgency_per_s * time_s)))
    return value_nanousd * length.pooled.unfinished * discount
