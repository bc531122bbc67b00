"""The interval of urgency that a customer's choice of tier implies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.statistics import Offer
from pricing.market.answers import Floats, Ints

PATIENT = 1e-9
"""The urgency that is indifferent between two tiers is searched from this rate on, 1/s ..."""

EXACT, ROUNDS = 1e-14, 200
"""... until a round changes it by no more than this share, or for so many rounds; a dozen usually do."""

BLUR_MOST = 0.05
"""How much worth that nobody saw may be hidden in a tier, as a share of what the tier costs more than the next."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers as customers of exponential patience see them.

    Attributes:
        tokens: lengths, rising. Shape (m,).
        probability: that the answer ends there. Shape (m,).
        time_s: when it does, seconds after the call. Shape (m,).
        value_nanousd: the worth of an answer at once, v.
    """

    tokens: Ints
    probability: Floats
    time_s: Floats
    value_nanousd: float

    def within(self, cap_tokens: int | None) -> int:
        """Return the number of lengths within a cap."""
        return len(self.tokens) if cap_tokens is None else int(np.searchsorted(self.tokens, cap_tokens, side="right"))

    def worth(self, urgency_per_s: float, cap_tokens: int | None) -> float:
        """Return u(r, N), the worth of a conversation with this cap, nano-units."""
        end = self.within(cap_tokens)
        discount = np.exp(-urgency_per_s * self.time_s[:end])
        return self.value_nanousd * float(np.dot(discount, self.probability[:end]))


@dataclass(frozen=True, slots=True)
class Intervals:
    """Who takes which tier of one offer: tier k is for ``low[k] < r <= high[k]``; place 0 is for none of them.

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

    Between two tiers j < k the indifferent urgency solves u(r, N_k) - u(r, N_j) = p_k - p_j; who is more patient
    takes k. The left side falls in r, so there is one or none. Tier k is best between the largest of these
    against higher tiers and the smallest against lower ones, no tier at all among them.

    Identifying assumptions: customers know how long answers are by their distribution, expect v from each, and take
    what is best for this conversation, without a thought of resuming it. Not identified: where within its interval
    an urgency lies.

    Raises:
        CannotEstimate: prices or caps fall from one tier to the next.
    """
    return intervals_at(offer, answers, np.array([answers.value_nanousd]))[0]


def intervals_at(offer: Offer, answers: Answers, values_nanousd: Floats) -> list[Intervals]:
    """Return the same at each of several values of an answer, shape (values,); that of ``answers`` is not used."""
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
    """Return whether an offer has a tier whose cap lies beyond all lengths seen, where too much may be worth having.

    The answers nobody saw the end of could be worth at most v e^(-r t) each, as if all ended with the next token. Where
    that is more than ``BLUR_MOST`` of the rise in price, the urgency that is indifferent is not known.
    """
    unfinished = 1.0 - float(answers.probability.sum())
    rises = np.diff((0, *offer.prices_nanousd))
    beyond = np.array([cap is None or cap > answers.tokens[-1] for cap in offer.caps_tokens])
    at_most = answers.value_nanousd * unfinished * np.exp(-intervals.high[1:] * answers.time_s[-1])
    return bool(np.any(beyond & (at_most > BLUR_MOST * rises)))


def taken_by(offer: Offer, answers: Answers) -> Intervals:
    """Return the urgencies that each tier of an offer may be best for, whatever lies beyond all lengths seen.

    Where that matters, a threshold lies between the one for which nothing there is worth anything and the one for which
    all of it ends with the next token. Tiers on both sides of such a threshold are not told apart: each has the interval
    of all of them together.
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

    Who is indifferent has v E[e^(-r t); answer within the cap] = p. The urgency is the quantile of *all* customers,
    buyers and refusers, at the share that buys; so the distribution must come from when all were served (observe
    mode), not from the buyers alone. Not identified: that v is the same for all.

    Args:
        answers: lengths and times; its own value is not used.
        cap_tokens: the smallest tier's cap.
        price_nanousd: its price.
        urgency_per_s: the quantile.

    Raises:
        CannotEstimate: no answer is ever seen within that cap.
    """
    unit = answers.worth(urgency_per_s, cap_tokens) / answers.value_nanousd
    if unit <= 0:
        raise CannotEstimate("No answer fits the smallest cap, so refusing it says nothing of an answer's worth.")
    return price_nanousd / unit


def _indifferent(answers: Answers, caps: tuple[int | None, int | None], rise: int, values_nanousd: Floats) -> Floats:
    """Return the urgency that is indifferent between two caps, at each value: 0 if all prefer the smaller, inf if all the larger.

    What the larger cap adds, v E[e^(-r t); answer between the caps], has a logarithm that is convex in r and falls. So
    Newton's method on the logarithm, begun at a lower rate, rises to the root and never passes it.
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
