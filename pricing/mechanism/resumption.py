"""What a menu earns from callers who send a cut answer back and buy the next piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.worth import Valuation, remaining
from pricing.mechanism.rounding import Published

CELLS_AT_ONCE = 1 << 18
"""Types times places that are worked on at once, so that they stay in the processor's cache."""

TIERS_MAX = 512
"""Callers are taken to resume with at most so many tiers, evenly spread among those of a larger menu."""

PLACES_MOST = 1 << 15
"""How many places are looked at at most; where there are more, caps are taken to be a little smaller than they are."""

REACHED_MOST = 2048
"""Up to so many places that purchases lead to, only these are looked at."""

PLACES_AT_ONCE = 64
"""How many places are worked on at once for the tiers that lead beyond them all."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """The largest gain a type has from resuming, and profit when every type does what is best for it.

    Callers look at ``tiers`` of the menu's tiers, which are all of them up to ``TIERS_MAX``: what they gain is then at
    least this. ``gains`` is the gain by type, nano-units, 0 where it is not above the computation's error. Shape (n,).
    """

    gain: float
    profit: float
    gains: Floats
    tiers: int


@dataclass(frozen=True, slots=True)
class _Places:
    """The places in an answer where a caller may stand: those that purchases lead to where they are few, else
    multiples of what all caps are multiples of, up to the answer's end.

    Attributes:
        tokens: tokens bought so far, rising from 0, the last one the longest answer. Shape (p,).
        steps: steps that are complete there. Shape (p,).
        jumps: how many places each tier leads on where they are evenly spread, the smallest tier first. Shape (k,).
        prices: price of each tier. Shape (k,).
        onward: the place that each tier leads to from each place, where they are not. Shape (p, k).
    """

    tokens: Ints
    steps: Ints
    jumps: Ints
    prices: Floats
    onward: Ints | None = None

    def led(self, place: Ints) -> Ints:
        """Return where each tier leads from some places. Shapes (s,) -> (s, k)."""
        if self.onward is not None:
            led: Ints = self.onward[place]
            return led
        evenly: Ints = np.minimum(place[:, None] + self.jumps, self.last)
        return evenly

    @property
    def last(self) -> int:
        return len(self.tokens) - 1


@dataclass(frozen=True, slots=True)
class _Prospects:
    """What awaits some types at each place. Shapes (p, types).

    Attributes:
        weight: the probability, weighed by patience, that the caller still waits there; 1 before the start.
        patience: the same without the answer's length.
        served: tokens that serving up to there takes.
        worth: worth of all that comes before, nano-units.
        best: all that the caller may expect, nano-units.
    """

    weight: Floats
    patience: Floats
    served: Floats
    worth: Floats
    best: Floats


def resumption(valuation: Valuation, published: Published, margin: Floats) -> Resumption:
    """Return the resumption figures of a menu, by backward induction over the places where an answer can be cut.

    With w(m) = P(the answer is longer than m) d(r, t(m)), the weight of still waiting there (1 before the start), and
    Z(m) all that a caller who has bought m tokens may expect, Z(m) = max(u(m), max_j Z(m + N_j) - p_j w(m)).
    The caller's gain is Z(0) less what its own tier brings; who gains nothing buys its own tier, once. Ties go to the
    larger cap.

    Args:
        valuation: n types, m steps.
        published: the menu.
        margin: what the house earns from each type that buys its own tier once, nano-units. Shape (n,).
    """
    types = len(valuation.share)
    if not len(published.caps):
        return Resumption(0.0, 0.0, np.zeros(types), 0)
    places = _places(valuation, published)
    own = published.own(published.worth - published.prices)
    gains, earned = np.zeros(types), margin.copy()
    for rows in _blocks(types, len(places.tokens)):
        prospects = _prospects(valuation, places, rows)
        more = prospects.best[0] - own[rows]
        resumes = more > 4 * published.error
        gains[rows] = np.where(resumes, more, 0.0)
        if resumes.any():
            income = _followed(valuation, places, prospects)
            earned[rows] = np.where(resumes, income, margin[rows])
    return Resumption(float(gains.max()), float(np.dot(valuation.share, earned)), gains, len(places.jumps))


def _blocks(types: int, places: int) -> Iterator[slice]:
    size = max(1, CELLS_AT_ONCE // places)
    for first in range(0, types, size):
        yield slice(first, min(types, first + size))


def _places(valuation: Valuation, published: Published) -> _Places:
    """Return the places that can be reached by buying tiers one after the other."""
    steps = valuation.steps
    end = int(steps.tokens[-1])
    tiers = np.arange(len(published.caps))
    if len(tiers) > TIERS_MAX:
        tiers = np.linspace(0, len(tiers) - 1, TIERS_MAX).round().astype(np.int64)
    caps = published.caps[tiers].tolist()
    sizes = np.array([end if steps.cap_tokens(cap) is None else int(steps.tokens[cap - 1]) for cap in caps])
    prices = published.prices[tiers].astype(np.float64)
    unit = max(math.gcd(*sizes.tolist()), -(-end // PLACES_MOST))
    reached = _reached(sizes, end, min(REACHED_MOST, end // unit))
    if reached is not None:
        onward = np.searchsorted(reached, np.minimum(reached[:, None] + sizes, end))
        complete = np.searchsorted(steps.tokens, reached, side="right")
        return _Places(reached, complete, onward[0], prices, onward)
    tokens = np.minimum(np.arange(-(-end // unit) + 1) * unit, end)
    complete = np.searchsorted(steps.tokens, tokens, side="right")
    return _Places(tokens, complete, np.maximum(sizes // unit, 1), prices)


def _reached(sizes: Ints, end: int, most: int) -> Ints | None:
    """Return the tokens that callers may have bought, from 0 to the end, None where there are more than ``most``."""
    jumps = sizes.tolist()
    reached, newly = {0}, [0]
    while newly:
        here = newly.pop()
        for jump in jumps:
            there = here + jump
            if there < end and there not in reached:
                reached.add(there)
                newly.append(there)
        if len(reached) > most:
            return None
    return np.array(sorted({*reached, end}), dtype=np.int64)


def _prospects(valuation: Valuation, places: _Places, rows: slice) -> _Prospects:
    """Return what some types may expect at each place, from the end of the answers back to their start."""
    steps = valuation.steps
    left = valuation.left(rows)
    worth = _at(valuation.gains(rows, left), places.steps)
    served = _at(valuation.served(left), places.steps)
    after = np.append(steps.survival[1:], max(0.0, steps.survival[-1] - steps.probability[-1]))
    longer = np.concatenate(([1.0], after))[places.steps]
    patience = np.ones((len(places.tokens), len(left)))
    if np.array_equal(steps.tokens[places.steps[1:] - 1], places.tokens[1:]):
        patience[1:] = left.T[places.steps[1:] - 1]
    else:
        arrival_s = steps.arrival_s(places.tokens[1:])
        patience[1:] = remaining(valuation.delay, valuation.urgency_per_s[rows], arrival_s).T
    weight = patience * longer[:, None]
    best = worth.copy()
    if places.onward is not None:
        for place in range(places.last - 1, -1, -1):
            offers = best[places.onward[place]] - places.prices[:, None] * weight[place]
            np.maximum(best[place], offers.max(axis=0), out=best[place])
        return _Prospects(weight, patience, served, worth, best)
    _to_the_end(places, weight, best)
    size = max(int(places.jumps[0]), PLACES_AT_ONCE)
    short = int(np.searchsorted(places.jumps, size))
    for stop in range(places.last, 0, -size):
        start = max(0, stop - size)
        for jump, price in zip(places.jumps[short:].tolist(), places.prices[short:].tolist(), strict=True):
            until = min(stop, places.last - jump)
            if until <= start:
                break
            _buy(best, weight, slice(start, until), jump, price)
        if short:
            for place in range(stop - 1, start - 1, -1):
                _buy_short(places, best, weight, place, short)
    return _Prospects(weight, patience, served, worth, best)


def _to_the_end(places: _Places, weight: Floats, best: Floats) -> None:
    """Offer at each place the smallest tier that leads to the end; a larger one costs more and brings nothing more."""
    here = slice(max(0, places.last - int(places.jumps[-1])), places.last)
    first = np.searchsorted(places.jumps, places.last - np.arange(here.start, here.stop))
    offers = weight[here] * places.prices[first, None]
    np.subtract(best[-1], offers, out=offers)
    np.maximum(best[here], offers, out=best[here])


def _buy(best: Floats, weight: Floats, here: slice, jump: int, price: float) -> None:
    """Offer one tier at places in a row, of which it leads to none."""
    offers = weight[here] * price
    np.subtract(best[here.start + jump : here.stop + jump], offers, out=offers)
    np.maximum(best[here], offers, out=best[here])


def _buy_short(places: _Places, best: Floats, weight: Floats, place: int, short: int) -> None:
    """Offer at one place the tiers that lead on by less than the places worked on at once."""
    jumps = places.jumps[:short]
    jumps = jumps[: int(np.searchsorted(jumps, places.last - place))]
    if len(jumps):
        offers = best[place + jumps] - places.prices[: len(jumps), None] * weight[place]
        np.maximum(best[place], offers.max(axis=0), out=best[place])


def _at(terms: Floats, steps: Ints) -> Floats:
    """Return the sums of the first ``steps`` terms, places first. Shapes (n, m), (p,) -> (p, n)."""
    sums = np.zeros((terms.shape[0], terms.shape[1] + 1))
    np.cumsum(terms, axis=1, out=sums[:, 1:])
    return sums.T[steps]


def _followed(valuation: Valuation, places: _Places, prospects: _Prospects) -> Floats:
    """Return what the house earns from types that buy what is best for them at each place. Shape (types,)."""
    types = np.arange(prospects.best.shape[1])
    here, earned = np.zeros(len(types), dtype=np.int64), np.zeros(len(types))
    # The larger of two tiers that are as good is bought, so they are looked at from the largest down.
    prices = places.prices[::-1]
    buys = prospects.best[0] > prospects.worth[0]
    while buys.any():
        who, place = types[buys], here[buys]
        onward = places.led(place)[:, ::-1]
        weight = prospects.weight[place, who]
        choice = (prospects.best[onward, who[:, None]] - prices * weight[:, None]).argmax(axis=1)
        target = onward[np.arange(len(who)), choice]
        tokens = prospects.served[target, who] - prospects.served[place, who]
        if not valuation.stops:
            tokens *= prospects.patience[place, who]
        earned[who] += prices[choice] * weight - tokens * valuation.cost_per_token
        here[who] = target
        buys = prospects.best[here, types] > prospects.worth[here, types]
    return earned
