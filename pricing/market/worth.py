"""What a capped conversation is worth to each type, and how many tokens serving it takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pricing.market.answers import Floats, Ints, Steps, steps_of
from pricing.market.fields import NotAMarket
from pricing.market.market import Market


def remaining(delay: str, urgency_per_s: Floats, time_s: Floats) -> Floats:
    """Return the share of an answer's worth that remains after a wait.

    Args:
        delay: ``exponential`` e^(-r t), ``hyperbolic`` 1/(1 + r t), ``linear`` (1 - r t)^+,
            ``sunk_linear`` 1: the wait is subtracted instead, with or without an answer.
        urgency_per_s: r, 1/s. Shape (n,).
        time_s: t, seconds. Shape (m,).

    Returns:
        Shares in [0, 1], shape (n, m).
    """
    waited = urgency_per_s[:, None] * time_s
    if delay == "exponential":
        return np.exp(np.negative(waited, out=waited), out=waited)
    if delay == "hyperbolic":
        return np.reciprocal(np.add(waited, 1.0, out=waited), out=waited)
    if delay == "linear":
        return np.maximum(np.subtract(1.0, waited, out=waited), 0.0, out=waited)
    return np.ones_like(waited)


CELLS_AT_ONCE = 1 << 17
"""Types times steps computed at once: 1 MB an array, which stays in the processor's cache."""

CELLS_KEPT = 1 << 22
"""The most types times steps for which the shares of worth left are computed once and kept: 32 MB."""

CELLS_MAX = 1 << 29
"""The most types times steps of a market, which take some seconds to compute."""

ERROR_MAX = 0.25
"""The largest error of a worth, in nano-units, with which prices are still right to one nano-unit."""

ROUNDING = 2.0**-53
"""Half the distance from 1 to the next double: the largest relative error of one operation."""


@dataclass(frozen=True, slots=True)
class Valuation:
    """A market in numbers: n types, sorted from patient to urgent, and m steps.

    Attributes:
        urgency_per_s: r_i, strictly increasing. Shape (n,).
        share: q_i, positive. Shape (n,).
        cumulative: Q_i = q_1 + ... + q_i. Shape (n,).
        value: v_i, nano-units, weakly falling. Shape (n,).
        delay: the family of delay.
        steps: the grid of caps.
        cost_per_token: nano-units.
        stops: the model stops when the customer leaves; otherwise it runs on to the cap.
        kept: the share of worth left when each step arrives, if stored. Shape (n, m).
        surplus_weight: the weight of customers' surplus against profit in the aim, from 0 to 1.
        everyone: whether a menu has to serve every type.
    """

    urgency_per_s: Floats
    share: Floats
    cumulative: Floats
    value: Floats
    delay: str
    steps: Steps
    cost_per_token: float
    stops: bool
    kept: Floats | None = None
    surplus_weight: float = 0.0
    everyone: bool = False

    @property
    def own_weight(self) -> Floats:
        """Return what a unit of each type's own worth adds to the aim: (1 - a) Q_i + a q_i. Shape (n,).

        The weight of customers' surplus is a.
        """
        return (1 - self.surplus_weight) * self.cumulative + self.surplus_weight * self.share

    @property
    def rent_weight(self) -> Floats:
        """Return what a unit of rent to each type and all more patient types takes from the aim: (1 - a) Q_i. Shape (n,).

        The weight of customers' surplus is a.
        """
        return (1 - self.surplus_weight) * self.cumulative

    @property
    def sinks(self) -> bool:
        """Return whether waiting is a separate cost, borne with or without an answer."""
        return self.delay == "sunk_linear"

    def only(self, rows: slice) -> Valuation:
        """Return the same market for some of its types."""
        return replace(
            self,
            urgency_per_s=self.urgency_per_s[rows],
            share=self.share[rows],
            cumulative=self.cumulative[rows],
            value=self.value[rows],
            kept=None if self.kept is None else self.kept[rows],
        )

    def at(self, rows: Ints, step: int) -> Valuation:
        """Return the same market for some of its types and one of its steps."""
        return replace(
            self,
            urgency_per_s=self.urgency_per_s[rows],
            share=self.share[rows],
            cumulative=self.cumulative[rows],
            value=self.value[rows],
            steps=self.steps.only(step),
            kept=None if self.kept is None else self.kept[rows, step : step + 1],
        )

    @property
    def worth_most(self) -> float:
        """Return a bound on the size of every worth, nano-units."""
        most = float(self.value.max())
        if self.sinks:
            most += float(np.max(self.value * self.urgency_per_s)) * float(
                np.dot(self.steps.survival, self.steps.wait_s)
            )
        return most

    def left(self, rows: slice) -> Floats:
        """Return the share of worth left when each step arrives; do not change it. Shape (types in rows, m)."""
        if self.kept is not None:
            return self.kept[rows]
        return remaining(self.delay, self.urgency_per_s[rows], self.steps.time_s)

    def gains(self, rows: slice, left: Floats) -> Floats:
        """Return the worth that each step adds. Nano-units, shape (types in rows, m).

        A step adds v d(r, t) f; where waiting is sunk, v f less v r for each second waited without an answer.
        """
        gains = self.unit_gains(rows, left)
        gains *= self.value[rows, None]
        return gains

    def unit_gains(self, rows: slice, left: Floats) -> Floats:
        """Return the gains for an answer that is worth 1."""
        gains: Floats = left * self.steps.probability
        if self.sinks:
            gains -= self.urgency_per_s[rows, None] * (self.steps.survival * self.steps.wait_s)
        return gains

    def served(self, left: Floats) -> Floats:
        """Return the average tokens that serving each step takes. Shape (types, m)."""
        generated = self.steps.size * self.steps.survival
        return left * generated if self.stops else np.broadcast_to(generated, left.shape)


