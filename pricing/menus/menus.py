"""From a market to a complete ``menu.json``: tiers, the assignment of types to tiers, profits, and the certificate."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pricing.bounds.bound import bound_error, upper_bound
from pricing.market.market import Market, read_market
from pricing.market.worth import Valuation, own_tokens, tokens_at, worth_at
from pricing.mechanism.conditions import conditions
from pricing.mechanism.lasting import margins
from pricing.mechanism.mechanism import Allocation, enveloped, first_best
from pricing.mechanism.resumption import Resumption, resumption
from pricing.mechanism.rounding import Published, publish
from pricing.mechanism.tiers import single_plan
from pricing.menus.claims import claim
from pricing.menus.constraints import worse_off
from pricing.menus.menu import NotAMenu, digest, whole
from pricing.menus.objectives import Further
from pricing.menus.request import Wishes, usable, wishes
from pricing.menus.robust import best_single, most_of
from pricing.menus.sales import Sales, own_worth, sales_of
from pricing.menus.solving import Solution, solve
from pricing.money import MOST

METHOD = "tokencap pricing 1"
"""Part of every version: a menu computed by another method is another menu."""

NEARLY = 0.01
"""The share of the full menu's profit that a recommended number of tiers may lose."""


def optimal_menu(
    market: Market,
    *,
    tiers: int | None,
    bill: str,
    names: Sequence[str] | None,
    created: str,
    included_conversations: int = 30,
    objective: str = "profit",
    further: Further | None = None,
) -> dict[str, Any]:
    """Return the most profitable menu of a market as a complete ``menu.json``.

    Args:
        market: who buys, and what serving costs.
        tiers: the most tiers; None is the full menu, with equal caps merged.
        bill: ``conversation`` or ``subscription``.
        names: names of the tiers, the smallest first; None calls them t1, t2, ...
        created: creation time, RFC 3339; it is recorded and changes nothing else.
        included_conversations: in a subscription, how many conversations the period's fee covers.
        objective: ``profit``, or ``profit_if_resumed`` for the most profit when callers resume where that pays.
        further: further objectives: customers' surplus, everyone served, terms, robustness.

    Raises:
        NotAMarket: the market cannot be priced.
        NotAMenu: a wish cannot be granted.
    """
    wished = wishes(
        tiers=tiers,
        bill=bill,
        names=names,
        included_conversations=included_conversations,
        objective=objective,
        further=further,
    )
    return written(market, wished, solve(market, wished), created)


