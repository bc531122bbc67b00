"""Reads customers' behaviour from the ledger, in the form that the estimators take."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from gateway.catalog import menu_rows
from gateway.catalog.menu_rows import HOUSE
from gateway.holds.terms import Timeline
from gateway.ledger.database import Database
from gateway.ledger.sums import market_rows
from gateway.ledger.sums.market_sums import bring_up_to_date, going_in, unheard
from pricing.estimate.observations.conversations import DAY_MS, WEEK_MS, Watch, windows_of
from pricing.estimate.observations.gathering import Choosing, Summed, statistics_of
from pricing.estimate.observations.statistics import Statistics
from pricing.menus.menu import Menu


def ledger_statistics(
    database: Database, now_ms: int, *, since_ms: int = 0, report: Callable[[int], object] = unheard
) -> tuple[Statistics, dict[str, Menu]]:
    """Add the records that are not yet in a ledger's sums to them, and return the ledger's statistics and menus.

    The audit shows which customers set their tier themselves; they chose from the menu that was in force then. If any
    customer has chosen, an active customer without a tier and without a conversation under the menu in force counts as
    having refused that menu.
    """
    bring_up_to_date(database, now_ms, report)
    since_week = since_ms // WEEK_MS
    watch = Watch(going_in(database))
    watch.latest_ms = now_ms
    in_progress = watch.close_all()
    menus = market_rows.menus_in(database)
    with database.read() as connection:
        timeline = menu_rows.read_timeline(connection)
    chose, refusing = _chosen(database, timeline), _refusing(database, timeline, now_ms, watch)
    was_chosen = bool(chose) or market_rows.was_named(database, since_week, watch.sums)
    weeks = market_rows.weeks_in(database, since_week, watch.sums)
    windows = windows_of(*weeks) if weeks else (since_week,)
    sums = Summed(
        lengths=market_rows.lengths_in(database, since_week, watch.sums),
        customers=market_rows.customers_in(database, since_week, watch.sums, windows),
        tiers=market_rows.tiers_in(database, since_week, watch.sums) if was_chosen else (),
        ages=market_rows.ages_in(database, since_week, watch.sums),
        pace=market_rows.pace_in(database, since_week, watch.sums),
        aside=market_rows.excluded_in(database, since_week, watch.sums),
        going=in_progress,
        windows=windows,
        own_lengths=market_rows.own_lengths_in(database, since_week, watch.sums),
    )
    choosing = Choosing(
        chose=lambda customer, version: (customer, version) in chose,
        refusing=refusing if was_chosen else {},
    )
    return statistics_of(sums, menus, choosing), menus


def menu_bodies(database: Database) -> list[dict[str, Any]]:
    """Return a list with the newest menu that was computed from a market, complete; an empty list if there is none."""
    newest = market_rows.newest_computed(database)
    return [] if newest is None else [newest]


def _chosen(database: Database, timeline: Timeline) -> set[tuple[str, str]]:
    """Return (customer, menu version) of each customer that set its own tier while that menu was in force for it."""
    moments = [publication.at for publication in timeline.publications]
    created = _created(database, timeline)

    @lru_cache(maxsize=1024)
    def by_day(publications: int, day: int) -> str | None:
        # A menu that waits for a period takes effect at the beginning of a day, any other menu when it is published.
        moment = max(day * DAY_MS, moments[publications - 1] if publications else 0)
        return menu_rows.in_force(timeline, moment)

    def by_then(customer: str, moment: int) -> str | None:
        if customer in created:
            return menu_rows.in_force(timeline, moment, replace(HOUSE, id=customer, created=created[customer]))
        return by_day(bisect_right(moments, moment), moment // DAY_MS)

    choices = ((customer, by_then(customer, moment)) for customer, moment in market_rows.own_choices(database))
    return {(customer, version) for customer, version in choices if version is not None}


def _refusing(database: Database, timeline: Timeline, now_ms: int, watch: Watch) -> dict[str, frozenset[str]]:
    """Return, by menu version, the customers without a tier that never conversed under the menu in force for them."""
    created, refusing = _created(database, timeline), dict[str, frozenset[str]]()
    arms = {
        customer: menu_rows.in_force(timeline, now_ms, replace(HOUSE, id=customer, created=created_ms))
        for customer, created_ms in created.items()
    }
    usual_version = menu_rows.in_force(timeline, now_ms)
    for version in {usual_version, *arms.values()} - {None}:
        assert version is not None
        conversing = {key[1] for key in watch.sums.tiers if key[2] == version}
        customers = market_rows.refusing(database, version) - conversing
        refusing[version] = frozenset(
            customer_id for customer_id in customers if arms.get(customer_id, usual_version) == version
        )
    return refusing


def _created(database: Database, timeline: Timeline) -> dict[str, int]:
    """Return when each customer that may be in an arm of an experiment was created, ms."""
    earliest = min((publication.at for publication in timeline.publications if publication.arms), default=None)
    return {} if earliest is None else market_rows.created_since(database, earliest)
