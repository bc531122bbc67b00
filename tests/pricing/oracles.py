"""Slow, obvious solvers that do not use the theory: a linear program over lotteries, and plain search."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from pricing.market.worth import Valuation

Array = np.ndarray[Any, np.dtype[np.float64]]


def left(delay: str, urgency: float, time_s: float) -> float:
    """Return the share of worth that is left after a wait."""
    families = {
        "exponential": np.exp(-urgency * time_s),
        "hyperbolic": 1 / (1 + urgency * time_s),
        "linear": max(0.0, 1 - urgency * time_s),
        "sunk_linear": 1.0,
    }
    return float(families[delay])


def tables(valuation: Valuation) -> tuple[Array, Array]:
    """Return worth u_i(N) and cost C_i(N) for N = 0, 1, ..., m, by plain loops. Shapes (n, m + 1)."""
    steps, n = valuation.steps, len(valuation.share)
    worth, cost = np.zeros((n, len(steps.tokens) + 1)), np.zeros((n, len(steps.tokens) + 1))
    for i in range(n):
        r, v = valuation.urgency_per_s[i], valuation.value[i]
        for k in range(len(steps.tokens)):
            t, f, s = steps.time_s[k], steps.probability[k], steps.survival[k]
            d = left(valuation.delay, r, t)
            waited = v * r * s * (t - (steps.time_s[k - 1] if k else 0.0)) if valuation.sinks else 0.0
            worth[i, k + 1] = worth[i, k] + v * d * f - waited
            cost[i, k + 1] = cost[i, k] + valuation.cost_per_token * steps.size[k] * s * (d if valuation.stops else 1.0)
    return worth, cost


def lottery_program(valuation: Valuation) -> float:
    """Return the highest profit of any mechanism: lotteries over caps, a price for each type, and all ordered pairs."""
    worth, cost = tables(valuation)
    unit = worth.max()
    worth, cost = worth / unit, cost / unit
    n, caps = worth.shape
    share = valuation.share
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    row = 0
    for i in range(n):
        for other in [None, *(k for k in range(n) if k != i)]:
            # A type pays at most its own worth, less its surplus in the other type's tier.
            entries = [(i * caps + k, -worth[i, k]) for k in range(caps)] + [(n * caps + i, 1.0)]
            if other is not None:
                entries += [(other * caps + k, worth[i, k]) for k in range(caps)] + [(n * caps + other, -1.0)]
            for column, value in entries:
                rows.append(row)
                columns.append(column)
                values.append(value)
            row += 1
    choice = coo_matrix(
        (np.ones(n * caps), (np.repeat(np.arange(n), caps), np.arange(n * caps))), shape=(n, n * caps + n)
    )
    solved = linprog(
        np.concatenate(((share[:, None] * cost).ravel(), -share)),
        A_ub=coo_matrix((values, (rows, columns)), shape=(row, n * caps + n)).tocsr(),
        b_ub=np.zeros(row),
        A_eq=choice.tocsr(),
        b_eq=np.ones(n),
        bounds=[(0, None)] * (n * caps) + [(None, None)] * n,
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert solved.status == 0, solved.message
    return float(-solved.fun) * unit


def exhaustive(valuation: Valuation, only: set[int] | None = None) -> list[float]:
    """Return the profit of the best menus of at most 0, 1, 2, ... caps, by trying every menu of falling caps.

    ``only`` are the permitted caps, with 0 for none.
    """
    worth, cost = tables(valuation)
    n, caps = worth.shape
    share = valuation.share
    best = [0.0] * (n + 1)
    for falling in combinations_with_replacement(range(caps - 1, -1, -1), n):
        if only is not None and not set(falling) <= only:
            continue
        price, profit = 0.0, 0.0
        for i in range(n - 1, -1, -1):
            below = falling[i + 1] if i + 1 < n else 0
            price += worth[i, falling[i]] - worth[i, below]
            profit += share[i] * (price - cost[i, falling[i]])
        used = len(set(falling) - {0})
        best[used] = max(best[used], profit)
    return [max(best[: used + 1]) for used in range(n + 1)]


def entry_by_entry(valuation: Valuation) -> float:
    """Return the profit of the best menu of caps by the plain recursion over types and caps."""
    worth, cost = tables(valuation)
    n, caps = worth.shape
    reached = np.concatenate(([0.0], np.cumsum(valuation.share)))
    best = [0.0] * caps
    for i in range(n - 1, -1, -1):
        highest = -np.inf
        for cap in range(caps):
            surplus = reached[i + 1] * worth[i, cap] - valuation.share[i] * cost[i, cap]
            surplus -= reached[i] * worth[i - 1, cap] if i else 0.0
            highest = max(highest, surplus + best[cap])
            best[cap] = highest
    return float(best[-1])
