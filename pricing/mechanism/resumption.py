"""The profit of a menu from callers who send a cut answer back and buy the next piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.worth import Valuation, remaining
from pricing.mechanism.rounding import Published

CELLS_AT_ONCE = 1 << 18
"""Types times places that are computed at once, so that they stay in the processor's cache."""

TIERS_MAX = 512
"""The most tiers that callers are assumed to resume with, evenly spread among the tiers of a larger menu."""

PLACES_MOST = 1 << 15
"""The most places that are computed; where there are more, caps are rounded down to a coarser unit."""

REACHED_MOST = 2048
"""If purchases lead to at most this many places, only those places are computed."""

PLACES_AT_ONCE = 64
"""The least number of places computed at once for the tiers that lead past all of these places."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """The largest gain of a type from resuming, and the profit when every type does what is best for it.

    ``gain`` and ``profit`` are nano-units, the profit for each conversation offered. Callers consider ``tiers`` of the
    menu's tiers: all of them up to ``TIERS_MAX``. Of a menu with more tiers, they gain at least the stated gain.
    ``gains`` is the gain by type, nano-units, 0 where the gain is within the computation's error. Shape (n,).
    """

    gain: float
    profit: float
    gains: Floats
    tiers: int


@dataclass(frozen=True, slots=True)
class _Places:
    """The places in an answer where a caller may stand, up to the answer's end.

    They are the places that purchases lead to if these are few, otherwise the multiples of the caps' common divisor.

    Attributes:
        tokens: tokens bought so far, rising from 0 to the longest answer. Shape (p,).
        steps: steps that are complete at each place. Shape (p,).
        jumps: by how many places each tier advances if places are evenly spread, the smallest tier first. Shape (k,).
        prices: price of each tier, nano-units. Shape (k,).
        onward: the place that each tier leads to from each place if places are not evenly spread. Shape (p, k).
    """

    tokens: Ints
    steps: Ints
    jumps: Ints
    prices: Floats
    onward: Ints | None = None

    def led(self, place: Ints) -> Ints:
        """Return the place that each tier leads to from some places. Shapes (s,) -> (s, k)."""
        if self.onward is not None:
            targets: Ints = self.onward[place]
            return targets
        shifted: Ints = np.minimum(place[:, None] + self.jumps, self.last)
        return shifted

    @property
    def last(self) -> int:
        return len(self.tokens) - 1


@dataclass(frozen=True, slots=True)
class _Prospects:
    """What some types may expect at each place. Shapes (p, types).

    Attributes:
        weight: the probability, weighed by patience, that the caller still waits at the place; 1 before the start.
        patience: the share of worth that remains at the place, which is the weight without the answer's length.
        served: tokens that serving up to the place takes.
        worth: worth of the answer up to the place, nano-units.
        best: the most that the caller may expect in all, nano-units.
    """

    weight: Floats
    patience: Floats
    served: Floats
    worth: Floats
    best: Floats


def resumption(valuation: Valuation, published: Published, margin: Floats) -> Resumption:
    """Return the resumption figures of a menu, by backward induction over the places where an answer can be cut.

    The weight of still waiting after m tokens is w(m) = P(the answer is longer than m) d(r, t(m)), 1 before the start.
    A caller who has bought m tokens expects in all Z(m) = max(u(m), max_j Z(m + N_j) - p_j w(m)). The caller's gain is
    Z(0) less the gain from its own tier; a caller without a gain buys its own tier, once. Ties go to the larger cap.

    Args:
        valuation: n types, m steps.
        published: the menu.
        margin: the operator's margin on each type that buys its own tier once, nano-units. Shape (n,).
    """
    types = len(valuation.share)
    if not len(published.caps):
        return Resumption(0.0, 0.0, np.zeros(types), 0)
    places = _places(valuation, published)
    own_gain = published.own(published.worth - published.prices)
    gains, earned = np.zeros(types), margin.copy()
    for rows in _blocks(types, len(places.tokens)):
        prospects = _prospects(valuation, places, rows)
        resume_gain = prospects.best[0] - own_gain[rows]
        resumes = resume_gain > 4 * published.error
        gains[rows] = np.where(resumes, resume_gain, 0.0)
        if resumes.any():
            income = _followed(valuation, places, prospects)
            earned[rows] = np.where(resumes, income, margin[rows])
    return Resumption(float(gains.max()), float(np.dot(valuation.share, earned)), gains, len(places.jumps))


def _blocks(types: int, places: int) -> Iterator[slice]:
    size = max(1, CELLS_AT_ONCE // places)
    for first in range(0, types, size):
        yield slice(first, min(types, first + size))


def _places(valuation: Valuation, published: Published) -> _Places:
    """Return the places that consecutive purchases can reach."""
    steps = valuation.steps
    end = int(steps.tokens[-1])
    tiers = np.arange(len(published.caps))
    if len(tiers) > TIERS_MAX:
        tiers = np.linspace(0, len(tiers) - 1, TIERS_MAX).round().astype(np.int64)
    caps = published.caps[tiers].tolist()
    sizes = np.array([end if steps.cap_tokens(cap) is None else int(steps.tokens[cap - 1]) for cap in caps])
    prices = published.prices[tiers].astype(np.float64)
    unit = max(math.gcd(*sizes.tolist()), -(-end // PLACES_MOST))
    tokens_reached = _reached(sizes, end, min(REACHED_MOST, end // unit))
    if tokens_reached is not None:
        onward = np.searchsorted(tokens_reached, np.minimum(tokens_reached[:, None] + sizes, end))
        complete = np.searchsorted(steps.tokens, tokens_reached, side="right")
        return _Places(tokens_reached, complete, onward[0], prices, onward)
    tokens = np.minimum(np.arange(-(-end // unit) + 1) * unit, end)
    complete = np.searchsorted(steps.tokens, tokens, side="right")
    return _Places(tokens, complete, np.maximum(sizes // unit, 1), prices)


def _reached(sizes: Ints, end: int, most: int) -> Ints | None:
    """Return the numbers of tokens that callers may have bought, from 0 to the end, None if more than ``most``."""
    jumps = sizes.tolist()
    visited, frontier = {0}, [0]
    while frontier:
        bought = frontier.pop()
        for jump in jumps:
            bought_next = bought + jump
            if bought_next < end and bought_next not in visited:
                visited.add(bought_next)
                frontier.append(bought_next)
        if len(visited) > most:
            return None
    return np.array(sorted({*visited, end}), dtype=np.int64)


def _prospects(valuation: Valuation, places: _Places, rows: slice) -> _Prospects:
    """Return what some types may expect at each place, from the end of the answers back to their start."""
    steps = valuation.steps
    left = valuation.left(rows)
    worth = _at(valuation.gains(rows, left), places.steps)
    served = _at(valuation.served(left), places.steps)
    survival_after = np.append(steps.survival[1:], max(0.0, steps.survival[-1] - steps.probability[-1]))
    survival = np.concatenate(([1.0], survival_after))[places.steps]
    patience = np.ones((len(places.tokens), len(left)))
    if np.array_equal(steps.tokens[places.steps[1:] - 1], places.tokens[1:]):
        patience[1:] = left.T[places.steps[1:] - 1]
    else:
        arrival_s = steps.arrival_s(places.tokens[1:])
        patience[1:] = remaining(valuation.delay, valuation.urgency_per_s[rows], arrival_s).T
    weight = patience * survival[:, None]
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
    """Offer at each place the smallest tier that leads to the end; a larger tier costs more and adds nothing."""
    near_end = slice(max(0, places.last - int(places.jumps[-1])), places.last)
    first = np.searchsorted(places.jumps, places.last - np.arange(near_end.start, near_end.stop))
    offers = weight[near_end] * places.prices[first, None]
    np.subtract(best[-1], offers, out=offers)
    np.maximum(best[near_end], offers, out=best[near_end])


def _buy(best: Floats, weight: Floats, run: slice, jump: int, price: float) -> None:
    """Offer one tier at consecutive places; from none of them does the tier lead to another of them."""
    offers = weight[run] * price
    np.subtract(best[run.start + jump : run.stop + jump], offers, out=offers)
    np.maximum(best[run], offers, out=best[run])


def _buy_short(places: _Places, best: Floats, weight: Floats, place: int, short: int) -> None:
    """Offer at one place the tiers that advance by fewer places than are computed at once."""
    short_jumps = places.jumps[:short]
    short_jumps = short_jumps[: int(np.searchsorted(short_jumps, places.last - place))]
    if len(short_jumps):
        offers = best[place + short_jumps] - places.prices[: len(short_jumps), None] * weight[place]
        np.maximum(best[place], offers.max(axis=0), out=best[place])


def _at(terms: Floats, steps: Ints) -> Floats:
    """Return the sums of the first ``steps`` terms, places first. Shapes (n, m), (p,) -> (p, n)."""
    sums = np.zeros((terms.shape[0], terms.shape[1] + 1))
    np.cumsum(terms, axis=1, out=sums[:, 1:])
    return sums.T[steps]


def _followed(valuation: Valuation, places: _Places, prospects: _Prospects) -> Floats:
    """Return the operator's profit from types that buy what is best for them at each place. Shape (types,)."""
    types = np.arange(prospects.best.shape[1])
    positions, earned = np.zeros(len(types), dtype=np.int64), np.zeros(len(types))
    # Of two equally good tiers callers buy the larger, so tiers are compared from the largest down.
    prices = places.prices[::-1]
    buys = prospects.best[0] > prospects.worth[0]
    while buys.any():
        buyers, place = types[buys], positions[buys]
        onward = places.led(place)[:, ::-1]
        weight = prospects.weight[place, buyers]
        choice = (prospects.best[onward, buyers[:, None]] - prices * weight[:, None]).argmax(axis=1)
        target = onward[np.arange(len(buyers)), choice]
        tokens = prospects.served[target, buyers] - prospects.served[place, buyers]
        if not valuation.stops:
            tokens *= prospects.patience[place, buyers]
        earned[buyers] += prices[choice] * weight - tokens * valuation.cost_per_token
        positions[buyers] = target
        buys = prospects.best[positions, types] > prospects.worth[positions, types]
    return earned
