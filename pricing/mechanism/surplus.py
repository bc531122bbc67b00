"""Virtual surplus step by step, one type at a time from the most urgent up: the input of the dynamic programs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pricing.market.answers import Floats
from pricing.market.worth import Valuation

Flags = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint8]

DIPS_MAX = 6
"""Rows that change direction more often than this are scanned entry by entry."""


def surplus_rows(valuation: Valuation) -> Iterator[tuple[int, Floats]]:
    """Return (i, b_i) for i = n - 1 down to 0; the first N entries of b_i sum to B_i(N).

    B_i(N) = Q_i u_i(N) - Q_(i-1) u_(i-1)(N) - q_i C_i(N), nano-units; where customers' surplus has the weight a, rents
    weigh 1 - a: (q_i + (1 - a) Q_(i-1)) u_i(N) - (1 - a) Q_(i-1) u_(i-1)(N) - q_i C_i(N). Each row has shape (m,) and
    is overwritten by the next row. All work is done in a few rows that stay in the processor's cache; each type's delay
    is computed once, for its own row and as rent in the row of the next more urgent type.
    """
    steps = valuation.steps
    added, term = np.empty_like(steps.probability), np.empty_like(steps.probability)
    generated = steps.size * steps.survival * valuation.cost_per_token
    own, rent = valuation.own_weight * valuation.value, valuation.rent_weight * valuation.value
    left, gains = _row(valuation, len(own) - 1)
    for row in range(len(own) - 1, -1, -1):
        np.multiply(gains, own[row], out=added)
        if row:
            left_before, gains_before = _row(valuation, row - 1)
            np.multiply(gains_before, rent[row - 1], out=term)
            np.subtract(added, term, out=added)
        if valuation.cost_per_token:
            np.multiply(generated, valuation.share[row], out=term)
            if valuation.stops:
                np.multiply(term, left, out=term)
            np.subtract(added, term, out=added)
        yield row, added
        if row:
            left, gains = left_before, gains_before


def _row(valuation: Valuation, row: int) -> tuple[Floats, Floats]:
    """Return the share of worth left at each step for one type, and its gains for an answer worth 1."""
    this_type = slice(row, row + 1)
    left = valuation.left(this_type)
    return left[0], valuation.unit_gains(this_type, left)[0]


def climb(added: Floats) -> Flags:
    """Turn the increments of a sum into the increments of its running maximum, in place.

    Most rows rise, then fall, and never recover: the increments up to the maximum stay unchanged and the later ones
    become 0. Only the runs that fall and the runs that make up for them are summed.

    Args:
        added: any numbers. Shape (m,); overwritten.

    Returns:
        Where the sum equals its running maximum, the empty sum included. Shape (m + 1,).
    """
    falls = added < 0
    at_top = np.empty(len(added) + 1, dtype=np.bool_)
    at_top[0] = True
    np.logical_not(falls, out=at_top[1:])
    turns = (falls[1:] != falls[:-1]).nonzero()[0] + 1
    if len(turns) > DIPS_MAX:
        return _climb_slowly(added, at_top)
    deficit = 0.0
    bounds = [0, *turns.tolist(), len(added)]
    for start, end in pairwise(bounds):
        run = added[start:end]
        if len(run) and falls[start]:
            deficit -= float(run.sum())
            run[:] = 0.0
        elif deficit:
            recovered = float(run.sum())
            if recovered < deficit:
                deficit -= recovered
                run[:], at_top[start + 1 : end + 1] = 0.0, False
                continue
            place, excess = _recovery(run, deficit)
            run[place], run[:place] = excess, 0.0
            at_top[start + 1 : start + 1 + place] = False
            deficit = 0.0
    return at_top


def _recovery(run: Floats, deficit: float) -> tuple[int, float]:
    """Return the entry at which a rising run has made up for a deficit, and by how much the run exceeds the deficit."""
    summed = 0.0
    size, start = 64, 0
    while True:
        sums = summed + run[start : start + size].cumsum()
        place = int(sums.searchsorted(deficit))
        if place < len(sums) or start + size >= len(run):
            place = min(place, len(sums) - 1)
            return start + place, max(0.0, float(sums[place]) - deficit)
        summed, start, size = float(sums[-1]), start + size, 2 * size


def _climb_slowly(added: Floats, at_top: Flags) -> Flags:
    sums = np.concatenate(([0.0], np.cumsum(added)))
    highest = np.maximum.accumulate(sums)
    np.equal(sums, highest, out=at_top)
    np.subtract(highest[1:], highest[:-1], out=added)
    return at_top


def last_flag(bits: Bits, most: int) -> int:
    """Return the last place up to ``most`` whose bit is set in a packed row; the first bit is always set."""
    place, bit = most >> 3, most & 7
    byte = int(bits[place]) & (0xFF00 >> bit + 1)
    if not byte:
        place = int(bits[:place].nonzero()[0][-1])
        byte = int(bits[place])
    return 8 * place + 8 - (byte & -byte).bit_length()
