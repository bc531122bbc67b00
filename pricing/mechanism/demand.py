"""Demand for each tier at fixed prices where customers of the same urgency value an answer differently."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.fields import NotAMarket
from pricing.market.worth import Valuation
from pricing.mechanism.offers import Offer

CELLS_MAX = 1 << 24
"""The most types times steps, over all markets of one crowd: 128 MB."""

EQUAL = 1e-9
"""The relative difference within which a type takes the larger of two tiers."""

NODES = 25
"""How many equally likely values represent a dispersion of value, in the surplus and where tastes differ as well."""


@cache
def _levels() -> Floats:
    """Return the standard normal quantiles at the middles of ``NODES`` equal shares. Shape (NODES,)."""
    from scipy.special import ndtri  # noqa: PLC0415 - it takes a third of the time in which a menu is verified

    return np.asarray(ndtri((np.arange(NODES) + 0.5) / NODES))


@dataclass(frozen=True, slots=True)
class Crowd:
    """Types of one market or of several markets together, with the worth of every cap to each type.

    Attributes:
        weight: weight of each type; the weights add up to 1. Shape (n,).
        worth: worth of each cap 0, 1, ..., m to each type at its average value, nano-units. Shape (n, m + 1).
        cost: cost of serving each cap, nano-units, or None where serving costs nothing. Shape (n, m + 1).
        sigma: standard deviation of the logarithm of the value within each type, at an unchanged mean. Shape (n,).
        taste: scale of extreme-value shocks to the worth of each tier and of none, nano-units. Shape (n,).
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
        takers, differing = _alike(worth, offer.prices), np.flatnonzero(self.sigma > 0)
        low, high = _between(worth[differing], offer.prices)
        below = _below(np.concatenate((low, high), axis=1), self.sigma[differing])
        takers[differing] = np.maximum(below[:, len(offer.caps) :] - below[:, : len(offer.caps)], 0.0)
        return takers

    def profit(self, offer: Offer) -> float:
        """Return what an offer earns, nano-units for each conversation offered."""
        return float(np.sum(self.earned(offer)))

    def earned(self, offer: Offer) -> Floats:
        """Return what an offer earns from each type, by its weight: nano-units, adding up to the profit. Shape (n,)."""
        margin = offer.prices - (0.0 if self.cost is None else self.cost[:, offer.caps])
        earned: Floats = self.weight * np.sum(self.takers(offer) * margin, axis=1)
        return earned

    def single_profits(self, cap: int, prices: Ints) -> Floats:
        """Return what a single tier of one cap earns at each of several prices, as ``profit`` does. Shape (prices,)."""
        if self.taste.any():
            return np.array([self.profit(Offer(np.array([cap]), np.array([price]))) for price in prices.tolist()])
        worth, differing = self.worth[:, cap], np.flatnonzero(self.sigma > 0)
        gains = worth - prices[:, None]
        takers = (gains >= np.maximum(gains, 0.0) - EQUAL * np.abs(worth)).astype(np.float64)
        multiple = np.full((len(differing), len(prices)), np.inf)
        np.divide(prices, worth[differing, None], out=multiple, where=worth[differing, None] > 0)
        takers[:, differing] = 1.0 - _below(multiple, self.sigma[differing]).T
        margin = prices[:, None] - (0.0 if self.cost is None else self.cost[:, cap])
        profits: Floats = (self.weight * (takers * margin)).sum(axis=1)
        return profits

    def surplus(self, offer: Offer) -> float:
        """Return customers' surplus, averaged over equally likely values, nano-units for each conversation offered."""
        worth = self.worth[:, offer.caps]
        multiple = np.exp(self.sigma * _levels()[:, None] - self.sigma**2 / 2)[:, :, None]
        gains = multiple * worth - offer.prices
        best_gain = gains.max(axis=2, initial=0.0)
        scale = np.where(self.taste > 0, self.taste, 1.0)
        odds = np.exp(-best_gain / scale) + np.exp((gains - best_gain[:, :, None]) / scale[:, None]).sum(axis=2)
        inclusive_value = best_gain + np.where(self.taste > 0, scale * np.log(odds), 0.0)
        return float(np.dot(self.weight, inclusive_value.mean(axis=0)))


