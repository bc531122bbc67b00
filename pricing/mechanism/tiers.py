"""A menu short enough for people to read: the K caps that earn the most, and the types that take each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pricing.market.answers import Ints
from pricing.market.worth import Valuation
from pricing.mechanism.mechanism import Allocation, lengthened
from pricing.mechanism.surplus import Bits, last_flag, surplus_rows


def best_tiers(valuation: Valuation, most: int) -> list[Allocation]:
    """Return the most profitable menus of at most 1, 2, ..., ``most`` caps, exactly, each with its caps by type.

    From the most urgent type up, with k caps used from type i on and type i at cap m,
    F_(i,k)(m) = B_i(m) + max(F_(i+1,k)(m), max over m' < m of F_(i+1,k-1)(m')): the next type stays at the cap, or the
    cap falls to the best lower cap. Time O(types x steps x most); two bits per cell store which of the two is better and
    where the best lower cap is.
    """
    types, steps = len(valuation.share), len(valuation.steps.tokens)
    most = max(1, min(most, types, steps))
    stays = np.empty((types, most, (steps + 8) // 8), dtype=np.uint8)
    reached = np.empty_like(stays)
    best = np.full((most, steps + 1), -np.inf)
    lower = np.full((most, steps + 1), -np.inf)
    lower[0, 1:] = 0.0
    highest = np.empty_like(best)
    surplus = np.zeros(steps + 1)
    for row, added in surplus_rows(valuation):
        np.cumsum(added, out=surplus[1:])
        # Doubles that are not negative have the same order as their bits read as integers, and integers are compared
        # faster. Negative doubles compare below all others, but not in their own order. That does no harm: no best menu
        # contains a negative value, because leaving the remaining types unserved earns 0.
        if valuation.everyone:
            np.maximum.accumulate(best, axis=1, out=highest)
        else:
            np.maximum.accumulate(best.view(np.int64), axis=1, out=highest.view(np.int64))
        reached[row] = np.packbits(best == highest, axis=1)
        lower[1:, 1:] = highest[:-1, :-1]
        stays[row] = np.packbits(best >= lower, axis=1)
        np.maximum(best, lower, out=best)
        best += surplus
        best[:, 0] = -np.inf
        if valuation.everyone:
            lower[0] = -np.inf
    menus: list[Allocation] = []
    for lower_caps in range(most):
        cap = int(np.flatnonzero(best[lower_caps] == best[lower_caps].max())[-1])
        profit = float(best[lower_caps, cap])
        previous = menus[-1] if menus else Allocation(np.zeros(types, dtype=np.int64), _least(valuation))
        improves = profit > previous.profit
        caps = lengthened(valuation, _read_off(stays, reached, lower_caps, cap))
        menus.append(Allocation(caps, profit) if improves else previous)
    return menus


def _read_off(stays: Bits, reached: Bits, lower_caps: int, cap: int) -> Ints:
    """Return the caps by type of the menu that has ``lower_caps`` lower caps besides ``cap``."""
    caps = np.zeros(len(stays), dtype=np.int64)
    caps[0] = cap
    for row in range(len(stays) - 1):
        if not _bit(stays[row], lower_caps, cap):
            if lower_caps == 0:
                break
            lower_caps -= 1
            cap = last_flag(reached[row, lower_caps], cap - 1)
        caps[row + 1] = cap
    return caps


def _bit(bits: Bits, lower_caps: int, cap: int) -> bool:
    return bool(bits[lower_caps, cap >> 3] >> (7 - (cap & 7)) & 1)


def single_plan(valuation: Valuation, worth: npt.NDArray[np.float64], tokens: npt.NDArray[np.float64]) -> float:
    """Return the profit of the best single plan without a cap, 0 where no such plan earns anything.

    Args:
        valuation: the market in numbers.
        worth: worth of the longest cap to each type, nano-units. Shape (n,).
        tokens: average tokens that serving the longest cap to each type takes. Shape (n,).
    """
    costs = np.cumsum(valuation.share * tokens) * valuation.cost_per_token
    return max(0.0, float(np.max(valuation.cumulative * worth - costs)))


def _least(valuation: Valuation) -> float:
    """Return the profit of selling nothing, minus infinity where every type has to be served."""
    return -np.inf if valuation.everyone else 0.0
