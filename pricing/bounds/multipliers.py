"""Multipliers that make the upper bound tight: weights on the incentive constraints between types."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pricing.bounds.bound import Entry, Multipliers, bound_error, lagrangian
from pricing.bounds.play import ENOUGH, tightened
from pricing.market.answers import Floats, Ints
from pricing.market.worth import ROUNDING, Valuation
from pricing.mechanism.mechanism import Allocation, has_hull, hull_caps

DUST = 1e-12
"""A weight too small for a separate entry."""

TIGHT = 1e-9
"""A relative gap below which the search for better multipliers ends."""

TRIES = 8
"""How often a pool is taxed again because a type of the pool found too little weight left to take."""

Held = list[tuple[int, float]]
"""Types with the weight that they still hold, the most recent last."""


def multipliers_for(valuation: Valuation, full: Allocation) -> Multipliers:
    """Return multipliers under which the caps of the full menu are each type's best caps, or nearly.

    From patient to urgent, each type takes from the weight that earlier types still hold, the most recent first. The
    weight taken is a tax that grows with the type's cap; the type needs enough weight to make its own cap the best cap.
    Where the caps are not pooled, it needs all the weight. In a pool, weight that a type does not need stays with
    earlier types, so constraints that skip types iron the pool. In markets that have a hull, the bound is then the
    profit of the full menu. Otherwise weight is passed on in three ways, and the multipliers with the tightest bound
    are used; where a gap remains, the game of ``tightened`` starts from them.

    Source: derived in pricing/README.md, "The bound".
    """
    if has_hull(valuation):
        return _conserved(valuation.share * (1 - valuation.surplus_weight), _along_hull(valuation))
    candidates = (
        _to_the_next(valuation),
        _along_caps(valuation, full.caps, eager=False),
        _along_caps(valuation, full.caps, eager=True),
    )
    best, tightest = None, math.inf
    for entries in candidates:
        candidate = _conserved(valuation.share * (1 - valuation.surplus_weight), entries)
        bound = lagrangian(valuation, candidate)
        if bound < tightest:
            best, tightest = candidate, bound
        if tightest <= full.profit * (1 + TIGHT):
            break
    assert best is not None
    if tightest > full.profit * (1 + ENOUGH) + 2 * bound_error(valuation, best):
        candidate = _conserved(valuation.share * (1 - valuation.surplus_weight), tightened(valuation, full, best))
        return candidate if lagrangian(valuation, candidate) < tightest else best
    return best


def _to_the_next(valuation: Valuation) -> Iterator[Entry]:
    """Yield multipliers that pass all weight on to the next type, which is right wherever no type is pooled."""
    for row, flow in enumerate(valuation.rent_weight[:-1].tolist()):
        yield row, row + 1, flow


def _along_hull(valuation: Valuation) -> list[Entry]:
    """Return multipliers for the caps of the concave hull: every type's marginal virtual worth is zero at its cap."""
    caps = hull_caps(valuation)
    held: Held = []
    entries: list[Entry] = []
    for start, end in _pools(caps):
        rows = np.array([row for row, _ in held] + list(range(start, end)), dtype=np.int64)
        urgency = valuation.urgency_per_s[rows]
        cap_s = float(caps[start]) if start else 0.0
        margin = valuation.value[rows] * np.exp(-(urgency - urgency[0]) * cap_s)
        worth = dict(zip(rows.tolist(), margin.tolist(), strict=True))
        for row in range(start, end):
            share = float(valuation.share[row])
            need = math.inf if row == end - 1 else share * worth[row]
            taken = _take(held, worth, row, need)
            entries += [(patient, row, flow) for patient, flow in taken]
            held.append((row, share + sum(flow for _, flow in taken)))
    return entries


def _take(held: Held, worth: dict[int, float], row: int, need: float) -> Held:
    """Take weight from the end of ``held`` until the need is met; return the weight taken and leave the rest."""
    taken: Held = []
    while held and need > 0:
        patient, weight = held.pop()
        relief = worth[patient] - worth[row]
        weight_needed = need / relief if relief > 0 else math.inf
        if weight_needed < weight - DUST:
            held.append((patient, weight - weight_needed))
            taken.append((patient, weight_needed))
            break
        taken.append((patient, weight))
        need -= weight * relief
    return taken


def _pools(caps: npt.NDArray[np.float64] | Ints) -> Iterator[tuple[int, int]]:
    """Return, for each run of equal caps, the first type and the type after the last."""
    starts = [0, *(np.flatnonzero(caps[1:] != caps[:-1]) + 1).tolist()]
    return pairwise([*starts, len(caps)])


