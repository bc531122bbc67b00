"""From a market to a complete ``menu.json``: tiers, who takes which, what they earn, and the certificate."""

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
"""Part of every version: a menu computed in another way is another menu."""

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
        market: who buys, and what it costs.
        tiers: at most so many tiers; None is the full menu, equal caps merged.
        bill: ``conversation`` or ``subscription``.
        names: names of the tiers, the smallest first; None calls them t1, t2, ...
        created: when, RFC 3339; it is written down and changes nothing else.
        included_conversations: in a subscription, how many conversations the period's fee covers.
        objective: ``profit``, or ``profit_if_resumed`` for the menu that lasts when callers resume.
        further: customers' surplus, everyone served, terms, robustness.

    Raises:
        NotAMarket: the market cannot be computed with.
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
    """Return a computed menu with an operator's limits added to its tiers: another version, certified anew.

    Args:
        menu: a menu made by ``optimal_menu``.
        limits: by the name of a tier, limits among ``HAND_LIMITS``.

    Raises:
        NotAMenu: a tier is not there, or a limit may not be added.
    """
    market = read_market(menu["market"])
    before = Wishes.from_json(menu["certificate"]["wishes"])
    asked = before.to_json() | {"limits": {**before.limits, **limits}}
    wished = Wishes.from_json(asked)
    return written(market, wished, solve(market, wished), menu["created"])


def version_of(market: Mapping[str, Any], wished: Mapping[str, Any]) -> str:
    """Return the version of a menu: a hash of everything it is computed from."""
    return digest({"method": METHOD, "market": market, "wishes": wished})[:16]


def written(market: Market, wished: Wishes, solution: Solution, created: str) -> dict[str, Any]:
    """Return a solution as ``menu.json``."""
    menu = composed(market, wished, solution, created)
    menu["certificate"]["digests"] = digests(menu)
    return menu


def composed(market: Market, wished: Wishes, solution: Solution, created: str) -> dict[str, Any]:
    """Return a solution as ``menu.json`` before its parts are hashed."""
    valuation, given = solution.valuation, json.loads(market.given)
    published = solution.published()
    names = _names(wished, len(published.caps))
    sales = sales_of(solution, published)
    again = resumption(valuation, published, sales.margin)
    return {
        "version": version_of(given, wished.to_json()),
        "created": created,
        "currency": market.currency,
        "bill": wished.bill,
        "tiers": _tiers(market, wished, sales, published, names),
        "assignment": _assignment(market, sales, published, names),
        "totals": _totals(solution, sales, published, again),
        "market": given,
        "certificate": _certificate(market, wished, solution, published, sales, names)
        | {"resumption": _resumption(solution, again)},
    }


def _assignment(market: Market, sales: Sales, published: Published, names: list[str]) -> list[dict[str, Any]]:
    """Return the tier of each type at its average value, and where its customers differ what share of it takes what."""
    types = zip(market.urgency_per_s, market.share, published.takes.tolist(), strict=True)
    listed: list[dict[str, Any]] = [
        {"urgency_per_s": urgency, "share": share, "tier": names[tier] if tier >= 0 else None}
        for urgency, share, tier in types
    ]
    if sales.differ:
        for one, takers in zip(listed, sales.takers.tolist(), strict=True):
            one["takes"] = {name: round(share, 12) for name, share in zip(names, takers, strict=True)}
    return listed


def _resumption(solution: Solution, again: Resumption) -> dict[str, Any]:
    """Return how far resuming was looked into, and what no menu can earn that may be resumed: all that it is worth."""
    most = first_best(solution.valuation)
    gap = round(1 - again.profit / most, 12) if most > again.profit else 0.0
    return {"tiers_considered": again.tiers, "upper_bound_nanousd": figure(most), "gap_share": gap}


def digests(menu: Mapping[str, Any]) -> dict[str, str]:
    """Return a hash of every part of a menu, by the name of the part; the hashes themselves are left out."""
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
    """Return an amount as it is written down: to a millionth of a nano-unit."""
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


