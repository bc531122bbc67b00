"""The menu to sell in a market under the operator's wishes: by formula where there is a formula, otherwise by search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pricing.bounds.bound import Multipliers
from pricing.bounds.multipliers import multipliers_for
from pricing.market.answers import Floats
from pricing.market.market import Market
from pricing.market.worth import Valuation, valuation_of
from pricing.mechanism.demand import Crowd, crowd_of
from pricing.mechanism.mechanism import Allocation, full_menu
from pricing.mechanism.offers import Offer, chosen, offered
from pricing.mechanism.rounding import Published, publish
from pricing.mechanism.tiers import best_tiers
from pricing.menus.aims import TIERS_MOST, Aim, best_offer, resumed
from pricing.menus.constraints import terms_aim, unmet
from pricing.menus.menu import NotAMenu
from pricing.menus.request import Wishes
from pricing.menus.robust import LOWERED, Robust, lowered, robust_aim, robust_of

TIERS_SHOWN = 5
"""The largest number of tiers whose profit is shown where the operator does not fix the number."""


@dataclass(frozen=True, slots=True)
class Solution:
    """The solvers' results for a market: the full menu, the best menus of 1, 2, ... tiers, and the menu to sell.

    Attributes:
        valuation: the market, with the operator's wishes that apply to every menu.
        full: the full menu.
        by_tiers: the best menus of at most 1, 2, ... tiers.
        chosen: the menu to sell where a formula gives it, at the mechanism's prices.
        multipliers: the multipliers of the bound.
        aim: the objective of the search, where no formula gives the menu.
        offer: the offer that the search found.
        robust: the markets over which a robust menu is judged.
        crowd: the customers, where customers of one urgency differ.
    """

    valuation: Valuation
    full: Allocation
    by_tiers: list[Allocation]
    chosen: Allocation
    multipliers: Multipliers
    aim: Aim | None = None
    offer: Offer | None = None
    robust: Robust | None = None
    crowd: Crowd | None = None

    def published(self) -> Published:
        """Return the menu to sell, in whole numbers, with each type's choice at its average value.

        A tier that no type takes is left out, except where customers may differ from the types: some may then take it.
        """
        if self.offer is None:
            return publish(self.valuation, self.chosen.caps)
        if self.crowd is not None or self.robust is not None:
            return offered(self.valuation, self.offer)
        return chosen(self.valuation, self.offer)

    def takers(self, published: Published) -> Floats:
        """Return the share of each type that takes each tier. Shape (n, k)."""
        if self.crowd is not None and self.offer is not None:
            return self.crowd.takers(self.offer)
        takers: Floats = (published.takes[:, None] == np.arange(len(published.caps))).astype(np.float64)
        return takers


def solve(market: Market, wished: Wishes, multipliers: Multipliers | None = None) -> Solution:
    """Return the best menus of a market and the menu to sell; ``multipliers`` may come from a file.

    Raises:
        NotAMarket: the market cannot be priced.
        NotAMenu: no menu was found that fulfils the wishes.
    """
    valuation = replace(valuation_of(market), surplus_weight=wished.surplus_weight, everyone=wished.everyone)
    full = full_menu(valuation)
    by_tiers = best_tiers(valuation, wished.tiers or TIERS_SHOWN)
    best = full if wished.tiers is None else by_tiers[-1]
    solution = Solution(valuation, full, by_tiers, best, multipliers or multipliers_for(valuation, full))
    return _sought(solution, market, wished)


def _sought(solution: Solution, market: Market, wished: Wishes) -> Solution:
    """Return the solution, with the search's result where a wish has no formula."""
    valuation, most = solution.valuation, wished.tiers or TIERS_MOST
    differ = bool(market.value_sigma or market.taste_nanousd)
    if differ and (wished.objective != "profit" or wished.terms or wished.worse_off or wished.surplus_weight):
        raise NotAMenu("Where customers of one urgency differ, the only objective of a menu is profit.", "objective")
    crowd = crowd_of([(1.0, valuation, market.value_sigma, market.taste_nanousd)]) if differ else None
    robust = None
    if wished.objective == "profit_if_resumed":
        aim = Aim(resumed)
    elif wished.robust is not None:
        robust = robust_of(market, wished.robust, most)
        aim = robust_aim(robust)
    elif wished.terms or wished.worse_off is not None:
        aim = terms_aim(valuation, wished, most)
    elif crowd is not None:
        aim = Aim(_earned(crowd), tuple(lowered(valuation, most, LOWERED)))
    else:
        return solution
    offer = best_offer(valuation, aim, most)
    if (wished.terms or wished.worse_off is not None) and not np.isfinite(aim.score(valuation, offer)):
        raise unmet(most)
    return replace(solution, aim=aim, offer=offer, robust=robust, crowd=crowd)


def _earned(crowd: Crowd) -> Callable[[Valuation, Offer], float]:
    return lambda _, offer: crowd.profit(offer) if len(offer.caps) else 0.0
