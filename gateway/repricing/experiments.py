"""From an estimate and the menu in force to menus that may be tried on some of the customers to come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pricing.estimate.comparison import BEYOND, Sold, sold
from pricing.estimate.experiment import Limits, experiment_of, in_question
from pricing.estimate.fit import Estimate
from pricing.market.market import read_market
from pricing.market.worth import valuation_of
from pricing.menus.menu import Menu, digest

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tried:
    """What may be tried: as it is shown, and the menus of it."""

    shown: Json | None = None
    arms: tuple[Json, ...] = ()


def to_try(estimate: Estimate, before: Menu | None, asked: Mapping[str, Any], created: str) -> Tried:
    """Return steps from the menu in force that tell what an answer is worth, within what was asked.

    Args:
        estimate: the market, with the values that an answer may have.
        before: the menu in force.
        asked: an ``ExperimentInput``.
        created: when, RFC 3339.
    """
    if before is None or before.bill != "conversation":
        return Tried({"menu_version": None, "arms": {}, "reason": "No menu sold by the conversation is in force."})
    limits = Limits(asked["arms"], asked["price_factor_max"], asked["cap_factor_max"], asked["customers"])
    between = in_question(estimate)
    found = experiment_of(valuation_of(read_market(estimate.market)), between, sold(before), limits)
    arms = tuple(_stepped(before, arm, created) for arm in found.arms)
    share = asked["share"] / max(1, len(arms))
    shown = {
        "menu_version": before.version,
        "arms": {arm["version"]: share for arm in arms},
        "menus": list(arms),
        "value_between_nanousd": list(between),
        "told_apart": found.told_apart,
        "untold_ratio": found.untold,
        "reason": None if arms else "Nothing within these limits would tell more than the menu in force does.",
    }
    return Tried(shown, arms)


def _stepped(before: Menu, arm: Sold, created: str) -> Json:
    """Return the menu in force with the caps and prices of an arm, under a version that is a hash of all of it."""
    caps = {name: int(cap) for name, cap in zip(arm.names, arm.caps_tokens.tolist(), strict=True)}
    prices = {name: int(price) for name, price in zip(arm.names, arm.prices.tolist(), strict=True)}
    tiers = tuple(
        replace(
            tier,
            conversation_tokens_max=None if caps[tier.name] == BEYOND else caps[tier.name],
            price_nanousd=prices[tier.name],
        )
        for tier in before.tiers
    )
    body = replace(before, tiers=tiers, created=created).to_json()
    hashed = digest({"from": before.version, "tiers": body["tiers"]})
    return body | {"version": f"try_{hashed[:16]}"}
