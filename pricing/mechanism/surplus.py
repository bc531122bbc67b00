"""Virtual surplus step by step, one type at a time from the most urgent up: what the dynamic programs run over."""

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
"""Rows that change direction more often are scanned entry by entry."""


def surplus_rows(valuation: Valuation) -> Iterator[tuple[int, Floats]]:
    """Return (i, b_i) for i = n - 1 down to 0; the first N entries of b_i sum to B_i(N).

    B_i(N) = Q_i u_i(N) - Q_(i-1) u_(i-1)(N) - q_i C_i(N), nano-units; where customers' surplus counts a, rents weigh
    1 - a: (q_i + (1 - a) Q_(i-1)) u_i(N) - (1 - a) Q_(i-1) u_(i-1)(N) - q_i C_i(N). A row, of shape (m,), is overwritten by the next.
    All work is done in a few rows that stay in the processor's cache; each type's delay is computed once, for its own
    row and as rent in the row of the next more urgent type.
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
    one = slice(row, row + 1)
    left = valuation.left(one)
    return left[0], valuation.unit_gains(one, left)[0]


def climb(added: Floats) -> Flags:
    """Turn what each step adds to a sum into what it adds to the sum's running maximum, in place.

    Most rows rise, fall, and never recover: then the steps up to the top stay as they are and the others add nothing,
    and no sum is needed. A dip is made up for by the steps after it, and only those are summed.

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
    missing = 0.0
    bounds = [0, *turns.tolist(), len(added)]
    for start, end in pairwise(bounds):
        run = added[start:end]
        if len(run) and falls[start]:
            missing -= float(run.sum())
            run[:] = 0.0
        elif missing:
            total = float(run.sum())
            if total < missing:
                missing -= total
                run[:], at_top[start + 1 : end + 1] = 0.0, False
                continue
            place, rest = _recovery(run, missing)
            run[place], run[:place] = rest, 0.0
            at_top[start + 1 : start + 1 + place] = False
            missing = 0.0
    return at_top


def _recovery(run: Floats, missing: float) -> tuple[int, float]:
    """Return the entry with which a rising run has made up for what is missing, and by how much it is exceeded."""
    done = 0.0
    size, start = 64, 0
    while True:
        sums = done + run[start : start + size].cumsum()
        place = int(sums.searchsorted(missing))
        if place < len(sums) or start + size >= len(run):
            place = min(place, len(sums) - 1)
            return start + place, max(0.0, float(sums[place]) - missing)
        done, start, size = float(sums[-1]), start + size, 2 * size


def _climb_slowly(added: Floats, at_top: Flags) -> Flags:
    sums = np.concatenate(([0.0], np.cumsum(added)))
    highest = np.maximum.accumulate(sums)
    np.equal(sums, highest, out=at_top)
    np.subtract(highest[1:], highest[:-1], out=added)
    return at_top


def last_flag(bits: Bits, most: int) -> int:
    """Return the last place up to ``most`` whose bit is set in a packed row; the first bit always is."""
    last, rest = most >> 3, most & 7
    byte = int(bits[last]) & (0xFF00 >> rest + 1)
    if not byte:
        last = int(bits[:last].nonzero()[0][-1])
        byte = int(bits[last])
    return 8 * last + 8 - (byte & -byte).bit_length()
