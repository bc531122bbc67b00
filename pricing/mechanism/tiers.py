"""A menu that people can read: the K caps that earn the most, and who takes which."""

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
    cap falls to the best lower one. Time O(types x steps x most); which of the two, and where the best lower cap is,
    are kept as two bits a cell.
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
        # Doubles that are not negative are in the order of their bits, and whole numbers are compared faster. What is
        # negative is put too low: it is in no best menu, which would rather leave the types from here on unserved.
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
    for used in range(most):
        cap = int(np.flatnonzero(best[used] == best[used].max())[-1])
        profit = float(best[used, cap])
        previous = menus[-1] if menus else Allocation(np.zeros(types, dtype=np.int64), _least(valuation))
        better = profit > previous.profit
        caps = lengthened(valuation, _read_off(stays, reached, used, cap))
        menus.append(Allocation(caps, profit) if better else previous)
    return menus


def _read_off(stays: Bits, reached: Bits, used: int, cap: int) -> Ints:
    """Return the caps by type of the menu that has ``used`` lower caps besides ``cap``."""
    caps = np.zeros(len(stays), dtype=np.int64)
    caps[0] = cap
    for row in range(len(stays) - 1):
        if not _bit(stays[row], used, cap):
            if used == 0:
                break
            used -= 1
            cap = last_flag(reached[row, used], cap - 1)
        caps[row + 1] = cap
    return caps


def _bit(bits: Bits, used: int, cap: int) -> bool:
    return bool(bits[used, cap >> 3] >> (7 - (cap & 7)) & 1)


def single_plan(valuation: Valuation, worth: npt.NDArray[np.float64], tokens: npt.NDArray[np.float64]) -> float:
    """Return the profit of the best single plan without a cap, 0 where none earns.

    Args:
        valuation: the market in numbers.
        worth: worth of the longest cap to each type, nano-units. Shape (n,).
        tokens: tokens that serving it takes. Shape (n,).
    """
    costs = np.cumsum(valuation.share * tokens) * valuation.cost_per_token
    return max(0.0, float(np.max(valuation.cumulative * worth - costs)))


def _least(valuation: Valuation) -> float:
    """Return what selling nothing earns, which is no menu where everyone is to be served."""
    return -np.inf if valuation.everyone else 0.0