def _totals(solution: Solution, sales: Sales, published: Published, again: Resumption) -> dict[str, Any]:
    valuation, alike = solution.valuation, not sales.differ
    return {
        "profit_nanousd": figure(sales.profit),
        "single_plan_profit_nanousd": figure(_single_plan(solution)),
        "tiers_profit_nanousd": [figure(_profit(valuation, menu)) for menu in solution.by_tiers] if alike else [],
        "recommended_tiers": _recommended(solution) if alike else None,
        "full_menu_profit_nanousd": figure(_profit(valuation, solution.full)) if alike else None,
        "first_best_nanousd": figure(first_best(valuation)) if alike else None,
        "profit_if_resumed_nanousd": figure(again.profit),
        "resume_gain_nanousd": figure(again.gain),
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
    """Return the profit of a menu, which is its aim unless customers' surplus counts."""
    if not valuation.surplus_weight:
        return menu.profit if np.isfinite(menu.profit) else 0.0
    published = publish(valuation, menu.caps)
    return float(np.dot(valuation.share, margins(valuation, published)))


def _recommended(solution: Solution) -> int | None:
    """Return the fewest tiers whose profit is nearly that of the full menu, None where more are needed than were tried."""
    enough = (1 - NEARLY) * solution.full.profit
    return next((used for used, menu in enumerate(solution.by_tiers, start=1) if menu.profit >= enough), None)


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
    """Return the aim in up to three ways before prices are whole numbers, and what rounding them costs."""
    valuation, best = solution.valuation, solution.chosen
    if solution.offer is not None:
        ways = {
            "by_prices_nanousd": figure(sales.profit),
            "by_virtual_surplus_nanousd": None,
            "by_envelope_nanousd": None,
        }
        return {"profit_before_rounding": ways, "rounding": {"loss_nanousd": 0.0, "tiers_merged": 0}}
    caps, kept = best.caps, 1 - valuation.surplus_weight
    besides = -float(np.dot(valuation.share, own_tokens(valuation, caps))) * valuation.cost_per_token
    if valuation.surplus_weight:
        besides += valuation.surplus_weight * float(np.dot(valuation.share, own_worth(valuation, caps)))
    envelope = best is solution.full and valuation.cost_per_token == 0 and not valuation.sinks
    envelope = envelope and not valuation.surplus_weight and not valuation.everyone
    return {
        "profit_before_rounding": {
            "by_prices_nanousd": figure(kept * published.unrounded + besides),
            "by_virtual_surplus_nanousd": figure(kept * published.surplus + besides),
            "by_envelope_nanousd": figure(enveloped(valuation)) if envelope else None,
        },
        "rounding": {"loss_nanousd": figure(best.profit - sales.aim), "tiers_merged": published.merged},
    }


def _bound(market: Market, solution: Solution, sales: Sales) -> dict[str, Any]:
    """Return what no mechanism can exceed, of profit and of surplus as far as it counts, and how far this menu is off."""
    valuation = solution.valuation
    most, doubt = upper_bound(valuation, solution.multipliers), bound_error(valuation, solution.multipliers)
    if sales.differ:
        most = most_of(valuation, market.value_sigma, market.taste_nanousd, len(sales.takers.T))
    return {
        "upper_bound_nanousd": figure(most),
        "gap_nanousd": figure(most - sales.aim),
        "gap_share": _gap_share(most, sales.aim, doubt),
        "full_menu_gap_share": None if sales.differ else _gap_share(most, solution.full.profit, doubt),
        "multipliers": {
            "patient": solution.multipliers.patient.tolist(),
            "urgent": solution.multipliers.urgent.tolist(),
            "flow": solution.multipliers.flow.tolist(),
        },
    }


def _gap_share(most: float, profit: float, doubt: float) -> float:
    """Return a gap as a share of the bound; one that rounding alone may have made, here and in the bound, is none."""
    if most - profit <= 2 * doubt:
        return 0.0
    return round((most - profit) / most, 12) if most > 0 else 1.0