def valuation_of(market: Market) -> Valuation:
    """Return a market in numbers.

    Raises:
        NotAMarket: types, steps, or nano-units in an answer's value are too many to compute exactly enough.
    """
    share, steps = np.array(market.share), steps_of(market)
    if len(share) * len(steps.tokens) > CELLS_MAX:
        raise NotAMarket(
            f"{len(share):,} types times {len(steps.tokens):,} steps are too many; give fewer points or coarser steps."
        )
    valuation = Valuation(
        urgency_per_s=np.array(market.urgency_per_s),
        share=share,
        cumulative=np.cumsum(share),
        value=np.array(market.value_nanousd),
        delay=market.delay,
        steps=steps,
        cost_per_token=market.cost_nanousd_per_token,
        stops=market.cost_stops,
    )
    if worth_error(valuation, min(len(share), len(steps.tokens))) > ERROR_MAX:
        raise NotAMarket(
            "An answer's value is too many nano-units for prices to be exact to one of them; lower value_nanousd."
        )
    if len(share) * len(steps.tokens) > CELLS_KEPT:
        return valuation
    remaining_shares = valuation.left(slice(None))
    remaining_shares.flags.writeable = False
    return replace(valuation, kept=remaining_shares)


def blocks(types: int, steps: int) -> Iterator[slice]:
    """Return slices of types, each few enough to be held in memory with all their steps."""
    rows = max(1, CELLS_AT_ONCE // max(steps, 1))
    for first in range(0, types, rows):
        yield slice(first, min(types, first + rows))


def worth_at(valuation: Valuation, caps: Ints) -> Floats:
    """Return the worth of each cap to each type.

    Args:
        valuation: n types, m steps.
        caps: caps as numbers of steps, weakly rising. Shape (k,).

    Returns:
        Nano-units, shape (n, k), each within ``worth_error`` of its true value.
    """
    worth = np.empty((len(valuation.share), len(caps)))
    for rows in blocks(len(valuation.share), len(valuation.steps.tokens)):
        worth[rows] = summed_to(valuation.gains(rows, valuation.left(rows)), caps)
    return worth


def tokens_at(valuation: Valuation, caps: Ints) -> Floats:
    """Return the average tokens that serving each cap to each type takes. Shape (n, k); caps weakly rising."""
    tokens = np.empty((len(valuation.share), len(caps)))
    for rows in blocks(len(valuation.share), len(valuation.steps.tokens)):
        tokens[rows] = summed_to(valuation.served(valuation.left(rows)), caps)
    return tokens


def own_tokens(valuation: Valuation, by_type: Ints) -> Floats:
    """Return the average tokens that serving each type its own cap takes. Shapes (n,) -> (n,)."""
    tokens = np.empty(len(by_type))
    for rows in blocks(len(by_type), len(valuation.steps.tokens)):
        served = valuation.served(valuation.left(rows))
        within = np.arange(served.shape[1]) < by_type[rows, None]
        tokens[rows] = np.sum(served, axis=1, where=within)
    return tokens


def summed_to(terms: Floats, caps: Ints) -> Floats:
    """Return the sums of the first ``caps`` terms of each row. Shapes (n, m), (k,) rising -> (n, k).

    Between two caps the terms are added in pairs, then the pairs in pairs, so that the error grows with the logarithm
    of the number of terms, not with the number.
    """
    sums = np.empty((len(terms), len(caps)))
    start = 0
    for place, cap in enumerate(caps):
        sums[:, place] = _in_pairs(terms[:, start:cap])
        start = int(cap)
    return np.cumsum(sums, axis=1, out=sums)


def _in_pairs(terms: Floats) -> Floats:
    while terms.shape[1] > 1:
        half = terms.shape[1] // 2
        added = terms[:, :half] + terms[:, half : 2 * half]
        if terms.shape[1] % 2:
            added[:, 0] += terms[:, -1]
        terms = added
    return terms[:, 0] if terms.shape[1] else np.zeros(len(terms))


def worth_error(valuation: Valuation, caps: int) -> float:
    """Return a bound on the error of ``worth_at`` for this many caps, in nano-units.

    A term v d f carries at most 16 roundings: three in the wait r t, at most x e^(-x) < 1/2 of which reaches d; four
    ulp in the exponential; the rest in f, v and their products. Adding in pairs rounds a term at most twice per
    halving, and once per cap past which it is carried. All terms together are at most v. Where waiting is sunk, the
    share that still waits is a running difference with one rounding per step, weighed by the seconds of the step.
    """
    steps = valuation.steps
    halvings = max(1, math.ceil(math.log2(len(steps.tokens) + 1)))
    error = valuation.worth_most * ((16 + 2 * halvings + caps) * ROUNDING + steps.left_out)
    if valuation.sinks:
        waited = float(np.max(valuation.value * valuation.urgency_per_s)) * float(steps.time_s[-1])
        error += waited * len(steps.tokens) * ROUNDING
    return error
