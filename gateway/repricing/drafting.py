"""From the ledger to a draft: estimate, menu, certificate, comparison, and the reasons not to sell it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gateway.catalog import menu_rows
from gateway.clock import written
from gateway.errors import StartupError
from gateway.ledger.database import Database
from gateway.repricing.estimating import given_of
from gateway.repricing.experiments import Tried, to_try
from gateway.repricing.observed import menu_bodies, seen_in_ledger
from gateway.repricing.starters import starter_market
from pricing.certificate import verify
from pricing.estimate.as_market import discounts_of, market_of, priced
from pricing.estimate.comparison import Sold, beyond_limits, compared, destinations, replayed, sold
from pricing.estimate.fit import Estimate, fit
from pricing.estimate.given import Given
from pricing.estimate.observations.conversations import DAY_MS
from pricing.estimate.observations.statistics import Statistics
from pricing.market.market import Market, read_market
from pricing.market.worth import Valuation, valuation_of
from pricing.mechanism.rounding import publish
from pricing.mechanism.tiers import best_tiers
from pricing.mechanism.uncertainty import Understated, understated
from pricing.menus.menu import Menu, NotAMenu
from pricing.menus.menus import optimal_menu

KEPT_IF_RESUMED = 0.5
"""The share of its profit that a draft has to keep when callers resume."""

TIERS = 3
"""How many tiers are drafted where nothing is sold yet."""

Json = dict[str, Any]
Tell = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What a run came to.

    Attributes:
        refused: why it should not be sold, None if nothing speaks against it.
        held_back: why it is not put in force by itself, None if nothing stands in the way.
        moves: where customers go whose tier the draft lacks: where most of those who take it would.
        experiment: what may be tried on new customers, None where that was not asked.
        arms: the menus of it.
    """

    estimates: Json
    comparison: Json
    draft: Json
    refused: str | None
    held_back: str | None
    moves: Mapping[str, str]
    experiment: Json | None = None
    arms: tuple[Json, ...] = ()


def draft(database: Database, currency: str, asked: Mapping[str, Any], now_ms: int, tell: Tell) -> Found:
    """Return a draft made from what the ledger says that customers did.

    Args:
        asked: a ``RunInput``.
        tell: is told what is being done, and how much of all is done, in percent.

    Raises:
        CannotEstimate: too little was seen.
        StartupError: nobody has said what an answer is worth.
    """
    tell("adding up the ledger", 5)
    since = 0 if asked["days"] is None else now_ms - asked["days"] * DAY_MS
    seen, menus = seen_in_ledger(database, now_ms, since_ms=max(0, since))
    tell("estimating the market", 25)
    given = replace(
        _given(database, asked),
        currency=currency,
        lengths_may_differ=asked["lengths_may_differ"],
        without_holders=asked["without_holders"],
    )
    estimate = fit(seen, given, draws=asked["draws"], random=np.random.default_rng(asked["seed"]))
    before = _in_force(database, menus, now_ms)
    tell("computing the menu", 50)
    value = priced(estimate)
    market = market_of(estimate, value)
    made = _menu(
        read_market(market),
        _tiers(estimate, value, asked["tiers"] or (len(before.tiers) if before else TIERS)),
        before,
        written(now_ms),
        asked["objective"],
    )
    tell("checking the certificate", 75)
    verdict = verify(made)
    tell("comparing it with the menu in force", 85)
    comparison = _comparison(estimate, seen, made, before)
    refused = verdict.violation or _no_gain(comparison, asked["confidence"]) or _undone(made)
    held_back = _held_back(estimate, made, before, comparison, asked)
    tried = Tried() if asked["experiment"] is None else to_try(estimate, before, asked["experiment"], written(now_ms))
    return Found(
        market,
        comparison,
        made,
        refused,
        held_back,
        _moves(made, comparison.get("becomes", {})),
        tried.shown,
        tried.arms,
    )


def _moves(made: Json, becomes: Mapping[str, str | None]) -> dict[str, str]:
    kept = {tier["name"] for tier in made["tiers"]}
    return {old: new for old, new in becomes.items() if new is not None and old not in kept}


def _given(database: Database, asked: Mapping[str, Any]) -> Given:
    if asked["assumed"] is not None:
        assumed: Market | None = starter_market(asked["assumed"])
    else:
        bodies = menu_bodies(database)
        assumed = read_market(bodies[0]["market"]) if bodies else None
    try:
        is_estimated = asked["estimate_value"]
        return given_of(
            assumed, asked["value_nanousd"], asked["cost_nanousd_per_token"], None, is_estimated=is_estimated
        )
    except StartupError as error:
        raise StartupError(
            "Nobody says what an answer is worth: say it as value_nanousd, name an assumed market, or ask for estimate_value."
        ) from error


