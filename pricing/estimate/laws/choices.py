"""The interval of urgency that a customer's choice of tier implies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.statistics import Offer
from pricing.market.answers import Floats, Ints

PATIENT = 1e-9
"""The search for the urgency that is indifferent between two tiers starts at this rate, 1/s ..."""

EXACT, ROUNDS = 1e-14, 200
"""... and ends when a round changes it by no more than this share, or after this many rounds; a dozen usually suffice."""

BLUR_MOST = 0.05
"""The most worth beyond all observed lengths that a tier may have, as a share of its price rise over the smaller tier."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers as customers of exponential patience see them.

    Attributes:
        tokens: lengths, rising. Shape (m,).
        probability: probability that the answer ends at each length. Shape (m,).
        time_s: when an answer of each length ends, seconds after the call. Shape (m,).
        value_nanousd: the worth of an answer that comes at once, v.
    """

    tokens: Ints
    probability: Floats
    time_s: Floats
    value_nanousd: float

    def within(self, cap_tokens: int | None) -> int:
        """Return the number of lengths within a cap."""
        return len(self.tokens) if cap_tokens is None else int(np.searchsorted(self.tokens, cap_tokens, side="right"))

    def worth(self, urgency_per_s: float, cap_tokens: int | None) -> float:
        """Return u(r, N), the worth of a conversation with a cap, nano-units."""
        end = self.within(cap_tokens)
        discount = np.exp(-urgency_per_s * self.time_s[:end])
        return self.value_nanousd * float(np.dot(discount, self.probability[:end]))


@dataclass(frozen=True, slots=True)
class Intervals:
    """The urgencies that take each tier of an offer: tier k is taken for ``low[k] < r <= high[k]``; place 0 is no tier.

    A tier that nobody takes has an empty interval, low >= high. 1/s, shapes (tiers + 1,).
    """

    low: Floats
    high: Floats

    @property
    def tells_nothing(self) -> bool:
        """Return whether a customer that takes any tier may be of any urgency."""
        taken = self.low < self.high
        return bool(np.all(self.low[taken] == 0) and np.all(np.isinf(self.high[taken])))


def intervals_of(offer: Offer, answers: Answers) -> Intervals:
    """Return the urgencies for which each tier of an offer is best.

    Between two tiers j < k the indifferent urgency solves u(r, N_k) - u(r, N_j) = p_k - p_j; more patient customers
    take k. The left side falls in r, so there is at most one such urgency. Tier k is best between the largest
    indifferent urgency against higher tiers and the smallest against lower tiers, where no tier counts as the lowest.

    Identifying assumptions: customers know the distribution of the length of answers, expect v from each answer, and
    take the tier that is best for the current conversation, without considering to resume it. Not identified: where
    within its interval an urgency lies.

    Raises:
        CannotEstimate: caps fall from one tier to the next.
    """
    return intervals_at(offer, answers, np.array([answers.value_nanousd]))[0]


def intervals_at(offer: Offer, answers: Answers, values_nanousd: Floats) -> list[Intervals]:
    """Return the intervals of ``intervals_of`` at each of several values of an answer; ``answers.value_nanousd`` is unused.

    Args:
        offer: the menu.
        answers: lengths and times of answers.
        values_nanousd: values of an answer. Shape (values,).

    Raises:
        CannotEstimate: caps fall from one tier to the next.
    """
    caps: tuple[int | None, ...] = (0, *offer.caps_tokens)
    prices = (0, *offer.prices_nanousd)
    sizes = [np.inf if cap is None else cap for cap in caps]
    if any(after < before for before, after in pairwise(sizes)):
        raise CannotEstimate("The caps of an offer rise from tier to tier.")
    count = len(caps)
    low, high = np.zeros((len(values_nanousd), count)), np.full((len(values_nanousd), count), np.inf)
    for lower in range(count):
        for upper in range(lower + 1, count):
            edge = _indifferent(answers, (caps[lower], caps[upper]), prices[upper] - prices[lower], values_nanousd)
            high[:, upper] = np.minimum(high[:, upper], edge)
            low[:, lower] = np.maximum(low[:, lower], edge)
    return [Intervals(*ends) for ends in zip(low, high, strict=True)]


def is_blurred(offer: Offer, intervals: Intervals, answers: Answers) -> bool:
    """Return whether an offer has a tier with a cap beyond all observed lengths that may be worth too much there.

    Each answer whose end was not observed is worth at most v e^(-r t), as if it ended with the next token. Where that
    is more than ``BLUR_MOST`` of the rise in price, the indifferent urgency is unknown.
    """
    unfinished = 1.0 - float(answers.probability.sum())
    rises = np.diff((0, *offer.prices_nanousd))
    beyond = np.array([cap is None or cap > answers.tokens[-1] for cap in offer.caps_tokens])
    at_most = answers.value_nanousd * unfinished * np.exp(-intervals.high[1:] * answers.time_s[-1])
    return bool(np.any(beyond & (at_most > BLUR_MOST * rises)))


def taken_by(offer: Offer, answers: Answers) -> Intervals:
    """Return the urgencies for which each tier of an offer may be best, whatever lies beyond all observed lengths.

    Where that matters, a threshold lies between two bounds: in one, answers beyond the observed lengths are worth
    nothing, in the other, all of them end with the next token. Tiers on both sides of such a threshold are not
    distinguished: each has the interval of all of them together.
    """
    least = intervals_of(offer, answers)
    if not is_blurred(offer, least, answers):
        return least
    unfinished = 1.0 - float(answers.probability.sum())
    most = intervals_of(
        offer,
        replace(
            answers,
            tokens=np.append(answers.tokens, answers.tokens[-1] + 1),
            probability=np.append(answers.probability, unfinished),
            time_s=np.append(answers.time_s, answers.time_s[-1]),
        ),
    )
    low, high = np.minimum(least.low, most.low), np.maximum(least.high, most.high)
    together: list[list[int]] = []
    for tier in np.argsort(low, kind="stable").tolist():
        if low[tier] >= high[tier]:
            continue
        if together and low[tier] < high[together[-1]].max():
            together[-1].append(tier)
        else:
            together.append([tier])
    for tiers in together:
        low[tiers], high[tiers] = low[tiers].min(), high[tiers].max()
    return Intervals(low, high)


def worth_from_refusals(answers: Answers, cap_tokens: int | None, price_nanousd: int, urgency_per_s: float) -> float:
    """Return v, the worth of an answer, from the urgency at which customers begin to refuse the smallest tier.

    For the indifferent customer, v E[e^(-r t); answer within the cap] = p. The urgency is the quantile of *all*
    customers, buyers and refusers, at the share that buys. So the distribution must come from a time when all were
    served (observe mode), not from the buyers alone. Not identified: whether v is the same for all.

    Args:
        answers: lengths and times; their value is not used.
        cap_tokens: the smallest tier's cap.
        price_nanousd: the smallest tier's price.
        urgency_per_s: the quantile.

    Raises:
        CannotEstimate: no answer is observed within the cap.
    """
    unit = answers.worth(urgency_per_s, cap_tokens) / answers.value_nanousd
    if unit <= 0:
        raise CannotEstimate("No answer fits the smallest cap, so refusing it says nothing of an answer's worth.")
    return price_nanousd / unit


def _indifferent(answers: Answers, caps: tuple[int | None, int | None], rise: int, values_nanousd: Floats) -> Floats:
    """Return the urgency that is indifferent between two caps, at each value. Shape (values,).

    It is 0 if all customers prefer the smaller cap, and inf if all prefer the larger cap. The worth that the larger cap
    adds, v E[e^(-r t); answer between the caps], has a logarithm that is convex in r and falls. So Newton's method on
    the logarithm, started at a lower rate, rises to the root and never passes it.
    """
    if rise <= 0:
        return np.full(len(values_nanousd), np.inf)
    between = slice(*(answers.within(cap) for cap in caps))
    time_s, probability = answers.time_s[between], answers.probability[between]
    urgency = np.where(values_nanousd * float(np.exp(-PATIENT * time_s) @ probability) > rise, PATIENT, 0.0)
    sought = np.flatnonzero(urgency)
    rate, target = urgency[sought], rise / values_nanousd[sought]
    for _ in range(ROUNDS if len(sought) else 0):
        left = np.exp(np.multiply.outer(-rate, time_s))
        added = left @ probability
        step = np.log(added / target) * added / (left @ (probability * time_s))
        rate += step
        if np.all(step <= EXACT * rate):
            break
    urgency[sought] = rate
    return urgency
