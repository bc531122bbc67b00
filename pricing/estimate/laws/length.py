"""The length of answers that caps cut: Kaplan-Meier curves within each tier, pooled where tiers agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, ndtri

from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.spread import (
    OwnLengths,
    bins_in,
    bins_of,
    compared,
    own_errors,
    recent,
    steady_from,
)
from pricing.estimate.observations.statistics import LengthCounts
from pricing.market.answers import Floats, Ints

ALPHA = 0.01
"""Tiers are not pooled if chance would make their lengths differ as much with less than this probability ..."""

SAME_WITHIN = 0.01
"""... unless their survival curves differ by at most this: with enough records every difference is significant."""

CHANGED_LEAST = 1.1
"""Answers have changed where the rate at which they end has changed significantly, and by more than this factor."""

ENDINGS_LEAST = 50
"""The fewest answers that ended by themselves from which a curve is estimated."""

BAND = 0.95


@dataclass(frozen=True, slots=True)
class Survival:
    """P(length > n) at each observed length, with a pointwise band. Shapes (m,).

    The curve is flat between observed lengths, and 1 before the first.

    Attributes:
        tokens: lengths at which answers ended or were cut, rising.
        survival: the estimate.
        low, high: the ends of the band, which covers each point with probability ``BAND``.
        unfinished: survival at the last length; lengths beyond the last length are not identified.
    """

    tokens: Ints
    survival: Floats
    low: Floats
    high: Floats

    @property
    def unfinished(self) -> float:
        """Return the mass of answers longer than any observed length."""
        return float(self.survival[-1])

    def at(self, tokens: Ints) -> Floats:
        """Return the survival at any lengths. Shapes (k,) -> (k,)."""
        return _stairs(self.tokens, self.survival, tokens)

    def band_at(self, tokens: Ints) -> tuple[Floats, Floats]:
        """Return the ends of the band at any lengths. Shapes (k,) -> (k,), (k,)."""
        return _stairs(self.tokens, self.low, tokens), _stairs(self.tokens, self.high, tokens)


@dataclass(frozen=True, slots=True)
class LengthEstimate:
    """The length of answers as far as it is identified.

    Attributes:
        pooled: the curve of all tiers, None where they differ.
        by_tier: the curve of each tier alone.
        p_value: p-value of equal lengths below the smaller caps (log-rank); 1 with one tier.
        difference: the largest distance between two tiers' curves below the smaller cap.
        counts: the sum of the tiers' counts, from which the pooled curve and its bootstrap draws are made.
        identified_to_tokens: the largest observed length; nothing is identified above the largest cap.
        own: lengths by customer, None if not stored or too few: then answers count as independent.
        own_share: the share of all conversations that ``own`` holds.
        since: the first window of weeks since which answers are as long as in the last window; the curve is that of the
            time since.
        changed: the multiple of the earlier rate at which answers have ended since, length for length; None without a
            change.
    """

    pooled: Survival | None
    by_tier: dict[str, Survival]
    p_value: float
    difference: float
    counts: LengthCounts
    identified_to_tokens: int
    own: OwnLengths | None = None
    own_share: float = 1.0
    since: int = 0
    changed: float | None = None

    @property
    def differs(self) -> bool:
        """Return whether tiers differ in length, by more than chance and by enough to matter."""
        return self.p_value < ALPHA and self.difference > SAME_WITHIN

    def redrawn(self, random: np.random.Generator) -> Survival:
        """Return the curve of one bootstrap draw."""
        [curve] = self.redraws(1, random)
        return curve

    def redraws(self, number: int, random: np.random.Generator) -> Iterator[Survival]:
        """Yield the curve of each bootstrap draw: every customer weighted by an exponential variable.

        Where customers are not known, every conversation is weighted.
        """
        if self.own is None:
            for _ in range(number):
                yield redrawn(self.counts, random)
            return
        since, bins = recent(self.own, self.since), _bins(self.counts, self.own)
        for _ in range(number):
            weight = 1 + (random.standard_exponential(len(since.risks.ended)) - 1) * np.sqrt(self.own_share)
            yield _curve(self.counts, factor=since.factors(np.maximum(weight, 0.0))[bins], error=np.zeros(len(bins)))


def kaplan_meier(
    tokens: Ints, observed: Floats, censored: Floats, *, factor: Floats | None = None, error: Floats | None = None
) -> Survival:
    """Return the Kaplan-Meier curve with Greenwood's variance on the scale of log(-log).

    Identifying assumption: within the sample, a cut at n tokens is independent of the rest of the answer. Caps are set
    before the answer, so they meet the assumption; a customer who leaves because the answer *reads* as if about to end
    does not. The mass at the last length stays there: it is not spread over unobserved lengths.

    Args:
        tokens: lengths, rising. Shape (m,).
        observed: conversations, or weights, that ended at each length. Shape (m,).
        censored: conversations, or weights, that were cut at each length while still running. Shape (m,).
        factor: the factor by which the rate of ending is multiplied at each length. Shape (m,).
        error: the least standard error of the cumulated rate for the band. Shape (m,).

    Returns:
        The curve with its band. Where the estimate is 1 or 0, the band is that point. Coverage is checked by simulation.
    """
    leaving = observed + censored
    at_risk = np.cumsum(leaving[::-1])[::-1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rate = observed / at_risk if factor is None else np.minimum(1.0, factor * observed / at_risk)
        survival = np.cumprod(np.where(at_risk > 0, 1.0 - rate, 1.0)).astype(np.float64)
        # Sums that differ in the last digit must not leave a sliver of survival where everybody ended.
        survival[(observed >= at_risk) & (at_risk > 0)] = 0.0
        survival = np.minimum.accumulate(survival)
        terms = np.where(observed > 0, observed / (at_risk * (at_risk - observed)), 0.0)
        known = np.sqrt(np.cumsum(terms))
        spread = (known if error is None else np.maximum(known, error)) / np.abs(np.log(survival))
        z = float(ndtri((1 + BAND) / 2))
        low, high = survival ** np.exp(z * spread), survival ** np.exp(-z * spread)
    inside = (survival > 0) & (survival < 1)
    return Survival(tokens, survival, np.where(inside, low, survival), np.where(inside, high, survival))


def estimate_length(
    tiers: Sequence[LengthCounts], own: OwnLengths | None = None, *, may_differ: bool = False
) -> LengthEstimate:
    """Return the length of answers: within each tier, and pooled if tiers do not differ below their smaller cap.

    With lengths by customer, the customer is the unit of tests and bands, and where answers have changed from one
    window of weeks to the next, the curve is that of the time since.

    Callers who know their prompt may choose a tier by the length they expect. Then no curve is common to all tiers, and
    pooling would join the start of one curve to the end of another.

    Not identified: anything above the largest cap; and lengths of a tier above its own cap unless tiers are pooled.

    Args:
        tiers: conversations by length and ending, tier by tier.
        own: conversations by customer, length and ending, in bins; None if not kept.
        may_differ: whether tiers are pooled even if they differ.

    Raises:
        CannotEstimate: fewer than ``ENDINGS_LEAST`` answers ended by themselves, or counts are negative or out of order.
    """
    for tier in tiers:
        if np.any(np.diff(tier.tokens) <= 0) or min(tier.observed.min(), tier.censored.min(), tier.tokens.min()) < 0:
            raise CannotEstimate(f"The counts of tier {tier.tier!r} are negative or its lengths do not rise.")
    total = added(tiers)
    endings = int(total.observed.sum())
    if endings < ENDINGS_LEAST:
        raise CannotEstimate(f"Only {endings} answers ended by themselves; {ENDINGS_LEAST} are the least.")
    curves = {tier.tier: _curve(tier) for tier in tiers}
    own = own if own is not None and own.is_enough else None
    p_value, difference = _compared(tiers, curves, own)
    is_pooled, since, change = p_value >= ALPHA or difference <= SAME_WITHIN or may_differ, 0, None
    if own is not None:
        since, change = steady_from(own, ALPHA, CHANGED_LEAST)
    return LengthEstimate(
        pooled=_joined(total, own, since) if is_pooled else None,
        by_tier=curves,
        p_value=p_value,
        difference=difference,
        counts=total,
        identified_to_tokens=int(total.tokens[(total.observed + total.censored) > 0].max()),
        own=own,
        own_share=_share(own, total),
        since=since,
        changed=None if change is None else change.ratio,
    )


def _share(own: OwnLengths | None, total: LengthCounts) -> float:
    if own is None:
        return 1.0
    return min(1.0, float(own.observed.sum() + own.censored.sum()) / float(total.observed.sum() + total.censored.sum()))


def _joined(total: LengthCounts, own: OwnLengths | None, since: int) -> Survival:
    """Return the curve of all tiers together; with lengths by customer, its band allows for customers who differ."""
    if own is None:
        return _curve(total)
    bins = _bins(total, own)
    error = own_errors(own.where(own.window >= since)) * np.sqrt(_share(own, total))
    factors = None if since == 0 else recent(own, since).factors(np.ones(int(own.customer.max()) + 1))[bins]
    return _curve(total, factor=factors, error=error[np.minimum(bins, len(error) - 1)])


def _bins(total: LengthCounts, own: OwnLengths) -> Ints:
    """Return the bin of each length; longer lengths than any customer's have the last bin that a customer has."""
    return np.minimum(bins_of(np.maximum(total.tokens, 1)), bins_in(own) - 1)


