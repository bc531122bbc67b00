"""From a market to a complete ``menu.json``: tiers, who takes which, what they earn, and the certificate."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pricing.aims import TIERS_MOST, Aim, best_offer, resumed
from pricing.answers import Floats
from pricing.bound import Multipliers, bound_error, upper_bound
from pricing.canonical import digest
from pricing.claims import claim
from pricing.conditions import conditions
from pricing.market import Market, read_market
from pricing.mechanism import Allocation, enveloped, first_best, full_menu
from pricing.menu import NotAMenu, whole
from pricing.money import MOST
from pricing.multipliers import multipliers_for
from pricing.offers import Offer, chosen
from pricing.resumption import Resumption, resumption
from pricing.rounding import Published, publish
from pricing.tiers import best_tiers, single_plan
from pricing.wishes import Wishes, usable, wishes
from pricing.worth import Valuation, own_tokens, tokens_at, valuation_of, worth_at

METHOD = "tokencap pricing 1"
"""Part of every version: a menu computed in another way is another menu."""

TIERS_SHOWN = 5
"""For how many tiers the profit is shown where their number is not fixed."""

NEARLY = 0.01
"""The share of the full menu's profit that a recommended number of tiers may lose."""


@dataclass(frozen=True, slots=True)
class Solution:
    """What the solvers say of a market: the full menu, the best menus of 1, 2, ... tiers, and the one to sell.

    ``offer`` is the one to sell where it was looked for over caps and prices; else it is ``chosen`` at the mechanism's.
    """

    valuation: Valuation
    full: Allocation
    by_tiers: list[Allocation]
    chosen: Allocation
    multipliers: Multipliers
    aim: Aim | None = None
    offer: Offer | None = None

    def published(self) -> Published:
        """Return the menu to sell, on whole numbers."""
        if self.offer is None:
            return publish(self.valuation, self.chosen.caps)
        return chosen(self.valuation, self.offer)


def aim_of(wished: Wishes) -> Aim | None:
    """Return what a menu has to be looked for by, None where a formula gives it."""
    return Aim(resumed) if wished.objective == "profit_if_resumed" else None


def solve(market: Market, wished: Wishes, multipliers: Multipliers | None = None) -> Solution:
    """Return the best menus of a market and the one to sell; the multipliers may be given, as they are from a file."""
    valuation = valuation_of(market)
    full = full_menu(valuation)
    by_tiers = best_tiers(valuation, wished.tiers or TIERS_SHOWN)
    best, aim = full if wished.tiers is None else by_tiers[-1], aim_of(wished)
    offer = None if aim is None else best_offer(valuation, aim, wished.tiers or TIERS_MOST)
    return Solution(valuation, full, by_tiers, best, multipliers or multipliers_for(valuation, full), aim, offer)


