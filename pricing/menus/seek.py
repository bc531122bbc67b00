"""A search over caps and prices together, for aims that no formula solves: the same steps on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pricing.mechanism.offers import Offer, cleaned

Score = Callable[[Offer], float]
"""What an offer is worth to who asks, minus infinity where it may not be sold."""

BETTER = 1e-9
"""The relative gain below which an offer is no better than another: far above what rounding does to a score."""

STRIDES = (0.16, 0.04, 0.01, 0.0025, 0.0005, 0.0001, 0.00001)
"""By what part of itself a price is moved, and of all steps a cap; the coarse moves first."""

KEPT = 4
"""How many of the offers found from different starts are looked at with fine moves."""

COARSE = 3
"""How many of the strides are coarse."""


@dataclass(slots=True)
class Search:
    """What was tried, so that no offer is scored twice and no search goes on for ever.

    Attributes:
        score: the aim.
        steps: how many steps there are; a cap is at most that.
        most: how many tiers an offer may have.
        tries: how many offers may be scored.
    """

    score: Score
    steps: int
    most: int
    tries: int
    found: dict[tuple[int, ...], float] = field(default_factory=dict)

    def of(self, offer: Offer) -> float:
        """Return the score of an offer."""
        key = offer.key
        if key not in self.found:
            allowed = 0 < len(offer.caps) <= self.most
            self.found[key] = self.score(offer) if allowed else -np.inf
        return self.found[key]

    def climbed(self, offer: Offer, strides: Sequence[float], tries: int) -> Offer:
        """Return what is reached from an offer by moves that better it, the coarse ones first."""
        last = len(self.found) + tries
        for stride in strides:
            better: Offer | None = offer
            while better is not None and len(self.found) < last:
                offer, better = better, None
                enough = self.of(offer) + BETTER * abs(self.of(offer))
                for other in moves(offer, stride, self.steps):
                    if self.of(other) > enough:
                        better = other
                        break
                    if len(self.found) >= last:
                        break
        return offer


def sought(search: Search, starts: Sequence[Offer]) -> Offer:
    """Return the best offer that is found from some starts; it scores at least what the best of them does.

    Every start is bettered by coarse moves, and the best few of what that finds by fine ones. There is no chance in it,
    and a move counts only where it gains more than rounding could, so the same offer is found everywhere.

    Args:
        search: the aim and the bounds.
        starts: offers to begin with, at least one.
    """
    coarse, fine = STRIDES[:COARSE], STRIDES[COARSE - 1 :]
    each = max(1, search.tries // 2 // len(starts))
    reached = {one.key: one for one in (search.climbed(start, coarse, each) for start in starts)}
    best = sorted(reached.values(), key=lambda one: (-search.of(one), one.key))[:KEPT]
    each = max(1, search.tries // 2 // len(best))
    ends = [search.climbed(one, fine, each) for one in best]
    return max([*ends, *starts], key=search.of)


def moves(offer: Offer, stride: float, steps: int) -> Iterator[Offer]:
    """Yield offers that differ a little: prices, rises of prices, caps, caps and prices; then in the number of tiers."""
    caps, prices = offer.caps, offer.prices
    distance = max(1, round(stride * steps / 4))
    tiers = range(len(caps))
    for factor in (1 + stride, 1 / (1 + stride)):
        for place in tiers:
            yield _priced(offer, place, place + 1, factor)
        for place in tiers:
            yield _raised(offer, place, factor)
    for place in tiers:
        for moved in (-distance, distance):
            at = caps.copy()
            at[place] = min(max(1, at[place] + moved), steps)
            if at[place] != caps[place]:
                yield cleaned(at, prices)
                part = prices[place] * (at[place] / caps[place] - 1)
                for share in (1.0, 0.5, 0.2):
                    shifted = prices.copy()
                    shifted[place] += round(part * share)
                    yield cleaned(at, shifted)
    if stride < STRIDES[COARSE - 1]:
        return
    for place in tiers:
        yield Offer(np.delete(caps, place), np.delete(prices, place))
    below, cost = np.append(0, caps), np.append(0, prices)
    for place in tiers:
        for part in (0.25, 0.5, 0.75):
            cap = round(below[place] + part * (caps[place] - below[place]))
            for share in (part, part**0.5):
                price = round(cost[place] + share * (prices[place] - cost[place]))
                yield cleaned(np.append(caps, cap), np.append(prices, price))


def _priced(offer: Offer, start: int, stop: int, factor: float) -> Offer:
    prices = offer.prices.copy()
    prices[start:stop] = np.round(prices[start:stop] * factor)
    return cleaned(offer.caps, prices)


def _raised(offer: Offer, place: int, factor: float) -> Offer:
    """Return an offer whose prices from one tier on rise by the same amount, a part of that tier's price."""
    prices = offer.prices.copy()
    prices[place:] += round(prices[place] * (factor - 1))
    return cleaned(offer.caps, prices)