def crowd_of(markets: list[tuple[float, Valuation, float, float]]) -> Crowd:
    """Return the types of some markets together.

    Args:
        markets: weight, market, dispersion of value and scale of tastes of each; all have the same number of steps.

    Raises:
        NotAMarket: the markets have too many types times steps together.
    """
    steps = len(markets[0][1].steps.tokens)
    if sum(len(valuation.share) for _, valuation, _, _ in markets) * steps > CELLS_MAX:
        raise NotAMarket("The market has too many types times steps for customers who differ; give fewer.")
    total = sum(weight for weight, *_ in markets)
    costly = any(valuation.cost_per_token for _, valuation, _, _ in markets)
    return Crowd(
        weight=np.concatenate([valuation.share * (weight / total) for weight, valuation, _, _ in markets]),
        worth=np.concatenate(
            [_summed(valuation.gains(slice(None), valuation.left(slice(None)))) for _, valuation, _, _ in markets]
        ),
        cost=np.concatenate(
            [
                _summed(valuation.served(valuation.left(slice(None)))) * valuation.cost_per_token
                for _, valuation, _, _ in markets
            ]
        )
        if costly
        else None,
        sigma=np.concatenate([np.full(len(valuation.share), sigma) for _, valuation, sigma, _ in markets]),
        taste=np.concatenate([np.full(len(valuation.share), taste) for _, valuation, _, taste in markets]),
    )


def _summed(terms: Floats) -> Floats:
    sums = np.zeros((terms.shape[0], terms.shape[1] + 1))
    np.cumsum(terms, axis=1, out=sums[:, 1:])
    return sums


def _alike(worth: Floats, prices: Ints) -> Floats:
    """Return 1 where a type of identical customers takes a tier; ties go to the larger tier. Shape (n, k)."""
    gains = worth - prices
    best = np.maximum(gains.max(axis=1), 0.0)
    is_best = gains >= best[:, None] - EQUAL * np.abs(worth).max(axis=1)[:, None]
    tier = worth.shape[1] - 1 - is_best[:, ::-1].argmax(axis=1)
    takers = np.zeros_like(worth)
    takers[np.arange(len(worth)), tier] = is_best.any(axis=1)
    return takers


def _between(worth: Floats, prices: Ints) -> tuple[Floats, Floats]:
    """Return the least and the greatest multiple of the average value at which each tier is best. Shapes (n, k) twice.

    A customer whose value is z times the average gains z u_k - p_k from tier k, a line in z, and 0 from none: tier k is
    best from where its line passes those of all smaller tiers until the line of a larger tier passes it.
    """
    worth_with_none = np.concatenate((np.zeros((len(worth), 1)), worth), axis=1)
    prices_with_none = np.concatenate(([0.0], prices.astype(np.float64)))
    tier = np.arange(len(prices))
    smaller = tier[:, None] >= tier
    rise = worth_with_none[:, 1:, None] - worth_with_none[:, None, :-1]
    more = prices_with_none[1:, None] - prices_with_none[:-1]
    crosses = smaller & (rise > 0)
    crossing = np.where(crosses, more / np.where(crosses, rise, 1.0), np.inf)
    low = np.where(smaller, crossing, 0.0).max(axis=2)
    high = np.append(crossing[:, :, 1:].min(axis=1), np.full((len(worth), 1), np.inf), axis=1)
    return np.maximum(low, 0.0), high


def _below(multiple: Floats, sigma: Floats) -> Floats:
    """Return the share of customers whose value is below a multiple of the average. Shapes (n, k), (n,) -> (n, k)."""
    from scipy.special import ndtr  # noqa: PLC0415 - as above

    spread = sigma[:, None]
    with np.errstate(divide="ignore"):
        below: Floats = ndtr(np.log(multiple) / spread + spread / 2)
    return below


def _with_tastes(worth: Floats, prices: Ints, sigma: Floats, taste: Floats) -> Floats:
    """Return the shares where tastes also differ: a logit over tiers and none, averaged over values. Shape (n, k)."""
    levels = _levels() if sigma.any() else np.zeros(1)
    multiple = np.exp(sigma * levels[:, None] - sigma**2 / 2)[:, :, None]
    scale = np.where(taste > 0, taste, 1.0)[:, None]
    gains = (multiple * worth - prices) / scale
    best_gain = np.maximum(gains.max(axis=2, keepdims=True), 0.0)
    odds = np.exp(gains - best_gain)
    shares: Floats = (odds / (np.exp(-best_gain) + odds.sum(axis=2, keepdims=True))).mean(axis=0)
    return shares