def optimal_menu(
    market: Market,
    *,
    tiers: int | None,
    bill: str,
    names: Sequence[str] | None,
    created: str,
    included_conversations: int = 30,
    objective: str = "profit",
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

    Raises:
        NotAMarket: the market cannot be computed with.
        NotAMenu: a wish cannot be granted.
    """
    wished = wishes(
        tiers=tiers, bill=bill, names=names, included_conversations=included_conversations, objective=objective
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
    merged = {**before.limits, **limits}
    wished = wishes(
        tiers=before.tiers,
        bill=before.bill,
        names=before.names,
        included_conversations=before.included_conversations,
        objective=before.objective,
        limits=merged,
    )
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
    tokens = own_tokens(valuation, published.by_type())
    margin = published.paid() - tokens * valuation.cost_per_token
    again = resumption(valuation, published, margin)
    return {
        "version": version_of(given, wished.to_json()),
        "created": created,
        "currency": market.currency,
        "bill": wished.bill,
        "tiers": _tiers(market, wished, valuation, published, tokens, names),
        "assignment": [
            {"urgency_per_s": urgency, "share": share, "tier": names[tier] if tier >= 0 else None}
            for urgency, share, tier in zip(market.urgency_per_s, market.share, published.takes.tolist(), strict=True)
        ],
        "totals": _totals(solution, published, margin, again),
        "market": given,
        "certificate": _certificate(market, wished, solution, published, margin, names)
        | {"resumption": _resumption(solution, again)},
    }


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
    market: Market, wished: Wishes, valuation: Valuation, published: Published, tokens: Floats, names: list[str]
) -> list[dict[str, Any]]:
    tiers = []
    finished = np.concatenate(([0.0], np.cumsum(valuation.steps.probability)))
    for place, (cap, price) in enumerate(zip(published.caps.tolist(), published.prices.tolist(), strict=True)):
        takers = published.takes == place
        share = float(valuation.share[takers].sum())
        average = float(np.dot(valuation.share[takers], tokens[takers])) / share
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


def _totals(solution: Solution, published: Published, margin: Floats, resumed: Resumption) -> dict[str, Any]:
    valuation = solution.valuation
    longest = np.array([len(valuation.steps.tokens)])
    single = single_plan(valuation, worth_at(valuation, longest)[:, 0], tokens_at(valuation, longest)[:, 0])
    kept = published.own(published.worth) - published.paid()
    return {
        "profit_nanousd": figure(np.dot(valuation.share, margin)),
        "single_plan_profit_nanousd": figure(single),
        "tiers_profit_nanousd": [figure(menu.profit) for menu in solution.by_tiers],
        "recommended_tiers": _recommended(solution),
        "full_menu_profit_nanousd": figure(solution.full.profit),
        "first_best_nanousd": figure(first_best(valuation)),
        "profit_if_resumed_nanousd": figure(resumed.profit),
        "resume_gain_nanousd": figure(resumed.gain),
        "customers_surplus_nanousd": figure(np.dot(valuation.share, kept)),
        "excluded_share": round(float(valuation.share[published.takes < 0].sum()), 12),
    }


def _recommended(solution: Solution) -> int | None:
    """Return the fewest tiers whose profit is nearly that of the full menu, None where more are needed than were tried."""
    enough = (1 - NEARLY) * solution.full.profit
    return next((used for used, menu in enumerate(solution.by_tiers, start=1) if menu.profit >= enough), None)


def _certificate(
    market: Market, wished: Wishes, solution: Solution, published: Published, margin: Floats, names: list[str]
) -> dict[str, Any]:
    valuation, best = solution.valuation, solution.chosen
    checked = conditions(valuation, published, names)
    profit = float(np.dot(valuation.share, margin))
    cost = float(np.dot(valuation.share, own_tokens(valuation, best.caps))) * valuation.cost_per_token
    unrounded = best.profit if solution.offer is None else profit
    most, doubt = upper_bound(valuation, solution.multipliers), bound_error(valuation, solution.multipliers)
    envelope = (
        solution.offer is None and best is solution.full and valuation.cost_per_token == 0 and not valuation.sinks
    )
    return {
        "method": METHOD,
        "claim": claim(market, wished),
        "wishes": wished.to_json(),
        "conditions": {
            "own_choice_slack_nanousd": figure(checked.own_choice),
            "participation_slack_nanousd": figure(checked.participation),
            "worth_error_nanousd": checked.error,
        },
        "profit_before_rounding": {
            "by_prices_nanousd": figure(published.unrounded - cost if solution.offer is None else profit),
            "by_virtual_surplus_nanousd": figure(published.surplus - cost) if solution.offer is None else None,
            "by_envelope_nanousd": figure(enveloped(valuation)) if envelope else None,
        },
        "rounding": {"loss_nanousd": figure(unrounded - profit), "tiers_merged": published.merged},
        "bound": {
            "upper_bound_nanousd": figure(most),
            "gap_nanousd": figure(most - profit),
            "gap_share": _gap_share(most, profit, doubt),
            "full_menu_gap_share": _gap_share(most, solution.full.profit, doubt),
            "multipliers": {
                "patient": solution.multipliers.patient.tolist(),
                "urgent": solution.multipliers.urgent.tolist(),
                "flow": solution.multipliers.flow.tolist(),
            },
        },
    }


def _gap_share(most: float, profit: float, doubt: float) -> float:
    """Return a gap as a share of the bound; one that rounding alone may have made, here and in the bound, is none."""
    return round((most - profit) / most, 12) if most - profit > 2 * doubt else 0.0