def _in_force(database: Database, menus: Mapping[str, Menu], now_ms: int) -> Menu | None:
    with database.read() as connection:
        version = menu_rows.in_force(menu_rows.read_timeline(connection), now_ms)
    return None if version is None else menus.get(version)


def _tiers(estimate: Estimate, value: Understated, most: int) -> int:
    """Return how many tiers, up to so many, earn the most on average."""
    if estimate.lengths_differ:
        return 1
    averaged = [read_market(one) for one in estimate.averaged]
    found = understated(
        read_market(estimate.market), averaged, tiers=range(min(2, most), most + 1), discounts=(value.discount,)
    )
    assert found.tiers is not None
    return found.tiers


def _menu(market: Market, tiers: int, before: Menu | None, created: str, objective: str) -> Json:
    """Return the best menu; where it has as many tiers as the one in force, they keep their names."""
    bill = before.bill if before else "conversation"
    made = optimal_menu(market, tiers=tiers, bill=bill, names=None, created=created, objective=objective)
    if before is None or len(made["tiers"]) != len(before.tiers):
        return made
    try:
        names = sold(before).names
        return optimal_menu(market, tiers=tiers, bill=bill, names=names, created=created, objective=objective)
    except NotAMenu:
        return made


def _comparison(estimate: Estimate, seen: Statistics, made: Json, before: Menu | None) -> Json:
    market = read_market(estimate.market)
    draws = [valuation_of(read_market(one)) for one in estimate.draws]
    averaged = [read_market(one) for one in estimate.averaged]
    here = valuation_of(market)
    new = sold(Menu.from_json(made))
    old = None if before is None else sold(before)
    one = understated(market, averaged, tiers=(1,), discounts=discounts_of(estimate))
    single = valuation_of(read_market(one.market))
    comparison = compared(here, draws, new, old, _single(single))
    if old is not None:
        goes = destinations(here, new, old)
        comparison["becomes"] = goes
        comparison["replay"] = replayed(seen.lengths, old, new, goes)
    return comparison


def _single(here: Valuation) -> Sold:
    """Return the best menu of one tier."""
    published = publish(here, best_tiers(here, 1)[-1].caps)
    caps = [here.steps.cap_tokens(cap) for cap in published.caps.tolist()]
    tokens = np.array([np.iinfo(np.int64).max if cap is None else cap for cap in caps], dtype=np.int64)
    return Sold(tuple(f"t{place}" for place in range(len(caps))), tokens, published.prices.astype(np.float64))


def _no_gain(comparison: Json, confidence: float) -> str | None:
    """Return why the draft is not worth its tiers, None if it is."""
    gains = comparison.pop("gain_over_single_plan_nanousd")
    least = float(np.percentile(gains, 100 * (1 - confidence)))
    comparison["gain_over_single_plan_nanousd"] = {"mean": float(np.mean(gains)), "least": least}
    if least <= 0:
        return (
            f"The draft does not earn more than the best single plan at a confidence of {confidence:.0%}: the gain is "
            f"{np.mean(gains):,.0f} nano-units a conversation on average, and {least:,.0f} at the least."
        )
    return None


def _undone(made: Json) -> str | None:
    """Return why callers who send cut answers back would undo the draft, None if they would not."""
    totals = made["totals"]
    profit, resumed = totals["profit_nanousd"], totals["profit_if_resumed_nanousd"]
    if resumed >= KEPT_IF_RESUMED * profit:
        return None
    return (
        f"If callers sent cut answers back and bought on, the draft would earn {resumed:,.0f} nano-units a conversation "
        f"of {profit:,.0f}; ask for the objective profit_if_resumed."
    )


def _held_back(
    estimate: Estimate, made: Json, before: Menu | None, comparison: Json, asked: Mapping[str, Any]
) -> str | None:
    if before is None:
        return None
    totals = made["totals"]
    if totals["profit_if_resumed_nanousd"] < min(totals["profit_nanousd"], totals["single_plan_profit_nanousd"]):
        return "If callers sent cut answers back and bought on, it would earn less than the best single plan."
    profit = comparison["profit_nanousd"]
    if profit["draft"]["mean"] <= profit["in_force"]["mean"]:
        return "The menu in force earns as much on average."
    return beyond_limits(
        sold(Menu.from_json(made)),
        sold(before),
        comparison["becomes"],
        cap_factor=asked["cap_factor_max"],
        price_factor=asked["price_factor_max"],
        longest=estimate.length.identified_to_tokens,
    )