@dataclass(frozen=True, slots=True)
class _Pool:
    """Types that share a cap: ``start`` to ``end`` - 1, with the marginal worth at the cap by type, and marginal costs."""

    start: int
    end: int
    cap: int
    worth: dict[int, float]
    cost: Floats


@dataclass(frozen=True, slots=True)
class _Taxed:
    """A pool's multipliers, the weight held afterwards, and ``excess``, the types' total gain from caps not their own.

    ``short`` is the last type that would gain from another cap, ``start`` - 1 where no type would.
    """

    entries: list[Entry]
    held: Held
    excess: float
    short: int


def _along_caps(valuation: Valuation, caps: Ints, eager: bool) -> Iterator[Entry]:
    """Yield multipliers for any caps: a type takes the weight that makes its own cap the best cap.

    Weight held by patient types is the strongest tax on long caps, and taking such weight moves it to less patient
    types. So where a type finds too little, its pool is taxed again, and the types before it take no more than they
    must.
    """
    held: Held = []
    slack = 2 * (len(valuation.steps.tokens) + 8) * ROUNDING * valuation.worth_most
    for start, end in _pools(caps):
        rows = np.array([row for row, _ in held] + list(range(start, end)), dtype=np.int64)
        margin, cost = _margins(valuation, rows, start, int(caps[start]))
        pool = _Pool(start, end, int(caps[start]), dict(zip(rows.tolist(), margin.tolist(), strict=True)), cost)
        taxed = _tax(valuation, pool, held, slack, eager, thrifty=start)
        thrifty = start
        for _ in range(TRIES):
            if not pool.cap or taxed.short <= thrifty:
                break
            thrifty = taxed.short
            taxed = min(taxed, _tax(valuation, pool, held, slack, eager, thrifty), key=lambda attempt: attempt.excess)
        yield from taxed.entries
        held = taxed.held


def _tax(valuation: Valuation, pool: _Pool, held_before: Held, slack: float, eager: bool, thrifty: int) -> _Taxed:
    """Return the multipliers of one pool, whose types before ``thrifty`` take no more than they must.

    An ``eager`` type takes all the weight that it may take; another type takes the weight that zeroes its marginal
    virtual surplus, and the last type of the pool takes all the weight that it may take.
    """
    held, entries, excess, short = list(held_before), [], 0.0, pool.start - 1
    for row in range(pool.start, pool.end):
        share = float(valuation.share[row])
        gains = _gains(valuation, row)
        surplus = _summed(share * (gains - _costs(valuation, row)))
        need = share * (pool.worth[row] - float(pool.cost[row - pool.start]))
        if row < thrifty:
            need = 0.0
        elif eager or row == pool.end - 1:
            need = math.inf
        received = 0.0
        while held:
            patient, weight = held.pop()
            tax = _summed(_gains(valuation, patient) - gains)
            relief = pool.worth[patient] - pool.worth[row]
            flow_wanted = 0.0 if need <= 0 else need / relief if relief > 0 else math.inf
            flow = _amount(surplus, tax, pool.cap, weight, flow_wanted, slack)
            if flow > weight - DUST:
                flow = weight
            if flow < weight:
                held.append((patient, weight - flow if flow >= DUST else weight))
            if flow < DUST:
                break
            surplus -= flow * tax
            need -= flow * relief
            received += flow
            entries.append((patient, row, flow))
            if flow < weight:
                break
        held.append((row, share * (1 - valuation.surplus_weight) + received))
        shortfall = float(surplus.max() - surplus[pool.cap])
        excess += shortfall
        short = row if shortfall > slack else short
    return _Taxed(entries, held, excess, short)


def _amount(surplus: Floats, tax: Floats, cap: int, weight: float, flow_wanted: float, slack: float) -> float:
    """Return how much of a tax to take, at most ``weight``, so that ``surplus`` less the tax is highest at ``cap``.

    The amount is at least enough to keep larger caps from being better; beyond that it is ``flow_wanted``, as long as
    smaller caps do not become better. A type that is not served takes no more than it must.
    """
    if cap and flow_wanted >= weight:
        taxed = surplus[: cap + 1] - weight * tax[: cap + 1]
        if taxed[cap] >= taxed.max():
            return weight
    least = _largest_ratio(surplus[cap + 1 :] - surplus[cap], tax[cap + 1 :] - tax[cap], slack)
    if not cap:
        return min(least, weight)
    most = _least_ratio(surplus[cap] - surplus[:cap], tax[cap] - tax[:cap])
    return min(max(least, min(flow_wanted, most)), weight)