def with_limits(menu: Mapping[str, Any], limits: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return a computed menu with an operator's limits added to its tiers: another version with its own certificate.

    Args:
        menu: a menu computed by ``optimal_menu``.
        limits: limits among ``HAND_LIMITS``, by the name of the tier.

    Raises:
        NotAMenu: the menu has no such tier, or a limit may not be added.
    """
    market = read_market(menu["market"])
    old_wishes = Wishes.from_json(menu["certificate"]["wishes"])
    wishes_fields = old_wishes.to_json() | {"limits": {**old_wishes.limits, **limits}}
    wished = Wishes.from_json(wishes_fields)
    return written(market, wished, solve(market, wished), menu["created"])


def version_of(market: Mapping[str, Any], wished: Mapping[str, Any]) -> str:
    """Return the version of a menu: a hash of all its inputs."""
    return digest({"method": METHOD, "market": market, "wishes": wished})[:16]


def written(market: Market, wished: Wishes, solution: Solution, created: str) -> dict[str, Any]:
    """Return a solution as ``menu.json``."""
    menu = composed(market, wished, solution, created)
    menu["certificate"]["digests"] = digests(menu)
    return menu


def composed(market: Market, wished: Wishes, solution: Solution, created: str) -> dict[str, Any]:
    """Return a solution as ``menu.json`` before its parts are hashed."""
    valuation, market_fields = solution.valuation, json.loads(market.given)
    published = solution.published()
    names = _names(wished, len(published.caps))
    sales = sales_of(solution, published)
    resumed = resumption(valuation, published, sales.margin)
    return {
        "version": version_of(market_fields, wished.to_json()),
        "created": created,
        "currency": market.currency,
        "bill": wished.bill,
        "tiers": _tiers(market, wished, sales, published, names),
        "assignment": _assignment(market, sales, published, names),
        "totals": _totals(solution, sales, published, resumed),
        "market": market_fields,
        "certificate": _certificate(market, wished, solution, published, sales, names)
        | {"resumption": _resumption(solution, resumed)},
    }


def _assignment(market: Market, sales: Sales, published: Published, names: list[str]) -> list[dict[str, Any]]:
    """Return each type's tier at its average value and, where customers differ, the share of the type in each tier."""
    types = zip(market.urgency_per_s, market.share, published.takes.tolist(), strict=True)
    entries: list[dict[str, Any]] = [
        {"urgency_per_s": urgency, "share": share, "tier": names[tier] if tier >= 0 else None}
        for urgency, share, tier in types
    ]
    if sales.differ:
        for entry, takers in zip(entries, sales.takers.tolist(), strict=True):
            entry["takes"] = {name: round(share, 12) for name, share in zip(names, takers, strict=True)}
    return entries


def _resumption(solution: Solution, resumed: Resumption) -> dict[str, Any]:
    """Return how many tiers resuming callers consider, and the bound on a resumed menu's profit: the first best."""
    most = first_best(solution.valuation)
    gap = round(1 - resumed.profit / most, 12) if most > resumed.profit else 0.0
    return {"tiers_considered": resumed.tiers, "upper_bound_nanousd": figure(most), "gap_share": gap}


def digests(menu: Mapping[str, Any]) -> dict[str, str]:
    """Return a hash of every part of a menu, by the name of the part; the hashes themselves are excluded."""
    parts: dict[str, Any] = {}
    for name, value in menu.items():
        if name in ("market", "certificate") and isinstance(value, Mapping):
            parts |= {f"{name}.{key}": part for key, part in value.items() if key != "digests"}
        elif name == "tiers" and isinstance(value, list):
            parts |= {f"tiers[{place}]": part for place, part in enumerate(value)}
        else:
            parts[name] = value
    return {name: digest(part) for name, part in sorted(parts.items())}


def figure(amount: float) -> float:
    """Return an amount rounded to a millionth of a nano-unit, as files state it."""
    return round(float(amount), 6) + 0.0


def _names(wished: Wishes, tiers: int) -> list[str]:
    if wished.names is None:
        names = [f"t{place + 1}" for place in range(tiers)]
    elif len(wished.names) != tiers:
        raise NotAMenu(f"The menu has {tiers} tiers, so it takes {tiers} names, not {len(wished.names)}.", "names")
    else:
        names = list(wished.names)
    unknown = next((name for name in wished.limits if name not in names), None)
    if unknown is not None:
        raise NotAMenu(f"The menu has no tier {unknown}.", "limits")
    return names


def _tiers(
    market: Market, wished: Wishes, sales: Sales, published: Published, names: list[str]
) -> list[dict[str, Any]]:
    tiers, valuation = [], sales.valuation
    finished = np.concatenate(([0.0], np.cumsum(valuation.steps.probability)))
    for place, (cap, price) in enumerate(zip(published.caps.tolist(), published.prices.tolist(), strict=True)):
        share, average = sales.of_tier(place)
        cost = average * valuation.cost_per_token
        limits = wished.limits.get(names[place], {})
        usable(names[place], limits, valuation.steps.cap_tokens(cap) or math.ceil(average), price)
        tier: dict[str, Any] = {
            "name": names[place],
            "conversation_tokens_max": valuation.steps.cap_tokens(cap),
            "price_nanousd": price,
            **limits,
            "expected": {
                "share": round(share, 12),
                "tokens": figure(average),
                "cost_nanousd": figure(cost),
                "margin_nanousd": figure(price - cost),
                "p_answer": round(min(1.0, float(finished[cap])), 12),
            },
        }
        if wished.bill == "subscription":
            tier["period_price_nanousd"] = price * wished.included_conversations
            tier["included_conversations"] = wished.included_conversations
            whole(tier["period_price_nanousd"], "period_price_nanousd")
        if market.input_cost_nanousd_per_token:
            tier["input_nanousd_per_mtok"] = min(MOST, round(market.input_cost_nanousd_per_token * 1_000_000))
        tiers.append(tier)
    return tiers


def _totals(solution: Solution, sales: Sales, published: Published, resumed: Resumption) -> dict[str, Any]:
    valuation, customers_alike = solution.valuation, not sales.differ
    return {
        "profit_nanousd": figure(sales.profit),
        "single_plan_profit_nanousd": figure(_single_plan(solution)),
        "tiers_profit_nanousd": [figure(_profit(valuation, menu)) for menu in solution.by_tiers]
        if customers_alike
        else [],
        "recommended_tiers": _recommended(solution) if customers_alike else None,
        "full_menu_profit_nanousd": figure(_profit(valuation, solution.full)) if customers_alike else None,
        "first_best_nanousd": figure(first_best(valuation)) if customers_alike else None,
        "profit_if_resumed_nanousd": figure(resumed.profit),
        "resume_gain_nanousd": figure(resumed.gain),
        "customers_surplus_nanousd": figure(sales.surplus),
        "excluded_share": round(sales.excluded, 12),
    }


def _single_plan(solution: Solution) -> float:
    """Return the profit of the best single plan without a cap."""
    if solution.crowd is not None:
        return best_single(solution.crowd)[1]
    valuation = solution.valuation
    longest = np.array([len(valuation.steps.tokens)])
    return single_plan(valuation, worth_at(valuation, longest)[:, 0], tokens_at(valuation, longest)[:, 0])


def _profit(valuation: Valuation, menu: Allocation) -> float:
    """Return the profit of a menu; it equals the menu's aim unless customers' surplus counts."""
    if not valuation.surplus_weight:
        return menu.profit if np.isfinite(menu.profit) else 0.0
    published = publish(valuation, menu.caps)
    return float(np.dot(valuation.share, margins(valuation, published)))


def _recommended(solution: Solution) -> int | None:
    """Return the fewest tiers that lose at most ``NEARLY`` of the full menu's profit, None if no computed menu does."""
    profit_wanted = (1 - NEARLY) * solution.full.profit
    return next((tiers for tiers, menu in enumerate(solution.by_tiers, start=1) if menu.profit >= profit_wanted), None)


def _certificate(
    market: Market, wished: Wishes, solution: Solution, published: Published, sales: Sales, names: list[str]
) -> dict[str, Any]:
    valuation = solution.valuation
    checked = conditions(valuation, published, names)
    certificate = {
        "method": METHOD,
        "claim": claim(market, wished),
        "wishes": wished.to_json(),
        "conditions": {
            "own_choice_slack_nanousd": figure(checked.own_choice),
            "participation_slack_nanousd": figure(checked.participation),
            "worth_error_nanousd": checked.error,
        },
        **_before_rounding(solution, published, sales),
        "bound": _bound(market, solution, sales),
    }
    if solution.robust is not None and solution.offer is not None:
        certificate["robust"] = solution.robust.to_json(solution.offer)
    if wished.worse_off is not None:
        certificate["worse_off_share"] = round(worse_off(valuation, published, wished.worse_off), 12)
    return certificate


def _before_rounding(solution: Solution, published: Published, sales: Sales) -> dict[str, Any]:
    """Return the aim before prices are rounded, in up to three ways, and the cost of rounding."""
    valuation, best = solution.valuation, solution.chosen
    if solution.offer is not None:
        profits = {
            "by_prices_nanousd": figure(sales.profit),
            "by_virtual_surplus_nanousd": None,
            "by_envelope_nanousd": None,
        }
        return {"profit_before_rounding": profits, "rounding": {"loss_nanousd": 0.0, "tiers_merged": 0}}
    caps, income_weight = best.caps, 1 - valuation.surplus_weight
    other_terms = -float(np.dot(valuation.share, own_tokens(valuation, caps))) * valuation.cost_per_token
    if valuation.surplus_weight:
        other_terms += valuation.surplus_weight * float(np.dot(valuation.share, own_worth(valuation, caps)))
    envelope = best is solution.full and valuation.cost_per_token == 0 and not valuation.sinks
    envelope = envelope and not valuation.surplus_weight and not valuation.everyone
    return {
        "profit_before_rounding": {
            "by_prices_nanousd": figure(income_weight * published.unrounded + other_terms),
            "by_virtual_surplus_nanousd": figure(income_weight * published.surplus + other_terms),
            "by_envelope_nanousd": figure(enveloped(valuation)) if envelope else None,
        },
        "rounding": {"loss_nanousd": figure(best.profit - sales.aim), "tiers_merged": published.merged},
    }


def _bound(market: Market, solution: Solution, sales: Sales) -> dict[str, Any]:
    """Return the bound on any mechanism's profit plus weighted surplus, and how far this menu falls short of it."""
    valuation = solution.valuation
    bound, error = upper_bound(valuation, solution.multipliers), bound_error(valuation, solution.multipliers)
    if sales.differ:
        bound = most_of(valuation, market.value_sigma, market.taste_nanousd, len(sales.takers.T))
    return {
        "upper_bound_nanousd": figure(bound),
        "gap_nanousd": figure(bound - sales.aim),
        "gap_share": _gap_share(bound, sales.aim, error),
        "full_menu_gap_share": None if sales.differ else _gap_share(bound, solution.full.profit, error),
        "multipliers": {
            "patient": solution.multipliers.patient.tolist(),
            "urgent": solution.multipliers.urgent.tolist(),
            "flow": solution.multipliers.flow.tolist(),
        },
    }


def _gap_share(bound: float, profit: float, error: float) -> float:
    """Return a gap as a share of the bound; a gap that the rounding of the profit and the bound may explain is 0."""
    if bound - profit <= 2 * error:
        return 0.0
    return round((bound - profit) / bound, 12) if bound > 0 else 1.0
