"""Objectives without a formula for the best menu: the score of an offer, and the offers with which a search starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pricing.market.worth import Valuation, worth_at
from pricing.mechanism.lasting import margins
from pricing.mechanism.offers import Offer, chosen, offer_of
from pricing.mechanism.resumption import resumption
from pricing.mechanism.rounding import publish
from pricing.mechanism.tiers import best_tiers
from pricing.menus.seek import Score, Search, sought

TIERS_MOST = 5
"""By default, the most tiers of a menu that a search finds."""

TRIES_LEAST, TRIES_MOST = 150, 2000
"""The least and the most offers that are tried for each number of tiers."""

CELLS_TRIED = 4 * 10**7
"""The most types times steps, summed over the offers tried for each number of tiers."""

TYPES_MOST = 48
"""The most types of a market while offers are tried, by merging neighbours; the result is scored by all types."""

SINGLE_PLANS = 6
"""How many prices of a single plan without a cap a search starts with."""


@dataclass(frozen=True, slots=True)
class Aim:
    """The objective of a search.

    Attributes:
        score: the score of an offer in a market; minus infinity where the offer may not be sold.
        starts: offers that the search starts with, besides the mechanism's offers.
    """

    score: Callable[[Valuation, Offer], float]
    starts: tuple[Offer, ...] = ()

    def of(self, valuation: Valuation) -> Score:
        """Return the score in one market."""
        return lambda offer: self.score(valuation, offer)


def resumed(valuation: Valuation, offer: Offer) -> float:
    """Return the profit of an offer when callers resume where that pays, nano-units for each conversation offered."""
    published = chosen(valuation, offer)
    if not len(published.caps):
        return 0.0
    return resumption(valuation, published, margins(valuation, published)).profit


def best_offer(valuation: Valuation, aim: Aim, most: int) -> Offer:
    """Return the best offer found of at most ``most`` tiers, which is no worse than any offer the search starts with.

    The search starts with the mechanism's menus of 1, 2, ... tiers, single plans without a cap, and the aim's own
    offers. A search for more than two tiers also starts with the best offer found of two tiers.

    Args:
        valuation: n types, m steps.
        aim: the objective.
        most: the largest number of tiers.
    """
    steps = len(valuation.steps.tokens)
    thin = thinned(valuation)
    tries = max(TRIES_LEAST, min(TRIES_MOST, CELLS_TRIED // (steps * len(thin.share))))
    starts = [offer for offer in (*_mechanism(valuation, most), *aim.starts) if 0 < len(offer.caps) <= most]
    score = aim.of(valuation)
    candidates = [offer for offer in starts if np.isfinite(score(offer))]
    for tiers in dict.fromkeys((min(2, most), most)):
        starting_offers = [offer for offer in candidates if len(offer.caps) <= tiers]
        if starting_offers:
            candidates.append(sought(Search(aim.of(thin), steps, tiers, tries), starting_offers))
    empty = Offer(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    return max([*reversed(candidates), empty], key=score)


def thinned(valuation: Valuation, most: int = TYPES_MOST) -> Valuation:
    """Return a market of at most ``most`` types: each run of neighbours becomes one type, with its last type's urgency."""
    types = len(valuation.share)
    if types <= most:
        return valuation
    levels = np.arange(1, most) / most * float(valuation.cumulative[-1])
    lasts = np.unique(np.append(np.searchsorted(valuation.cumulative, levels), types - 1))
    cumulative = valuation.cumulative[lasts]
    return replace(
        valuation,
        urgency_per_s=valuation.urgency_per_s[lasts],
        share=np.diff(cumulative, prepend=0.0),
        cumulative=cumulative,
        value=valuation.value[lasts],
        kept=None if valuation.kept is None else valuation.kept[lasts],
    )


def _mechanism(valuation: Valuation, most: int) -> Sequence[Offer]:
    """Return the best menus of each number of tiers when callers buy once, and single plans without a cap."""
    offers = [offer_of(publish(valuation, menu.caps)) for menu in best_tiers(valuation, most)]
    last = len(valuation.steps.tokens)
    worth = worth_at(valuation, np.array([last]))[:, 0]
    best_types = np.argsort(-valuation.cumulative * worth, kind="stable")[:SINGLE_PLANS]
    prices = np.floor(worth[np.sort(best_types)]).astype(np.int64)
    offers += [Offer(np.array([last]), np.array([price])) for price in prices.tolist() if price >= 1]
    return list({offer.key: offer for offer in offers}.values())
