"""Derives menus to try on some of the new customers from an estimate and the menu in force."""

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
    """An experiment that may be tried: its description for the result of the run, and its menus."""

    shown: Json | None = None
    arms: tuple[Json, ...] = ()


def to_try(estimate: Estimate, menu_in_force: Menu | None, request: Mapping[str, Any], created: str) -> Tried:
    """Return menus one step from the menu in force that reveal the value of an answer, within the requested limits.

    Args:
        estimate: the market, with the values that an answer may have.
        menu_in_force: the menu in force.
        request: an ``ExperimentInput``.
        created: the time of creation of the menus, RFC 3339.
    """
    if menu_in_force is None or menu_in_force.bill != "conversation":
        return Tried({"menu_version": None, "arms": {}, "reason": "No menu sold by the conversation is in force."})
    limits = Limits(request["arms"], request["price_factor_max"], request["cap_factor_max"], request["customers"])
    value_range = in_question(estimate)
    experiment = experiment_of(valuation_of(read_market(estimate.market)), value_range, sold(menu_in_force), limits)
    arms = tuple(_stepped(menu_in_force, arm, created) for arm in experiment.arms)
    share = request["share"] / max(1, len(arms))
    shown = {
        "menu_version": menu_in_force.version,
        "arms": {arm["version"]: share for arm in arms},
        "menus": list(arms),
        "value_between_nanousd": list(value_range),
        "told_apart": experiment.told_apart,
        "untold_ratio": experiment.untold,
        "reason": None if arms else "Nothing within these limits would tell more than the menu in force does.",
    }
    return Tried(shown, arms)


def _stepped(menu_in_force: Menu, arm: Sold, created: str) -> Json:
    """Return the menu in force with the caps and prices of an arm, under a version that is a hash of its content."""
    caps = {name: int(cap) for name, cap in zip(arm.names, arm.caps_tokens.tolist(), strict=True)}
    prices = {name: int(price) for name, price in zip(arm.names, arm.prices.tolist(), strict=True)}
    tiers = tuple(
        replace(
            tier,
            conversation_tokens_max=None if caps[tier.name] == BEYOND else caps[tier.name],
            price_nanousd=prices[tier.name],
        )
        for tier in menu_in_force.tiers
    )
    body = replace(menu_in_force, tiers=tiers, created=created).to_json()
    hashed = digest({"from": menu_in_force.version, "tiers": body["tiers"]})
    return body | {"version": f"try_{hashed[:16]}"}
