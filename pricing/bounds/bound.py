"""An upper bound on what any mechanism can earn, by weak duality: no solver has to be believed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.worth import ROUNDING, Valuation, blocks

Entry = tuple[int, int, float]
"""(l, k, lambda): the weight on the constraint that type l does not want the tier of the more urgent type k."""


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Weights on the downward incentive constraints, e of them.

    Attributes:
        patient: the type l that must not want the other's tier. Shape (e,).
        urgent: the more urgent type k whose tier it is. Shape (e,).
        flow: lambda_lk, not negative. Shape (e,).
    """

    patient: Ints
    urgent: Ints
    flow: Floats

    def wrong(self, share: Floats) -> str | None:
        """Return what makes these no multipliers, or None: a type passes on at most its share and what it receives."""
        if not len(self.patient) == len(self.urgent) == len(self.flow):
            return "the multipliers are not three lists of one length"
        if np.any(self.patient < 0) or np.any(self.patient >= self.urgent) or np.any(self.urgent >= len(share)):
            return "a multiplier is not of a more patient type on a more urgent one"
        if not np.all(np.isfinite(self.flow)) or np.any(self.flow < 0):
            return "a multiplier is negative or not finite"
        terms: list[list[float]] = [[one] for one in share.tolist()]
        for patient, urgent, flow in self.entries():
            terms[patient].append(-flow)
            terms[urgent].append(flow)
        # A sum that is rounded once has the right sign.
        short = next((row for row, balance in enumerate(terms) if math.fsum(balance) < 0), None)
        return None if short is None else f"the multipliers of type {short} pass on more than it receives"

    def entries(self) -> list[Entry]:
        return list(zip(self.patient.tolist(), self.urgent.tolist(), self.flow.tolist(), strict=True))


def upper_bound(valuation: Valuation, multipliers: Multipliers) -> float:
    """Return what no mechanism that is paid at the start can exceed, in nano-units for each conversation offered.

    A bound on the rounding of the computation is added to the value of the Lagrangian.
    """
    return lagrangian(valuation, multipliers) + bound_error(valuation, multipliers)


def lagrangian(valuation: Valuation, multipliers: Multipliers) -> float:
    """Return the value of the Lagrangian, nano-units for each conversation offered.

    Prices drop out of it, and what is left falls apart by type:
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
        before = min(rows.start, 1)
        with_before = slice(rows.start - before, rows.stop)
        left = valuation.left(with_before)
        gains = valuation.gains(with_before, left)
        added = gains[before:] * passed[rows, None]
        added[1 - before :] -= gains[: len(gains) - 1] * direct[rows, None][1 - before :]
        for row in range(rows.start, rows.stop):
            for patient, flow in skipping.get(row, ()):
                one = slice(patient, patient + 1)
                added[row - rows.start] -= flow * valuation.gains(one, valuation.left(one))[0]
        if valuation.cost_per_token:
            added -= valuation.served(left[before:]) * (valuation.share[rows, None] * valuation.cost_per_token)
        total += np.maximum(np.cumsum(added, axis=1).max(axis=1), 0.0).tolist()
    return math.fsum(total)


def bound_error(valuation: Valuation, multipliers: Multipliers) -> float:
    """Return what rounding can do to the value of the Lagrangian at most, nano-units for each conversation offered."""
    steps = valuation.steps
    weight = 2.0 * (float(np.sum(valuation.share)) + float(np.sum(multipliers.flow)))
    spent = valuation.cost_per_token * float(np.dot(steps.size, steps.survival))
    worth = valuation.worth_most
    return (len(steps.tokens) + 40) * ROUNDING * (weight * worth + 2 * spent) + weight * worth * steps.left_out
