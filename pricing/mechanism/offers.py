"""Menus at any caps and prices: who takes what by own choice, where prices are not those of the mechanism."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.worth import Valuation, worth_at, worth_error
from pricing.mechanism.rounding import Published


@dataclass(frozen=True, slots=True)
class Offer:
    """What stands on a menu: k tiers, caps and prices rising strictly.

    Attributes:
        caps: cap of each tier in steps. Shape (k,).
        prices: price of a conversation, whole nano-units. Shape (k,).
    """

    caps: Ints
    prices: Ints

    @property
    def key(self) -> tuple[int, ...]:
        """Return what two equal offers have in common and no others."""
        return (*self.caps.tolist(), *self.prices.tolist())


def offer_of(published: Published) -> Offer:
    """Return what of a published menu a customer sees."""
    return Offer(published.caps, published.prices)


def cleaned(caps: Ints, prices: Ints) -> Offer:
    """Return an offer without tiers that are no larger than a cheaper one; caps in any order. Shapes (k,)."""
    kept: list[tuple[int, int]] = []
    for price, cap in sorted(zip(prices.tolist(), (-caps).tolist(), strict=True)):
        if price >= 1 and -cap > (kept[-1][0] if kept else 0):
            if kept and kept[-1][1] == price:
                kept.pop()
            kept.append((-cap, price))
    columns = np.array(kept, dtype=np.int64).reshape(-1, 2)
    return Offer(columns[:, 0].copy(), columns[:, 1].copy())


def chosen(valuation: Valuation, offer: Offer) -> Published:
    """Return an offer with who takes what: each type what leaves it the most, of equals the larger tier.

    Two choices are equal where they differ by less than the worth is in doubt. A tier that nobody takes is left out.

    Args:
        valuation: n types, m steps.
        offer: k tiers.
    """
    every = offered(valuation, offer)
    worth, error, takes = every.worth, every.error, every.takes
    taken = np.unique(takes[takes >= 0])
    places = np.searchsorted(taken, takes)
    return Published(
        caps=offer.caps[taken],
        prices=offer.prices[taken],
        takes=np.where(takes >= 0, places, -1).astype(np.int64),
        worth=worth[:, taken],
        error=error,
        merged=0,
        unrounded=every.unrounded,
        surplus=every.surplus,
    )


def offered(valuation: Valuation, offer: Offer) -> Published:
    """Return an offer with who takes what, as ``chosen`` does, with all its tiers."""
    worth = worth_at(valuation, offer.caps)
    error = worth_error(valuation, len(offer.caps))
    takes = choices(worth, offer.prices, error)
    income = float(np.dot(valuation.share, np.where(takes >= 0, np.append(offer.prices, 0)[takes], 0)))
    return Published(offer.caps, offer.prices, takes, worth, error, 0, income, income)


def choices(worth: Floats, prices: Ints, error: float) -> Ints:
    """Return the tier that each type takes, -1 for none. Shapes (n, k), (k,) -> (n,).

    Args:
        worth: of each tier to each type, nano-units.
        prices: nano-units.
        error: bound on the error of a worth; ties within twice as much go to the larger tier.
    """
    if not worth.shape[1]:
        return np.full(len(worth), -1, dtype=np.int64)
    gains = worth - prices
    best = np.maximum(gains.max(axis=1), 0.0)
    good = gains >= best[:, None] - 2 * error
    last = worth.shape[1] - 1 - good[:, ::-1].argmax(axis=1)
    return np.where(good.any(axis=1), last, -1).astype(np.int64)