def _largest_ratio(excess: Floats, tax: Floats, slack: float) -> float:
    over = excess > slack
    if not over.any():
        return 0.0
    excess, tax = excess[over], tax[over]
    return float(np.max(excess / tax)) if (tax > 0).all() else math.inf


def _least_ratio(excess: Floats, tax: Floats) -> float:
    taxed = tax > 0
    return float(np.min(np.maximum(excess[taxed], 0.0) / tax[taxed])) if taxed.any() else math.inf


def _gains(valuation: Valuation, row: int) -> Floats:
    this_type = slice(row, row + 1)
    gains: Floats = valuation.gains(this_type, valuation.left(this_type))[0]
    return gains


def _costs(valuation: Valuation, row: int) -> Floats | float:
    if not valuation.cost_per_token:
        return 0.0
    served: Floats = valuation.served(valuation.left(slice(row, row + 1)))[0]
    return served * valuation.cost_per_token


def _summed(terms: Floats) -> Floats:
    sums = np.zeros(len(terms) + 1)
    np.cumsum(terms, out=sums[1:])
    return sums


def _margins(valuation: Valuation, rows: Ints, start: int, cap: int) -> tuple[Floats, Floats]:
    """Return the marginal worth of ``rows`` at a cap, and the marginal cost of the rows from ``start`` on.

    The margin lies between the last step served and the next step, where the pool's virtual surplus changes sign; steps
    with which no answer ends are skipped.
    """
    ends = np.flatnonzero(valuation.steps.probability)
    following = min(int(np.searchsorted(ends, cap)), len(ends) - 1)
    served = max(int(np.searchsorted(ends, cap)) - 1, 0)
    here_worth, here_cost = _at_step(valuation, rows, int(ends[served]))
    next_worth, next_cost = _at_step(valuation, rows, int(ends[following]))
    pool = rows >= start
    surplus_here = _pooled(valuation, rows, pool, here_worth, here_cost)
    surplus_onward = _pooled(valuation, rows, pool, next_worth, next_cost)
    part = surplus_here / (surplus_here - surplus_onward) if surplus_here > 0 > surplus_onward else 0.0
    margin = (1 - part) * here_worth + part * next_worth
    cost = (1 - part) * here_cost + part * next_cost
    return margin, cost[pool]


def _at_step(valuation: Valuation, rows: Ints, step: int) -> tuple[Floats, Floats]:
    """Return the worth that one step adds for each of ``rows``, and the cost of the step."""
    at_step = valuation.at(rows, step)
    left = at_step.left(slice(None))
    worth = at_step.gains(slice(None), left)[:, 0]
    return worth, at_step.served(left)[:, 0] * valuation.cost_per_token


def _pooled(valuation: Valuation, rows: Ints, pool: npt.NDArray[np.bool_], worth: Floats, cost: Floats) -> float:
    """Return what one step adds to the virtual surplus of a pool."""
    first, last = int(rows[pool][0]), int(rows[-1])
    share = valuation.share[first : last + 1]
    added = valuation.rent_weight[last] * worth[-1] - float(np.dot(share, cost[pool]))
    added += valuation.surplus_weight * float(np.dot(share, worth[pool]))
    if first:
        previous = np.flatnonzero(rows == first - 1)
        added -= valuation.rent_weight[first - 1] * worth[previous[0]]
    return float(added)


def _conserved(share: Floats, entries: Iterable[Entry]) -> Multipliers:
    """Return the entries as multipliers that are conserved exactly.

    A sum of doubles may be an ulp too large; the entries of a type that would pass on too much are scaled down.
    """
    balance: list[list[float]] = [[start] for start in share.tolist()]
    conserved: list[Entry] = []
    by_patient: dict[int, list[Entry]] = {}
    for entry in entries:
        by_patient.setdefault(entry[0], []).append(entry)
    for patient in sorted(by_patient):
        outgoing = by_patient[patient]
        available, outflow = math.fsum(balance[patient]), math.fsum(flow for _, _, flow in outgoing)
        scale = min(1.0, available / outflow) if outflow > 0 else 1.0
        while math.fsum(balance[patient] + [-flow * scale for _, _, flow in outgoing]) < 0:
            scale -= 2 * ROUNDING
        outgoing = [(start, urgent, flow * scale) for start, urgent, flow in outgoing]
        for _, urgent, flow in outgoing:
            balance[urgent].append(flow)
        conserved += outgoing
    columns = list(zip(*conserved, strict=True)) or [(), (), ()]
    return Multipliers(np.array(columns[0], np.int64), np.array(columns[1], np.int64), np.array(columns[2], np.float64))
