"""What a menu is looked for that no formula gives: its aim as a score of offers, and the offers to begin with."""

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
"""How many tiers a menu may have that is looked for, unless another number is asked for."""

TRIES_LEAST, TRIES_MOST = 150, 2000
"""How many offers are tried at least and at most for each number of tiers."""

CELLS_TRIED = 4 * 10**7
"""Types times steps, over all offers tried for a number of tiers."""

TYPES_MOST = 48
"""To how many types a market is thinned out while offers are tried; what is found is then scored by all."""

SINGLE_PLANS = 6
"""How many prices of a single plan without a cap a search begins with."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What is looked for.

    Attributes:
        score: what an offer scores in a market; minus infinity where it may not be sold.
        starts: offers that stand for themselves besides those of the mechanism.
    """

    score: Callable[[Valuation, Offer], float]
    starts: tuple[Offer, ...] = ()

    def of(self, valuation: Valuation) -> Score:
        """Return the score in one market."""
        return lambda offer: self.score(valuation, offer)


def resumed(valuation: Valuation, offer: Offer) -> float:
    """Return what an offer earns when callers resume where that pays, nano-units for each conversation offered."""
    published = chosen(valuation, offer)
    if not len(published.caps):
        return 0.0
    return resumption(valuation, published, margins(valuation, published)).profit


def best_offer(valuation: Valuation, aim: Aim, most: int) -> Offer:
    """Return the best offer that is found, of at most ``most`` tiers; no worse than any it begins with.

    Begun with are the mechanism's menus of 1, 2, ... tiers, single plans without a cap, and the aim's own. With what is
    found for two tiers the search for more goes on.

    Args:
        valuation: n types, m steps.
        aim: what is looked for.
        most: the largest number of tiers.
    """
    steps = len(valuation.steps.tokens)
    thin = thinned(valuation)
    tries = max(TRIES_LEAST, min(TRIES_MOST, CELLS_TRIED // (steps * len(thin.share))))
    starts = [one for one in (*_mechanism(valuation, most), *aim.starts) if 0 < len(one.caps) <= most]
    score = aim.of(valuation)
    found = [one for one in starts if np.isfinite(score(one))]
    for tiers in dict.fromkeys((min(2, most), most)):
        few = [one for one in found if len(one.caps) <= tiers]
        if few:
            found.append(sought(Search(aim.of(thin), steps, tiers, tries), few))
    empty = Offer(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    return max([*reversed(found), empty], key=score)


def thinned(valuation: Valuation, most: int = TYPES_MOST) -> Valuation:
    """Return a market of at most so many types: runs of neighbours are taken together, at the urgency of the last."""
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
    """Return the best menus of each number of tiers bought once, and single plans without a cap."""
    offers = [offer_of(publish(valuation, menu.caps)) for menu in best_tiers(valuation, most)]
    last = len(valuation.steps.tokens)
    worth = worth_at(valuation, np.array([last]))[:, 0]
    earned = np.argsort(-valuation.cumulative * worth, kind="stable")[:SINGLE_PLANS]
    prices = np.floor(worth[np.sort(earned)]).astype(np.int64)
    offers += [Offer(np.array([last]), np.array([price])) for price in prices.tolist() if price >= 1]
    return list({one.key: one for one in offers}.values())
