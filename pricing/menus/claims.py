"""The claim that may be made about a computed menu, in one clause."""

from __future__ import annotations

import json

from pricing.market.market import ExponentialLength, Market
from pricing.menus.request import Wishes


def claim(market: Market, wished: Wishes) -> str:
    """Return the claim about a menu of a market under the operator's wishes: the start of its certificate."""
    return _best(market, wished) + _of(market) + _besides(wished)


def is_estimated(market: Market) -> bool:
    """Return whether the market was estimated from customers' behaviour."""
    return "estimate" in json.loads(market.given)


def _best(market: Market, wished: Wishes) -> str:
    if wished.objective == "profit_if_resumed":
        return "the menu that earns the most of those tried when callers resume"
    differ = bool(market.value_sigma or market.taste_nanousd)
    if wished.robust is not None:
        return "the menu that earns the most of those tried on average over the market and those near it"
    if wished.terms or wished.worse_off is not None:
        return f"the {_aim(wished)}menu of those tried under its terms"
    if differ:
        return "the most profitable menu of those tried"
    if wished.surplus_weight or wished.everyone:
        caps = "caps" if wished.tiers is None else f"at most {wished.tiers} caps"
        return f"the {_aim(wished)}menu of {caps}" + (" that serves everyone" if wished.everyone else "")
    if wished.tiers is not None:
        return f"the most profitable menu of at most {wished.tiers} caps"
    free = market.cost_nanousd_per_token == 0
    constant_hazard = isinstance(market.answer_length, ExponentialLength)
    if market.delay == "exponential" and (free or constant_hazard) and not _of(market):
        return "the most profitable of all mechanisms"
    return "the most profitable menu of caps"


def _aim(wished: Wishes) -> str:
    if not wished.surplus_weight:
        return "most profitable "
    return f"best (profit and {wished.surplus_weight:g} of customers' surplus) "


def _of(market: Market) -> str:
    """Return the market that a claim is limited to, where the market was estimated or assumed."""
    if is_estimated(market):
        return " for the market as it was estimated"
    return " for a market that was assumed" if "assumption" in json.loads(market.given) else ""


def _besides(wished: Wishes) -> str:
    """Return the parts of the menu that the claim does not cover."""
    exceptions = ""
    if wished.bill == "subscription":
        exceptions += ", each conversation at its price; of the period's fee nothing is claimed"
    if any(wished.limits.values()):
        exceptions += ", before its limits, of which nothing is claimed"
    return exceptions
