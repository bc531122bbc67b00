"""A joint search over caps and prices for aims without a formula, with the same steps on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pricing.mechanism.offers import Offer, cleaned

Score = Callable[[Offer], float]
"""The score of an offer, minus infinity where the offer may not be sold."""

BETTER = 1e-9
"""The relative gain below which an offer does not count as better: far more than the rounding of a score."""

STRIDES = (0.16, 0.04, 0.01, 0.0025, 0.0005, 0.0001, 0.00001)
"""The share by which a move changes a price; a cap moves by a quarter of this share of all steps. Coarse moves first."""

KEPT = 4
"""How many of the offers reached by coarse moves are refined by fine moves."""

COARSE = 3
"""How many of the strides are coarse; the last of them is also the first fine stride."""


@dataclass(slots=True)
class Search:
    """The offers tried so far, so that no offer is scored twice and every search ends.

    Attributes:
        score: the aim.
        steps: the number of steps, and the largest cap.
        most: the most tiers of an offer.
        tries: the most offers that may be scored.
        found: scores of the offers tried, by key.
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
        """Return the offer reached by moves that improve the score, coarse moves first."""
        tries_end = len(self.found) + tries
        for stride in strides:
            better: Offer | None = offer
            while better is not None and len(self.found) < tries_end:
                offer, better = better, None
                target = self.of(offer) + BETTER * abs(self.of(offer))
                for neighbour in moves(offer, stride, self.steps):
                    if self.of(neighbour) > target:
                        better = neighbour
                        break
                    if len(self.found) >= tries_end:
                        break
        return offer


def sought(search: Search, starts: Sequence[Offer]) -> Offer:
    """Return the best offer reached from some starts, which scores at least as much as the best start.

    Coarse moves improve every start, and fine moves improve the best few results. The search is not random, and a move
    counts only where it gains more than rounding could, so every machine finds the same offer.

    Args:
        search: the aim and the bounds.
        starts: at least one offer to start with.
    """
    coarse, fine = STRIDES[:COARSE], STRIDES[COARSE - 1 :]
    tries_each = max(1, search.tries // 2 // len(starts))
    reached = {offer.key: offer for offer in (search.climbed(start, coarse, tries_each) for start in starts)}
    best = sorted(reached.values(), key=lambda offer: (-search.of(offer), offer.key))[:KEPT]
    tries_each = max(1, search.tries // 2 // len(best))
    refined = [search.climbed(offer, fine, tries_each) for offer in best]
    return max([*refined, *starts], key=search.of)


def moves(offer: Offer, stride: float, steps: int) -> Iterator[Offer]:
    """Yield offers that differ a little in prices, price rises, caps, or caps and prices; then in their tiers.

    Only coarse strides remove and add tiers.
    """
    caps, prices = offer.caps, offer.prices
    distance = max(1, round(stride * steps / 4))
    tiers = range(len(caps))
    for factor in (1 + stride, 1 / (1 + stride)):
        for place in tiers:
            yield _priced(offer, place, place + 1, factor)
        for place in tiers:
            yield _raised(offer, place, factor)
    for place in tiers:
        for cap_change in (-distance, distance):
            moved_caps = caps.copy()
            moved_caps[place] = min(max(1, moved_caps[place] + cap_change), steps)
            if moved_caps[place] != caps[place]:
                yield cleaned(moved_caps, prices)
                part = prices[place] * (moved_caps[place] / caps[place] - 1)
                for share in (1.0, 0.5, 0.2):
                    shifted = prices.copy()
                    shifted[place] += round(part * share)
                    yield cleaned(moved_caps, shifted)
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
    """Return an offer with the prices from one tier on raised by one amount, a share of the price of that tier."""
    prices = offer.prices.copy()
    prices[place:] += round(prices[place] * (factor - 1))
    return cleaned(offer.caps, prices)
