"""The full menu: the cap of each type that earns the most, and the prices that make each type choose its own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.worth import Valuation, blocks
from pricing.mechanism.surplus import Bits, climb, last_flag, surplus_rows


@dataclass(frozen=True, slots=True)
class Allocation:
    """The cap of each type, and the profit before prices are rounded.

    Attributes:
        caps: cap of each type in steps, weakly falling with urgency; 0 is not served. Shape (n,).
        profit: nano-units for each conversation offered.
    """

    caps: Ints
    profit: float


def iron(log_share: Floats, urgency_per_s: Floats) -> Floats:
    """Return the optimal cap of each type, in seconds, when serving costs nothing.

    The caps are the slopes of the concave hull of ln Q over r: neighbouring types whose raw slopes rise are pooled, and
    a pool takes the slope of its chord.

    Args:
        log_share: ln Q_i, logarithm of the cumulative share, types from patient to urgent. Where worth falls with
            urgency, ln(Q_i v_i). Shape (n,).
        urgency_per_s: r_i, strictly increasing. 1/s, shape (n,).

    Returns:
        Caps, weakly falling. Seconds, shape (n,); the first is inf. A cap may be negative where ``log_share`` falls:
        that type is not served.

    Source: derived in pricing/README.md, "Caps without cost"; the idea is Zhong (2025).
    """
    x, y = urgency_per_s.tolist(), log_share.tolist()
    hull: list[int] = []
    for point in range(len(x)):
        while len(hull) > 1 and _slope(x, y, hull[-2], hull[-1]) <= _slope(x, y, hull[-1], point):
            hull.pop()
        hull.append(point)
    caps = np.empty(len(x))
    caps[0] = np.inf
    for start, end in pairwise(hull):
        caps[start + 1 : end + 1] = _slope(x, y, start, end)
    return caps


def _slope(x: list[float], y: list[float], start: int, end: int) -> float:
    return (y[end] - y[start]) / (x[end] - x[start])


def full_menu(valuation: Valuation) -> Allocation:
    """Return the menu of caps that earns the most, one cap for each type.

    Without serving cost and with exponential delay the caps are the slopes of a concave hull, rounded down to the
    grid, which is exact: a step is worth serving to the types whose hull slope has not been reached when it arrives.
    Otherwise they come from the exact dynamic program over falling caps.
    """
    if has_hull(valuation):
        caps = np.searchsorted(valuation.steps.time_s, hull_caps(valuation), side="right").astype(np.int64)
        return Allocation(caps, enveloped(valuation))
    return search(valuation)


def has_hull(valuation: Valuation) -> bool:
    """Return whether the caps have a closed form.

    They have where serving costs nothing, delay is exponential, only profit counts, and no type has to be served.
    """
    profit_only = not valuation.surplus_weight and not valuation.everyone
    return valuation.cost_per_token == 0 and valuation.delay == "exponential" and profit_only


def hull_caps(valuation: Valuation) -> Floats:
    """Return the optimal caps where ``has_hull``, in seconds after the call. Shape (n,)."""
    return iron(np.log(valuation.cumulative * valuation.value), valuation.urgency_per_s)


def enveloped(valuation: Valuation) -> float:
    """Return the profit of the full menu as the sum over steps of v f max_k Q_k d(r_k, t).

    The formula holds where serving costs nothing and the wait multiplies the worth; it does not involve the caps.
    """
    best = np.zeros(len(valuation.steps.tokens))
    weights = valuation.cumulative * valuation.value
    for rows in blocks(len(weights), len(best)):
        np.maximum(best, (valuation.left(rows) * weights[rows, None]).max(axis=0), out=best)
    return float(np.dot(best, valuation.steps.probability))


def first_best(valuation: Valuation) -> float:
    """Return sum_i q_i max_N (u_i(N) - C_i(N)): the profit if every type were known. Nano-units."""
    total = 0.0
    for rows in blocks(len(valuation.share), len(valuation.steps.tokens)):
        left = valuation.left(rows)
        net = valuation.gains(rows, left)
        if valuation.cost_per_token:
            net -= valuation.served(left) * valuation.cost_per_token
        best = np.maximum(np.cumsum(net, axis=1, out=net).max(axis=1), 0.0)
        total += float(np.dot(valuation.share[rows], best))
    return total


def search(valuation: Valuation) -> Allocation:
    """Return the most profitable caps that fall with urgency, by dynamic programming in O(types x steps).

    From the most urgent type up, V_i(m) = max over N <= m of B_i(N) + V_(i+1)(N) is a running maximum, stored as its
    increment at each step. One bit per cell stores where the maximum is reached, and the caps are read off from the most
    patient type down. A tie goes to the larger cap. Exact among menus of caps, for any cost, length of answers and
    family of delay.
    """
    types, steps = len(valuation.share), len(valuation.steps.tokens)
    least = int(valuation.everyone)
    reached = np.empty((types, (steps - least + 8) // 8), dtype=np.uint8)
    rising = np.zeros(steps)
    for row, added in surplus_rows(valuation):
        rising += added
        reached[row] = np.packbits(climb(rising[least:]))
    caps = _read_off(reached, steps - least) + least
    return Allocation(lengthened(valuation, caps), float(np.sum(rising)))


def lengthened(valuation: Valuation, caps: Ints) -> Ints:
    """Return the caps, with the largest cap at the last step where serving costs nothing.

    A longer largest cap raises the price of its own tier and no other price, so it is best not to cap that tier. The
    solver cannot see the gain of the most distant steps, because the gain is below the precision of doubles.
    """
    if valuation.cost_per_token or valuation.sinks or not caps[0]:
        return caps
    return np.where(caps == caps[0], len(valuation.steps.tokens), caps).astype(np.int64)


def _read_off(reached: Bits, steps: int) -> Ints:
    caps = np.empty(len(reached), dtype=np.int64)
    cap = steps
    for row, bits in enumerate(reached):
        cap = last_flag(bits, cap)
        caps[row] = cap
    return caps