def log_rank(tiers: Sequence[LengthCounts], below: int) -> float:
    """Return the chance that tiers of equal lengths differ as much as these do below a length (k-sample log-rank).

    Args:
        tiers: at least two tiers, each with conversations at risk.
        below: only endings before this number of tokens are compared, because a smaller cap shows none from there on.
    """
    grid = np.unique(np.concatenate([tier.tokens[tier.tokens < below] for tier in tiers]))
    if len(grid) == 0:
        return 1.0
    died = np.stack([_on(grid, tier.tokens, tier.observed) for tier in tiers])
    at_risk = np.stack([_at_risk(grid, tier) for tier in tiers])
    deaths, risk = died.sum(axis=0), at_risk.sum(axis=0)
    useful = (deaths > 0) & (risk > 1)
    died, at_risk, deaths, risk = died[:, useful], at_risk[:, useful], deaths[useful], risk[useful]
    share = at_risk / risk
    surplus = (died - share * deaths).sum(axis=1)[:-1]
    scale = deaths * (risk - deaths) / (risk - 1)
    variance = np.diag((share * scale).sum(axis=1)) - (share * scale) @ share.T
    statistic = float(surplus @ np.linalg.pinv(variance[:-1, :-1]) @ surplus)
    return float(chdtrc(len(tiers) - 1, statistic))


