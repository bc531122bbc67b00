"""Who takes what at given prices where customers of one urgency differ in what an answer is worth to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from pricing.market.answers import Floats, Ints
from pricing.market.fields import NotAMarket
from pricing.market.worth import Valuation
from pricing.mechanism.offers import Offer

CELLS_MAX = 1 << 24
"""Types times steps, over all markets that are looked at together: 128 MB."""

EQUAL = 1e-9
"""The relative difference within which a type takes the larger of two tiers."""

NODES = 25
"""How many equally likely values stand for a dispersion of value where tastes differ as well."""

_LEVELS: Floats = ndtri((np.arange(NODES) + 0.5) / NODES)


@dataclass(frozen=True, slots=True)
class Crowd:
    """Types of one market or of several that are looked at together, with what every cap is worth to them.

    Attributes:
        weight: of each type, adding up to 1 over all. Shape (n,).
        worth: of each cap 0, 1, ..., m to each type at its average value, nano-units. Shape (n, m + 1).
        cost: of serving it, or None where serving costs nothing. Shape (n, m + 1).
        sigma: standard deviation of the logarithm of the value within each type; its mean stays. Shape (n,).
        taste: scale of extreme-value shocks to each tier and to none, nano-units. Shape (n,).
    """

    weight: Floats
    worth: Floats
    cost: Floats | None
    sigma: Floats
    taste: Floats

    def takers(self, offer: Offer) -> Floats:
        """Return the share of each type that takes each tier. Shape (n, k)."""
        worth = self.worth[:, offer.caps]
        if not len(offer.caps):
            return worth
        if self.taste.any():
            return _with_tastes(worth, offer.prices, self.sigma, self.taste)
        if not self.sigma.any():
            return _alike(worth, offer.prices)
        low, high = _between(worth, offer.prices)
        within = _below(high, self.sigma) - _below(low, self.sigma)
        return np.where(self.sigma[:, None] > 0, np.maximum(within, 0.0), _alike(worth, offer.prices))

    def profit(self, offer: Offer) -> float:
        """Return what an offer earns, nano-units for each conversation offered."""
        return float(np.sum(self.earned(offer)))

    def earned(self, offer: Offer) -> Floats:
        """Return what an offer earns from each type, by its weight: nano-units, adding up to the profit. Shape (n,)."""
        margin = offer.prices - (0.0 if self.cost is None else self.cost[:, offer.caps])
        earned: Floats = self.weight * np.sum(self.takers(offer) * margin, axis=1)
        return earned

    def surplus(self, offer: Offer) -> float:
        """Return what customers keep, nano-units for each conversation offered: over equally likely values."""
        worth = self.worth[:, offer.caps]
        multiple = np.exp(self.sigma * _LEVELS[:, None] - self.sigma**2 / 2)[:, :, None]
        gains = multiple * worth - offer.prices
        most = gains.max(axis=2, initial=0.0)
        scale = np.where(self.taste > 0, self.taste, 1.0)
        odds = np.exp(-most / scale) + np.exp((gains - most[:, :, None]) / scale[:, None]).sum(axis=2)
        kept = most + np.where(self.taste > 0, scale * np.log(odds), 0.0)
        return float(np.dot(self.weight, kept.mean(axis=0)))


def crowd_of(markets: list[tuple[float, Valuation, float, float]]) -> Crowd:
    """Return the types of some markets together.

    Args:
        markets: of each its weight, the market with the same number of steps, the dispersion of its value, the scale
            of tastes.

    Raises:
        NotAMarket: they are too many to be looked at together.
    """
    steps = len(markets[0][1].steps.tokens)
    if sum(len(one.share) for _, one, _, _ in markets) * steps > CELLS_MAX:
        raise NotAMarket("The market has too many types times steps for customers who differ; give fewer.")
    total = sum(weight for weight, *_ in markets)
    costly = any(one.cost_per_token for _, one, _, _ in markets)
    return Crowd(
        weight=np.concatenate([one.share * (weight / total) for weight, one, _, _ in markets]),
        worth=np.concatenate([_summed(one.gains(slice(None), one.left(slice(None)))) for _, one, _, _ in markets]),
        cost=np.concatenate(
            [_summed(one.served(one.left(slice(None)))) * one.cost_per_token for _, one, _, _ in markets]
        )
        if costly
        else None,
        sigma=np.concatenate([np.full(len(one.share), sigma) for _, one, sigma, _ in markets]),
        taste=np.concatenate([np.full(len(one.share), taste) for _, one, _, taste in markets]),
    )


def _summed(terms: Floats) -> Floats:
    sums = np.zeros((terms.shape[0], terms.shape[1] + 1))
    np.cumsum(terms, axis=1, out=sums[:, 1:])
    return sums


def _alike(worth: Floats, prices: Ints) -> Floats:
    """Return 1 where a type takes a tier, if its customers are alike; ties go to the larger tier. Shape (n, k)."""
    gains = worth - prices
    best = np.maximum(gains.max(axis=1), 0.0)
    good = gains >= best[:, None] - EQUAL * np.abs(worth).max(axis=1)[:, None]
    last = worth.shape[1] - 1 - good[:, ::-1].argmax(axis=1)
    taken = np.zeros_like(worth)
    taken[np.arange(len(worth)), last] = good.any(axis=1)
    return taken


def _between(worth: Floats, prices: Ints) -> tuple[Floats, Floats]:
    """Return between which multiples of the average value each tier is the best one. Shapes (n, k), (n, k).

    A customer whose value is z times the average keeps z u_k - p_k of tier k, a line in z, and 0 of none: tier k is
    best from where it passes all smaller ones until the first larger one passes it.
    """
    tiers = len(prices)
    every = np.concatenate((np.zeros((len(worth), 1)), worth), axis=1)
    cost = np.concatenate(([0.0], prices.astype(np.float64)))
    low, high = np.zeros((len(worth), tiers)), np.full((len(worth), tiers), np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for tier in range(1, tiers + 1):
            for other in range(tier):
                rise = every[:, tier] - every[:, other]
                passed = np.where(rise > 0, (cost[tier] - cost[other]) / rise, np.inf)
                low[:, tier - 1] = np.maximum(low[:, tier - 1], passed)
                if other:
                    high[:, other - 1] = np.minimum(high[:, other - 1], passed)
    return low, high


def _below(multiple: Floats, sigma: Floats) -> Floats:
    """Return the share of customers whose value is below a multiple of the average. Shapes (n, k), (n,) -> (n, k)."""
    spread = np.where(sigma > 0, sigma, 1.0)[:, None]
    with np.errstate(divide="ignore"):
        below: Floats = ndtr(np.log(multiple) / spread + spread / 2)
    return below


def _with_tastes(worth: Floats, prices: Ints, sigma: Floats, taste: Floats) -> Floats:
    """Return the shares where tastes differ too: a logit over tiers and none, averaged over values. Shape (n, k)."""
    levels = _LEVELS if sigma.any() else np.zeros(1)
    multiple = np.exp(sigma * levels[:, None] - sigma**2 / 2)[:, :, None]
    scale = np.where(taste > 0, taste, 1.0)[:, None]
    gains = (multiple * worth - prices) / scale
    most = np.maximum(gains.max(axis=2, keepdims=True), 0.0)
    odds = np.exp(gains - most)
    shares: Floats = (odds / (np.exp(-most) + odds.sum(axis=2, keepdims=True))).mean(axis=0)
    return shares
