"""An upper bound on the profit of any mechanism, by weak duality, which does not depend on the correctness of a solver."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.worth import ROUNDING, Valuation, blocks

Entry = tuple[int, int, float]
"""(l, k, lambda): the weight on the constraint that type l does not prefer the tier of the more urgent type k."""


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Weights on the downward incentive constraints, e of them.

    Attributes:
        patient: the type l that must not prefer type k's tier. Shape (e,).
        urgent: the more urgent type k. Shape (e,).
        flow: lambda_lk, not negative. Shape (e,).
    """

    patient: Ints
    urgent: Ints
    flow: Floats

    def wrong(self, share: Floats) -> str | None:
        """Return why the multipliers are invalid, or None; a type may pass on at most its share plus what it receives."""
        if not len(self.patient) == len(self.urgent) == len(self.flow):
            return "the multipliers are not three lists of one length"
        if np.any(self.patient < 0) or np.any(self.patient >= self.urgent) or np.any(self.urgent >= len(share)):
            return "a multiplier is not of a more patient type on a more urgent one"
        if not np.all(np.isfinite(self.flow)) or np.any(self.flow < 0):
            return "a multiplier is negative or not finite"
        terms: list[list[float]] = [[type_share] for type_share in share.tolist()]
        for patient, urgent, flow in self.entries():
            terms[patient].append(-flow)
            terms[urgent].append(flow)
        # ``fsum`` rounds once, so the sign of the sum is right.
        short = next((row for row, balance in enumerate(terms) if math.fsum(balance) < 0), None)
        return None if short is None else f"the multipliers of type {short} pass on more than it receives"

    def entries(self) -> list[Entry]:
        return list(zip(self.patient.tolist(), self.urgent.tolist(), self.flow.tolist(), strict=True))


def upper_bound(valuation: Valuation, multipliers: Multipliers) -> float:
    """Return an upper bound on the profit of any mechanism paid at the start, nano-units for each conversation offered.

    The bound is the value of the Lagrangian plus a bound on the rounding of its computation.
    """
    return lagrangian(valuation, multipliers) + bound_error(valuation, multipliers)


def lagrangian(valuation: Valuation, multipliers: Multipliers) -> float:
    """Return the value of the Lagrangian, nano-units for each conversation offered.

    Prices drop out of the Lagrangian, and the rest separates by type:
    sum_k max_N [out_k u_k(N) - sum_l lambda_lk u_l(N) - q_k C_k(N)] with out_k = q_k + sum_l lambda_lk.
    """
    types, steps = len(valuation.share), len(valuation.steps.tokens)
    received = np.bincount(multipliers.urgent, multipliers.flow, minlength=types)
    passed = valuation.share + received
    direct = np.zeros(types)
    skipping: dict[int, list[tuple[int, float]]] = {}
    for patient, urgent, flow in multipliers.entries():
        if patient == urgent - 1:
            direct[urgent] += flow
        else:
            skipping.setdefault(urgent, []).append((patient, flow))
    total = []
    for rows in blocks(types, steps):
        has_previous = min(rows.start, 1)
        with_previous = slice(rows.start - has_previous, rows.stop)
        left = valuation.left(with_previous)
        gains = valuation.gains(with_previous, left)
        added = gains[has_previous:] * passed[rows, None]
        added[1 - has_previous :] -= gains[: len(gains) - 1] * direct[rows, None][1 - has_previous :]
        for row in range(rows.start, rows.stop):
            for patient, flow in skipping.get(row, ()):
                skipped_type = slice(patient, patient + 1)
                added[row - rows.start] -= flow * valuation.gains(skipped_type, valuation.left(skipped_type))[0]
        if valuation.cost_per_token:
            added -= valuation.served(left[has_previous:]) * (valuation.share[rows, None] * valuation.cost_per_token)
        total += np.maximum(np.cumsum(added, axis=1).max(axis=1), 0.0).tolist()
    return math.fsum(total)


def bound_error(valuation: Valuation, multipliers: Multipliers) -> float:
    """Return the largest rounding error of the Lagrangian's value, nano-units for each conversation offered."""
    steps = valuation.steps
    weight = 2.0 * (float(np.sum(valuation.share)) + float(np.sum(multipliers.flow)))
    spent = valuation.cost_per_token * float(np.dot(steps.size, steps.survival))
    worth = valuation.worth_most
    return (len(steps.tokens) + 40) * ROUNDING * (weight * worth + 2 * spent) + weight * worth * steps.left_out
