"""Menus at any caps and prices, not only the mechanism's: the tier that each type chooses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.worth import Valuation, worth_at, worth_error
from pricing.mechanism.rounding import Published


@dataclass(frozen=True, slots=True)
class Offer:
    """The k tiers of a menu, with strictly rising caps and prices.

    Attributes:
        caps: cap of each tier in steps. Shape (k,).
        prices: price of a conversation, whole nano-units. Shape (k,).
    """

    caps: Ints
    prices: Ints

    @property
    def key(self) -> tuple[int, ...]:
        """Return a key that only equal offers share."""
        return (*self.caps.tolist(), *self.prices.tolist())


def offer_of(published: Published) -> Offer:
    """Return the part of a published menu that customers see."""
    return Offer(published.caps, published.prices)


def cleaned(caps: Ints, prices: Ints) -> Offer:
    """Return an offer without tiers that cost less than 1 or are no larger than a tier that costs no more.

    Args:
        caps: caps in steps, in any order. Shape (k,).
        prices: nano-units. Shape (k,).
    """
    undominated: list[tuple[int, int]] = []
    for price, cap in sorted(zip(prices.tolist(), (-caps).tolist(), strict=True)):
        if price >= 1 and -cap > (undominated[-1][0] if undominated else 0):
            if undominated and undominated[-1][1] == price:
                undominated.pop()
            undominated.append((-cap, price))
    return Offer(
        np.array([cap for cap, _ in undominated], dtype=np.int64),
        np.array([price for _, price in undominated], dtype=np.int64),
    )


def chosen(valuation: Valuation, offer: Offer) -> Published:
    """Return an offer with each type's choice: the tier with the largest gain; ties go to the larger tier.

    Gains that differ by at most twice the bound on the error of a worth are a tie. A tier that no type takes is left
    out.

    Args:
        valuation: n types, m steps.
        offer: k tiers.
    """
    all_tiers = offered(valuation, offer)
    worth, error, takes = all_tiers.worth, all_tiers.error, all_tiers.takes
    tiers_taken = np.unique(takes[takes >= 0])
    places = np.searchsorted(tiers_taken, takes)
    return Published(
        caps=offer.caps[tiers_taken],
        prices=offer.prices[tiers_taken],
        takes=np.where(takes >= 0, places, -1).astype(np.int64),
        worth=worth[:, tiers_taken],
        error=error,
        merged=0,
        unrounded=all_tiers.unrounded,
        surplus=all_tiers.surplus,
    )


def offered(valuation: Valuation, offer: Offer) -> Published:
    """Return an offer with each type's choice, as ``chosen`` does, with all its tiers."""
    worth = worth_at(valuation, offer.caps)
    error = worth_error(valuation, len(offer.caps))
    takes = choices(worth, offer.prices, error)
    income = float(np.dot(valuation.share, np.where(takes >= 0, np.append(offer.prices, 0)[takes], 0)))
    return Published(offer.caps, offer.prices, takes, worth, error, 0, income, income)


def choices(worth: Floats, prices: Ints, error: float) -> Ints:
    """Return the tier that each type takes, -1 for none. Shapes (n, k), (k,) -> (n,).

    Args:
        worth: worth of each tier to each type, nano-units.
        prices: price of each tier, nano-units.
        error: bound on the error of a worth; ties within twice the bound go to the larger tier.
    """
    if not worth.shape[1]:
        return np.full(len(worth), -1, dtype=np.int64)
    gains = worth - prices
    best = np.maximum(gains.max(axis=1), 0.0)
    within_error = gains >= best[:, None] - 2 * error
    largest = worth.shape[1] - 1 - within_error[:, ::-1].argmax(axis=1)
    return np.where(within_error.any(axis=1), largest, -1).astype(np.int64)
