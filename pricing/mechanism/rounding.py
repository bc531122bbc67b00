"""From the mechanism's caps to the menu that is sold: whole prices that still make each type choose its own tier."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.worth import Valuation, tokens_at, worth_at, worth_error


@dataclass(frozen=True, slots=True)
class Published:
    """A menu on whole numbers: k tiers, caps and prices rising.

    Attributes:
        caps: cap of each tier in steps, rising strictly. Shape (k,).
        prices: price of a conversation, nano-units. Shape (k,).
        takes: tier of each type, -1 for those not served. Shape (n,).
        worth: worth of each tier to each type, nano-units. Shape (n, k).
        error: bound on the error of each worth.
        merged: tiers that rounding has merged away.
        unrounded: income before rounding and merging, nano-units for each conversation offered.
        surplus: sum of Q_i u_i(N_i) - Q_(i-1) u_(i-1)(N_i) over the types then, which must be the same.
    """

    caps: Ints
    prices: Ints
    takes: Ints
    worth: Floats
    error: float
    merged: int
    unrounded: float
    surplus: float

    def own(self, table: Floats) -> Floats:
        """Return each type's entry of a table by type and tier, 0 for those not served. Shape (n,)."""
        if not len(self.caps):
            return np.zeros(len(self.takes))
        chosen = np.take_along_axis(table, np.maximum(self.takes, 0)[:, None], axis=1)[:, 0]
        return np.where(self.takes >= 0, chosen, 0.0)

    def by_type(self) -> Ints:
        """Return the cap of each type in steps, 0 for those not served. Shape (n,)."""
        return np.where(self.takes >= 0, np.append(self.caps, 0)[self.takes], 0).astype(np.int64)

    def paid(self) -> Floats:
        """Return what each type pays. Nano-units, shape (n,)."""
        return np.where(self.takes >= 0, np.append(self.prices, 0)[self.takes], 0.0).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Ladder:
    """Tiers while they are merged: a column of the worth table, and the most urgent type of each, from below."""

    columns: Ints
    ends: Ints

    def without(self, place: int) -> _Ladder:
        return _Ladder(np.delete(self.columns, place), np.delete(self.ends, place))

    def with_end(self, place: int, end: int) -> _Ladder:
        ends = self.ends.copy()
        ends[place] = end
        return replace(self, ends=ends)

    def start(self, place: int) -> int:
        """Return the most patient type of a tier."""
        return int(self.ends[place + 1]) + 1 if place + 1 < len(self.ends) else 0


def publish(valuation: Valuation, by_type: Ints) -> Published:
    """Return the menu that sells given caps, with prices rounded so that every choice stays the type's own.

    The price of the smallest tier is the worth to its most urgent type, rounded down; each step up adds what the
    larger cap is worth more to the larger tier's most urgent type, rounded down. So nobody wants a smaller tier than
    its own. Where rounding makes somebody want a larger one, the two tiers are merged onto the cap that loses less,
    and the prices are set anew. A tier that is worth less than one nano-unit is not sold.

    Args:
        valuation: n types, m steps.
        by_type: cap of each type in steps, weakly falling. Shape (n,).
    """
    caps = np.unique(by_type[by_type > 0])
    worth = worth_at(valuation, caps)
    error = worth_error(valuation, len(caps))
    last = {int(cap): row for row, cap in enumerate(by_type)}
    ladder = _Ladder(np.arange(len(caps)), np.array([last[int(cap)] for cap in caps], dtype=np.int64))
    unrounded, surplus = _unrounded(valuation, worth, ladder)
    while True:
        rises = np.floor(_rises(worth, ladder) + 2 * error)
        wanted = _wanted(worth, ladder)
        fails = wanted > rises + 2 * error
        if len(rises) and rises[0] < 1:
            ladder = ladder.without(0)
        elif fails.any():
            ladder = _merged(valuation, worth, caps, ladder, int(np.argmax(fails)))
        else:
            break
    takes = np.full(len(by_type), -1, dtype=np.int64)
    for place, end in enumerate(ladder.ends):
        takes[ladder.start(place) : end + 1] = place
    prices = np.cumsum(rises).astype(np.int64)
    kept = ladder.columns
    return Published(caps[kept], prices, takes, worth[:, kept], error, len(caps) - len(kept), unrounded, surplus)


def _unrounded(valuation: Valuation, worth: Floats, ladder: _Ladder) -> tuple[float, float]:
    """Return the income before rounding, and the same as virtual surplus before cost, summed over types."""
    if not len(ladder.ends):
        return 0.0, 0.0
    starts = np.append(ladder.ends[1:], -1) + 1
    before = np.concatenate(([0.0], valuation.cumulative))
    prices = np.cumsum(_rises(worth, ladder))
    income = float(np.dot(prices, before[ladder.ends + 1] - before[starts]))
    rows = np.arange(int(ladder.ends[0]) + 1)
    columns = ladder.columns[np.searchsorted(-ladder.ends, -rows, side="right") - 1]
    own = worth[rows, columns] * valuation.cumulative[rows]
    rent = worth[rows[1:] - 1, columns[1:]] * valuation.cumulative[rows[1:] - 1]
    return income, float(np.sum(own) - np.sum(rent))


def _rises(worth: Floats, ladder: _Ladder) -> Floats:
    """Return by how much each price exceeds the one below, before rounding. Nano-units, shape (k,)."""
    rises = worth[ladder.ends, ladder.columns]
    rises[1:] -= worth[ladder.ends[1:], ladder.columns[:-1]]
    return rises


def _wanted(worth: Floats, ladder: _Ladder) -> Floats:
    """Return what each tier is worth more than the one below to the next more urgent type. Shape (k,)."""
    next_type = ladder.ends + 1
    wanted = np.full(len(next_type), -np.inf)
    there = next_type < len(worth)
    own = worth[next_type[there], ladder.columns[there]]
    below = np.zeros(len(next_type))
    below[1:] = worth[np.minimum(next_type[1:], len(worth) - 1), ladder.columns[:-1]]
    wanted[there] = own - below[there]
    return wanted


def _merged(valuation: Valuation, worth: Floats, caps: Ints, ladder: _Ladder, place: int) -> _Ladder:
    """Return the tiers after the one at ``place`` is merged with the one below, on the cap that loses less profit."""
    first, last = ladder.start(place), int(ladder.ends[place])
    below = int(ladder.columns[place - 1]) if place else None
    column = int(ladder.columns[place])
    further = int(ladder.ends[place - 1]) if place else last + 1
    lost = _surplus(valuation, worth, caps, (first, last), column, below)
    won = _surplus(valuation, worth, caps, (last + 1, further), column, below)
    if won < -lost:
        return ladder.without(place)
    return ladder.with_end(place, further).without(place - 1) if place else ladder.with_end(0, further)


def _surplus(
    valuation: Valuation, worth: Floats, caps: Ints, types: tuple[int, int], column: int, below: int | None
) -> float:
    """Return the virtual surplus of a run of types at one cap over that at the cap below."""
    first, last = types
    rise = worth[:, column] - (worth[:, below] if below is not None else 0.0)
    surplus = valuation.cumulative[last] * rise[last]
    if first:
        surplus -= valuation.cumulative[first - 1] * rise[first - 1]
    if valuation.cost_per_token:
        run = valuation.only(slice(first, last + 1))
        low = caps[below] if below is not None else 0
        served = tokens_at(run, np.array([low, caps[column]]))
        surplus -= valuation.cost_per_token * float(np.dot(run.share, served[:, 1] - served[:, 0]))
    return float(surplus)