def redrawn(counts: LengthCounts, random: np.random.Generator) -> Survival:
    """Return the curve of one bootstrap draw: every conversation weighted by an exponential variable."""
    observed: Floats = random.standard_gamma(counts.observed.astype(np.float64))
    censored: Floats = random.standard_gamma(counts.censored.astype(np.float64))
    return kaplan_meier(counts.tokens, observed, censored)


def added(tiers: Sequence[LengthCounts]) -> LengthCounts:
    """Return the counts of all tiers together.

    Raises:
        CannotEstimate: there are no conversations.
    """
    if not tiers or not any(len(tier.tokens) for tier in tiers):
        raise CannotEstimate("There are no conversations.")
    grid = np.unique(np.concatenate([tier.tokens for tier in tiers]))
    caps = [tier.cap_tokens for tier in tiers if tier.cap_tokens is not None]
    return LengthCounts(
        tier="all",
        cap_tokens=max(caps) if len(caps) == len(tiers) else None,
        tokens=grid,
        observed=np.sum([_on(grid, tier.tokens, tier.observed) for tier in tiers], axis=0),
        censored=np.sum([_on(grid, tier.tokens, tier.censored) for tier in tiers], axis=0),
    )


def _compared(
    tiers: Sequence[LengthCounts], curves: dict[str, Survival], own: OwnLengths | None
) -> tuple[float, float]:
    """Return the p-value of equal lengths, and the largest difference between curves.

    Each tier is compared, below its own cap, with all tiers of larger caps together. The p-value is the smallest,
    multiplied by the number of comparisons (Holm's first step).
    """
    places = sorted(
        range(len(tiers)), key=lambda place: np.inf if (cap := tiers[place].cap_tokens) is None else float(cap)
    )
    values, differences = [], [0.0]
    for rank, place in enumerate(places[:-1]):
        smaller, larger = tiers[place], added([tiers[index] for index in places[rank + 1 :]])
        cap = int(larger.tokens[-1]) + 1 if smaller.cap_tokens is None else smaller.cap_tokens
        if own is None:
            values.append(log_rank([smaller, larger], cap))
        else:
            some = own.where(np.isin(own.tier, places[rank:]))
            values.append(compared(some, some.tier == place, int(bins_of(np.array([cap]))[0])).p_value)
        grid = np.arange(0, cap, max(1, cap // 1000), dtype=np.int64)
        reached = grid[grid <= min(smaller.tokens[-1], larger.tokens[-1])]
        apart = np.abs(curves[smaller.tier].at(reached) - _curve(larger).at(reached))
        differences.append(float(apart.max(initial=0.0)))
    return min(1.0, min(values, default=1.0) * max(1, len(values))), max(differences)


def _curve(counts: LengthCounts, *, factor: Floats | None = None, error: Floats | None = None) -> Survival:
    observed, censored = counts.observed.astype(np.float64), counts.censored.astype(np.float64)
    return kaplan_meier(counts.tokens, observed, censored, factor=factor, error=error)


def _on(grid: Ints, tokens: Ints, counts: Ints) -> Ints:
    """Return counts on another grid; counts of lengths that are not on the grid are left out."""
    placed = np.zeros(len(grid), dtype=np.int64)
    there = np.isin(tokens, grid)
    placed[np.searchsorted(grid, tokens[there])] = counts[there]
    return placed


def _at_risk(grid: Ints, tier: LengthCounts) -> Ints:
    """Return how many conversations of a tier are at least as long as each length of a grid."""
    running = np.append(np.cumsum((tier.observed + tier.censored)[::-1])[::-1], 0)
    at_risk: Ints = running[np.searchsorted(tier.tokens, grid)]
    return at_risk


def _stairs(tokens: Ints, values: Floats, at: Ints) -> Floats:
    stairs: Floats = np.concatenate(([1.0], values))[np.searchsorted(tokens, at, side="right")]
    return stairs
