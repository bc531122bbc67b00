"""Makes a draft from the ledger: estimate, menu, certificate, comparison, and the reasons not to sell the draft."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gateway.catalog import menu_rows
from gateway.clock import written
from gateway.errors import StartupError
from gateway.ledger.database import Database
from gateway.repricing.estimating import stated_inputs
from gateway.repricing.experiments import Tried, to_try
from gateway.repricing.observed import ledger_statistics, menu_bodies
from gateway.repricing.starters import starter_market
from pricing.certificate import Verdict, verify
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
"""The number of tiers of a draft where no menu is in force yet and none was requested."""

Json = dict[str, Any]
Report = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class DraftResult:
    """The result of a run.

    Attributes:
        refused: why the draft should not be sold; None if there is no reason.
        held_back: why the draft is not put in force automatically; None if there is no reason.
        moves: maps each tier that the draft lacks to the tier that most of its takers would choose.
        experiment: what may be tried on new customers; None where no experiment was requested.
        arms: the menus of the experiment.
    """

    estimates: Json
    comparison: Json
    draft: Json
    refused: str | None
    held_back: str | None
    moves: Mapping[str, str]
    experiment: Json | None = None
    arms: tuple[Json, ...] = ()


def draft(database: Database, currency: str, request: Mapping[str, Any], now_ms: int, report: Report) -> DraftResult:
    """Return a draft made from the customers' behaviour in the ledger.

    Args:
        request: a ``RunInput``.
        report: is called with the name of each step and the percentage of the run that is done.

    Raises:
        CannotEstimate: the ledger has too few observations.
        StartupError: the value of an answer is unknown.
    """
    report("adding up the ledger", 5)
    since = 0 if request["days"] is None else now_ms - request["days"] * DAY_MS
    statistics, menus = ledger_statistics(database, now_ms, since_ms=max(0, since))
    report("estimating the market", 25)
    given = replace(
        _stated_inputs(database, request),
        currency=currency,
        lengths_may_differ=request["lengths_may_differ"],
        without_holders=request["without_holders"],
    )
    estimate = fit(statistics, given, draws=request["draws"], random=np.random.default_rng(request["seed"]))
    menu_in_force = _in_force(database, menus, now_ms)
    report("computing the menu", 50)
    understatement = priced(estimate)
    market = market_of(estimate, understatement)
    computed = _menu(
        read_market(market),
        _tiers(estimate, understatement, request["tiers"] or (len(menu_in_force.tiers) if menu_in_force else TIERS)),
        menu_in_force,
        written(now_ms),
        request["objective"],
    )
    report("checking the certificate", 75)
    verdict = verify(computed)
    report("comparing it with the menu in force", 85)
    comparison = _comparison(estimate, statistics, computed, menu_in_force)
    refused = _refusal(verdict, computed, comparison, request["confidence"])
    held_back = _held_back(estimate, computed, menu_in_force, comparison, request)
    trial = (
        Tried()
        if request["experiment"] is None
        else to_try(estimate, menu_in_force, request["experiment"], written(now_ms))
    )
    return DraftResult(
        market,
        comparison,
        computed,
        refused,
        held_back,
        _moves(computed, comparison.get("becomes", {})),
        trial.shown,
        trial.arms,
    )


def _moves(draft_menu: Json, becomes: Mapping[str, str | None]) -> dict[str, str]:
    names = {tier["name"] for tier in draft_menu["tiers"]}
    return {old: new for old, new in becomes.items() if new is not None and old not in names}


def _stated_inputs(database: Database, request: Mapping[str, Any]) -> Given:
    if request["assumed"] is not None:
        assumed: Market | None = starter_market(request["assumed"])
    else:
        bodies = menu_bodies(database)
        assumed = read_market(bodies[0]["market"]) if bodies else None
    try:
        is_estimated = request["estimate_value"]
        return stated_inputs(
            assumed, request["value_nanousd"], request["cost_nanousd_per_token"], None, is_estimated=is_estimated
        )
    except StartupError as error:
        raise StartupError(
            "Nobody says what an answer is worth: say it as value_nanousd, name an assumed market, or ask for estimate_value."
        ) from error


def _in_force(database: Database, menus: Mapping[str, Menu], now_ms: int) -> Menu | None:
    with database.read() as connection:
        version = menu_rows.in_force(menu_rows.read_timeline(connection), now_ms)
    return None if version is None else menus.get(version)


def _tiers(estimate: Estimate, understatement: Understated, tiers_max: int) -> int:
    """Return the number of tiers, up to ``tiers_max``, that earns the most on average."""
    if estimate.lengths_differ:
        return 1
    averaged = [read_market(averaged_market) for averaged_market in estimate.averaged]
    best = understated(
        read_market(estimate.market),
        averaged,
        tiers=range(min(2, tiers_max), tiers_max + 1),
        discounts=(understatement.discount,),
    )
    assert best.tiers is not None
    return best.tiers


def _menu(market: Market, tiers: int, menu_in_force: Menu | None, created: str, objective: str) -> Json:
    """Return the best menu; where it has as many tiers as the menu in force, it takes over the names of those tiers."""
    bill = menu_in_force.bill if menu_in_force else "conversation"
    computed = optimal_menu(market, tiers=tiers, bill=bill, names=None, created=created, objective=objective)
    if menu_in_force is None or len(computed["tiers"]) != len(menu_in_force.tiers):
        return computed
    try:
        names = sold(menu_in_force).names
        return optimal_menu(market, tiers=tiers, bill=bill, names=names, created=created, objective=objective)
    except NotAMenu:
        return computed


def _comparison(estimate: Estimate, statistics: Statistics, draft_menu: Json, menu_in_force: Menu | None) -> Json:
    market = read_market(estimate.market)
    draws = [valuation_of(read_market(variant)) for variant in estimate.draws]
    averaged = [read_market(variant) for variant in estimate.averaged]
    valuation = valuation_of(market)
    new = sold(Menu.from_json(draft_menu))
    old = None if menu_in_force is None else sold(menu_in_force)
    variant = understated(market, averaged, tiers=(1,), discounts=discounts_of(estimate))
    single = valuation_of(read_market(variant.market))
    comparison = compared(valuation, draws, new, old, _single(single))
    if old is not None:
        becomes = destinations(valuation, new, old)
        comparison["becomes"] = becomes
        comparison["replay"] = replayed(statistics.lengths, old, new, becomes)
    return comparison


def _single(valuation: Valuation) -> Sold:
    """Return the best menu of one tier."""
    published = publish(valuation, best_tiers(valuation, 1)[-1].caps)
    caps = [valuation.steps.cap_tokens(cap) for cap in published.caps.tolist()]
    tokens = np.array([np.iinfo(np.int64).max if cap is None else cap for cap in caps], dtype=np.int64)
    return Sold(tuple(f"t{index}" for index in range(len(caps))), tokens, published.prices.astype(np.float64))


def _refusal(verdict: Verdict, draft_menu: Json, comparison: Json, confidence: float) -> str | None:
    """Return why the draft should not be sold; None if there is no reason."""
    return verdict.violation or _no_gain(comparison, confidence) or _undone(draft_menu)


def _no_gain(comparison: Json, confidence: float) -> str | None:
    """Return a refusal of a draft that does not surely earn more than the best single plan; None if it does."""
    gains = comparison.pop("gain_over_single_plan_nanousd")
    lowest = float(np.percentile(gains, 100 * (1 - confidence)))
    comparison["gain_over_single_plan_nanousd"] = {"mean": float(np.mean(gains)), "least": lowest}
    if lowest <= 0:
        return (
            f"The draft does not earn more than the best single plan at a confidence of {confidence:.0%}: the gain is "
            f"{np.mean(gains):,.0f} nano-units a conversation on average, and {lowest:,.0f} at the least."
        )
    return None


def _undone(draft_menu: Json) -> str | None:
    """Return a refusal of a draft that callers could defeat by sending cut answers back; None if they could not."""
    totals = draft_menu["totals"]
    profit, resumed = totals["profit_nanousd"], totals["profit_if_resumed_nanousd"]
    if resumed >= KEPT_IF_RESUMED * profit:
        return None
    return (
        f"If callers sent cut answers back and bought on, the draft would earn {resumed:,.0f} nano-units a conversation "
        f"of {profit:,.0f}; ask for the objective profit_if_resumed."
    )


def _held_back(
    estimate: Estimate, draft_menu: Json, menu_in_force: Menu | None, comparison: Json, request: Mapping[str, Any]
) -> str | None:
    if menu_in_force is None:
        return None
    totals = draft_menu["totals"]
    if totals["profit_if_resumed_nanousd"] < min(totals["profit_nanousd"], totals["single_plan_profit_nanousd"]):
        return "If callers sent cut answers back and bought on, it would earn less than the best single plan."
    profit = comparison["profit_nanousd"]
    if profit["draft"]["mean"] <= profit["in_force"]["mean"]:
        return "The menu in force earns as much on average."
    return beyond_limits(
        sold(Menu.from_json(draft_menu)),
        sold(menu_in_force),
        comparison["becomes"],
        cap_factor=request["cap_factor_max"],
        price_factor=request["price_factor_max"],
        longest=estimate.length.identified_to_tokens,
    )
