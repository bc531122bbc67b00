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
        takes: tier of each type, -1 for types not served. Shape (n,).
        worth: worth of each tier to each type, nano-units. Shape (n, k).
        error: bound on the error of each worth.
        merged: number of tiers that rounding has merged away.
        unrounded: income before rounding and merging, nano-units for each conversation offered.
        surplus: sum of Q_i u_i(N_i) - Q_(i-1) u_(i-1)(N_i) over types before rounding, which must equal ``unrounded``.
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
        """Return each type's entry of a table by type and tier, 0 for types not served. Shape (n,)."""
        if not len(self.caps):
            return np.zeros(len(self.takes))
        chosen = np.take_along_axis(table, np.maximum(self.takes, 0)[:, None], axis=1)[:, 0]
        return np.where(self.takes >= 0, chosen, 0.0)

    def by_type(self) -> Ints:
        """Return the cap of each type in steps, 0 for types not served. Shape (n,)."""
        return np.where(self.takes >= 0, np.append(self.caps, 0)[self.takes], 0).astype(np.int64)

    def paid(self) -> Floats:
        """Return what each type pays. Nano-units, shape (n,)."""
        return np.where(self.takes >= 0, np.append(self.prices, 0)[self.takes], 0.0).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Ladder:
    """The tiers that are left while tiers are merged, the smallest first: columns of the worth table, and last types.

    Attributes:
        columns: the column of each tier in the worth table. Shape (k,).
        ends: the most urgent type of each tier. Shape (k,).
    """

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
    """Return the menu that sells the caps, with prices rounded so that each type still chooses its own tier.

    The price of the smallest tier is the worth to its most urgent type, rounded down; each step up adds the extra worth
    of the larger cap to the larger tier's most urgent type, rounded down. So no type wants a smaller tier than its own.
    Where rounding makes a type want a larger tier, the two tiers are merged onto the cap that loses less, and the
    prices are set again. A tier that is worth less than one nano-unit is not sold.

    Args:
        valuation: n types, m steps.
        by_type: cap of each type in steps, weakly falling. Shape (n,).
    """
    caps = np.unique(by_type[by_type > 0])
    worth = worth_at(valuation, caps)
    error = worth_error(valuation, len(caps))
    last_type = {int(cap): row for row, cap in enumerate(by_type)}
    ladder = _Ladder(np.arange(len(caps)), np.array([last_type[int(cap)] for cap in caps], dtype=np.int64))
    unrounded, surplus = _unrounded(valuation, worth, ladder)
    while True:
        rises = np.floor(_rises(worth, ladder) + 2 * error)
        next_rises = _wanted(worth, ladder)
        fails = next_rises > rises + 2 * error
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
    columns = ladder.columns
    return Published(
        caps[columns], prices, takes, worth[:, columns], error, len(caps) - len(columns), unrounded, surplus
    )


def _unrounded(valuation: Valuation, worth: Floats, ladder: _Ladder) -> tuple[float, float]:
    """Return the income before rounding, and the same income as virtual surplus before cost, summed over types."""
    if not len(ladder.ends):
        return 0.0, 0.0
    starts = np.append(ladder.ends[1:], -1) + 1
    cumulative = np.concatenate(([0.0], valuation.cumulative))
    prices = np.cumsum(_rises(worth, ladder))
    income = float(np.dot(prices, cumulative[ladder.ends + 1] - cumulative[starts]))
    rows = np.arange(int(ladder.ends[0]) + 1)
    columns = ladder.columns[np.searchsorted(-ladder.ends, -rows, side="right") - 1]
    own_worth = worth[rows, columns] * valuation.cumulative[rows]
    rent = worth[rows[1:] - 1, columns[1:]] * valuation.cumulative[rows[1:] - 1]
    return income, float(np.sum(own_worth) - np.sum(rent))


def _rises(worth: Floats, ladder: _Ladder) -> Floats:
    """Return by how much each price exceeds the next lower price, before rounding. Nano-units, shape (k,)."""
    rises = worth[ladder.ends, ladder.columns]
    rises[1:] -= worth[ladder.ends[1:], ladder.columns[:-1]]
    return rises


def _wanted(worth: Floats, ladder: _Ladder) -> Floats:
    """Return the extra worth of each tier over the next smaller tier to the next more urgent type. Shape (k,)."""
    next_type = ladder.ends + 1
    next_rises = np.full(len(next_type), -np.inf)
    exists = next_type < len(worth)
    worth_here = worth[next_type[exists], ladder.columns[exists]]
    worth_below = np.zeros(len(next_type))
    worth_below[1:] = worth[np.minimum(next_type[1:], len(worth) - 1), ladder.columns[:-1]]
    next_rises[exists] = worth_here - worth_below[exists]
    return next_rises


def _merged(valuation: Valuation, worth: Floats, caps: Ints, ladder: _Ladder, place: int) -> _Ladder:
    """Return the tiers with the tier at ``place`` merged with the next smaller one, on the cap that loses less."""
    first, last = ladder.start(place), int(ladder.ends[place])
    below = int(ladder.columns[place - 1]) if place else None
    column = int(ladder.columns[place])
    last_below = int(ladder.ends[place - 1]) if place else last + 1
    lost = _surplus(valuation, worth, caps, (first, last), column, below)
    won = _surplus(valuation, worth, caps, (last + 1, last_below), column, below)
    if won < -lost:
        return ladder.without(place)
    return ladder.with_end(place, last_below).without(place - 1) if place else ladder.with_end(0, last_below)


def _surplus(
    valuation: Valuation, worth: Floats, caps: Ints, types: tuple[int, int], column: int, below: int | None
) -> float:
    """Return the virtual surplus of a run of types at one cap less the virtual surplus at the next lower cap."""
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
