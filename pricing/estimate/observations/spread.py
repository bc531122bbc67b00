"""Lengths by customer: tests whose unit is the customer, and how much differences between customers widen a band.

Answers of a customer are alike, so a thousand answers of ten customers tell less than a thousand answers of a thousand
customers. Every statistic in this file is a sum over customers and has the variance of such a sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from pricing.estimate.observations.conversations import BINS_A_DOUBLING
from pricing.market.answers import Floats, Ints

CLUSTERS_LEAST = 20
"""With fewer customers, differences between them are not estimated."""

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class OwnLengths:
    """Conversations by customer and length, in bins; an entry for each combination that occurs. Shapes (m,).

    Attributes:
        customer: row of the customer.
        tier: place of the tier among the length counts.
        window: place of the window of weeks, 0 where there is only one window.
        even: 1 for days whose number since 1970 is even.
        bin: bin of the length, as ``length_bin`` returns it.
        observed, censored: conversations that ended there by themselves, and that were cut.
    """

    customer: Ints
    tier: Ints
    window: Ints
    even: Ints
    bin: Ints
    observed: Ints
    censored: Ints

    def only(self, kept: Ints, customers: int) -> OwnLengths:
        """Return the lengths of some customers, renumbered."""
        place = np.full(customers, -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        is_retained = place[self.customer] >= 0
        return OwnLengths(
            place[self.customer[is_retained]],
            *(
                column[is_retained]
                for column in (self.tier, self.window, self.even, self.bin, self.observed, self.censored)
            ),
        )

    def where(self, entries: Flags) -> OwnLengths:
        """Return some of the entries."""
        columns = (self.customer, self.tier, self.window, self.even, self.bin, self.observed, self.censored)
        return OwnLengths(*(column[entries] for column in columns))

    @property
    def is_enough(self) -> bool:
        """Return whether there are enough customers to estimate differences between them."""
        return len(np.unique(self.customer)) >= CLUSTERS_LEAST


@dataclass(frozen=True, slots=True)
class Risks:
    """For groups of conversations, how many ended in each bin, and how many were at risk. Shapes (groups, bins)."""

    ended: Floats
    at_risk: Floats

    def expected(self) -> Floats:
        """Return the expected endings if all groups were alike. Shape (groups, bins)."""
        return self.at_risk * self.hazard()

    def hazard(self, weight: Floats | None = None) -> Floats:
        """Return the share at risk that ends in each bin, with weighted groups. Shape (bins,)."""
        weight = np.ones(len(self.ended)) if weight is None else weight
        hazard: Floats = (weight @ self.ended) / np.maximum(weight @ self.at_risk, 1e-300)
        return hazard


def risks_of(own: OwnLengths, group: Ints, groups: int, bins: int) -> Risks:
    """Return the risks of groups of entries; a cut within a bin counts half a bin at risk. ``group`` has shape (m,)."""
    place, shape = group * bins + own.bin, (groups, bins)
    ended, cut = (
        np.asarray(np.bincount(place, counts, groups * bins), dtype=np.float64).reshape(shape)
        for counts in (own.observed, own.censored)
    )
    reached = np.cumsum((ended + cut)[:, ::-1], axis=1)[:, ::-1]
    return Risks(ended, reached - cut / 2)


def bins_in(own: OwnLengths) -> int:
    """Return the number of bins."""
    return int(own.bin.max(initial=0)) + 1


def bins_of(tokens: Ints) -> Ints:
    """Return the bin of each length, as ``length_bin`` does."""
    return np.floor(BINS_A_DOUBLING * np.log2(tokens) + 1e-9).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Differing:
    """Whether two groups of conversations end at different rates.

    Attributes:
        p_value: two-sided p-value, with the customer as the unit.
        ratio: the rate at which answers of the first group end, as a multiple of the other group's, length for length.
    """

    p_value: float
    ratio: float


def compared(own: OwnLengths, first: Flags, below_bin: int | None = None) -> Differing:
    """Return whether some entries end at another rate than the other entries: a log-rank test over customers.

    Args:
        own: the entries.
        first: which entries are the first group; a customer may be in both groups. Shape (m,).
        below_bin: only lengths in bins below this bin are compared; None compares all.
    """
    bins = bins_in(own) if below_bin is None else min(below_bin, bins_in(own))
    customers, which = np.unique(own.customer, return_inverse=True)
    count = len(customers)
    parts = risks_of(own, 2 * which + first, 2 * count, bins_in(own))
    ended, at_risk = parts.ended[:, :bins], parts.at_risk[:, :bins]
    hazard = ended.sum(axis=0) / np.maximum(at_risk.sum(axis=0), 1e-300)
    share = at_risk[1::2].sum(axis=0) / np.maximum(at_risk.sum(axis=0), 1e-300)
    surplus = ended - hazard * at_risk
    score = surplus[1::2] @ (1 - share) - surplus[::2] @ share
    rates = [float(ended[place::2].sum() / max(1e-300, (hazard * at_risk[place::2]).sum())) for place in (1, 0)]
    return Differing(_two_sided(score), rates[0] / rates[1] if rates[1] > 0 else math.inf)


def by_urgency(own: OwnLengths, disconnects: Floats, waited_s: Floats, even: tuple[Floats, Floats]) -> Differing | None:
    """Return whether customers who leave soon have answers of other lengths than those who stay, None if too few.

    Leaving on odd days measures the urgency that is compared with lengths on even days, and leaving on even days that
    for odd days: the two halves are connected only through the customer. Answers are compared within their tier.

    Args:
        own: the entries.
        disconnects, waited_s: disconnects and seconds waited of each customer. Shapes (n,).
        even: disconnects and seconds waited on even days alone. Shapes (n,).
    """
    if not own.is_enough:
        return None
    tiers, bins = int(own.tier.max(initial=0)) + 1, bins_in(own)
    pooled = risks_of(own, own.tier, tiers, bins)
    hazard = pooled.ended / np.maximum(pooled.at_risk, 1e-300)
    scores, surplus_of, expected_of, rank_of = np.zeros(len(disconnects)), [], [], []
    for parity, (d, seconds) in ((1, (disconnects - even[0], waited_s - even[1])), (0, even)):
        half = own.where(own.even == parity)
        group, group_of = np.unique(half.customer * tiers + half.tier, return_inverse=True)
        risks = risks_of(half, group_of, len(group), bins)
        customer, tier = np.divmod(group, tiers)
        has_waited = seconds[customer] > 0
        expected = (hazard[tier] * risks.at_risk).sum(axis=1)[has_waited]
        surplus = risks.ended.sum(axis=1)[has_waited] - expected
        mean_rate = d.sum() / max(1e-9, seconds.sum())
        rates = (d + 0.5)[customer[has_waited]] / (seconds[customer[has_waited]] + 0.5 / max(mean_rate, 1e-9))
        rank = np.argsort(np.argsort(rates)) / max(1, len(rates) - 1)
        centred = rank - (rank @ expected) / max(1e-300, float(expected.sum()))
        np.add.at(scores, customer[has_waited], centred * surplus)
        surplus_of.append(surplus)
        expected_of.append(expected)
        rank_of.append(rank)
    rank, ended, expected = np.concatenate(rank_of), np.concatenate(surplus_of), np.concatenate(expected_of)
    soon, late = rank > 2 / 3, rank < 1 / 3
    rates_of = [
        1 + float(ended[group_mask].sum()) / max(1e-300, float(expected[group_mask].sum()))
        for group_mask in (soon, late)
    ]
    return Differing(_two_sided(scores), rates_of[0] / max(1e-9, rates_of[1]))


def own_errors(own: OwnLengths) -> Floats:
    """Return the standard error of the cumulated rate at each bin's end, with the customer as the unit. Shape (bins,).

    The error of the rate is a sum over customers of the number of answers that ended, less the expected number.
    """
    customers, which = np.unique(own.customer, return_inverse=True)
    risks = risks_of(own, which, len(customers), bins_in(own))
    hazard, at_risk = risks.hazard(), np.maximum(risks.at_risk.sum(axis=0), 1e-300)
    added = np.cumsum((risks.ended - risks.at_risk * hazard) / (at_risk * np.maximum(1 - hazard, 1e-9)), axis=1)
    errors: Floats = np.sqrt((added**2).sum(axis=0))
    return errors


def own_spread(own: OwnLengths) -> float:
    """Return the standard deviation, between customers, of the rate at which answers end, as a share of the mean.

    If answers are independent given the customer, the variance of a customer's number of endings is the expected
    number, plus the square of that number times the variance of the rate.
    """
    customers, which = np.unique(own.customer, return_inverse=True)
    risks = risks_of(own, which, len(customers), bins_in(own))
    expected, ended = (risks.at_risk * risks.hazard()).sum(axis=1), risks.ended.sum(axis=1)
    # Within a bin an answer ends at most once, so the number varies by less than a Poisson count.
    chance = (risks.at_risk * risks.hazard() * (1 - risks.hazard())).sum(axis=1)
    variance = float(((ended - expected) ** 2 - chance).sum()) / max(1e-300, float((expected**2).sum()))
    return math.sqrt(max(0.0, variance))


@dataclass(frozen=True, slots=True)
class Recent:
    """The risks of each customer in the last windows, and ``pooled``, the rates of all customers in all windows.

    ``pooled`` has shape (bins,).
    """

    risks: Risks
    pooled: Floats

    def factors(self, weight: Floats) -> Floats:
        """Return the rate in each bin, with weighted customers, as a multiple of the pooled rate. Shape (bins,)."""
        is_known = (weight @ self.risks.at_risk > 0) & (self.pooled > 0)
        pooled = np.where(self.pooled > 0, self.pooled, 1.0)
        changed: Floats = np.where(is_known, self.risks.hazard(weight) / pooled, 1.0)
        return changed


def recent(own: OwnLengths, since: int) -> Recent:
    """Return the risks of each customer from the window ``since`` on, and the pooled rates of all windows."""
    bins, late = bins_in(own), own.where(own.window >= since)
    pooled = risks_of(own, np.zeros(len(own.bin), dtype=np.int64), 1, bins).hazard()
    return Recent(risks_of(late, late.customer, int(own.customer.max()) + 1, bins), pooled)


def steady_from(own: OwnLengths, alpha: float, ratio_least: float) -> tuple[int, Differing | None]:
    """Return the first window since which answers end at the last window's rate, and the difference to the window before.

    Going back from the last window, each window is compared with all later windows, which were found alike. Without a
    change, the result is window 0 and None.
    """
    first = int(own.window.max(initial=0))
    while first > 0:
        entries = own.where(own.window >= first - 1)
        difference = compared(entries, entries.window >= first)
        if difference.p_value < alpha and abs(math.log(max(difference.ratio, 1e-9))) > math.log(ratio_least):
            return first, difference
        first -= 1
    return 0, None


def _two_sided(score: Floats) -> float:
    scale = float(np.sqrt(np.dot(score, score)))
    return float(2 * ndtr(-abs(score.sum()) / scale)) if scale > 0 else 1.0
