"""What customers were seen to do, as the estimators want it: from the ledger, or from files of usage records."""

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
from gateway.ledger.sums import market_rows as asked
from gateway.ledger.sums.market_sums import bring_up_to_date, going_in, unheard
from pricing.estimate.observations.conversations import DAY_MS, WEEK_MS, Watch, windows_of
from pricing.estimate.observations.gathering import Choosing, Summed, statistics_of
from pricing.estimate.observations.statistics import Statistics
from pricing.menus.menu import Menu


def seen_in_ledger(
    database: Database, now_ms: int, *, since_ms: int = 0, heard: Callable[[int], object] = unheard
) -> tuple[Statistics, dict[str, Menu]]:
    """Return the statistics of a ledger and its menus, having added to its sums what came since the last time.

    Who gave itself its tier is in the audit; it chose from the menu that was in force then. Where anybody chose,
    active customers without a tier have refused the menu in force, if they had no conversation under it.
    """
    bring_up_to_date(database, now_ms, heard)
    since_week = since_ms // WEEK_MS
    watch = Watch(going_in(database))
    watch.latest_ms = now_ms
    going = watch.close_all()
    menus = asked.menus_in(database)
    with database.read() as connection:
        timeline = menu_rows.read_timeline(connection)
    chose, refusing = _chosen(database, timeline), _refusing(database, timeline, now_ms, watch)
    was_chosen = bool(chose) or asked.was_named(database, since_week, watch.sums)
    weeks = asked.weeks_in(database, since_week, watch.sums)
    windows = windows_of(*weeks) if weeks else (since_week,)
    found = Summed(
        lengths=asked.lengths_in(database, since_week, watch.sums),
        customers=asked.customers_in(database, since_week, watch.sums, windows),
        tiers=asked.tiers_in(database, since_week, watch.sums) if was_chosen else (),
        ages=asked.ages_in(database, since_week, watch.sums),
        pace=asked.pace_in(database, since_week, watch.sums),
        aside=asked.excluded_in(database, since_week, watch.sums),
        going=going,
        windows=windows,
        own_lengths=asked.own_lengths_in(database, since_week, watch.sums),
    )
    choosing = Choosing(
        chose=lambda customer, version: (customer, version) in chose,
        refusing=refusing if was_chosen else {},
    )
    return statistics_of(found, menus, choosing), menus


def menu_bodies(database: Database) -> list[dict[str, Any]]:
    """Return the newest menu that was computed from a market, whole; none if there is none."""
    newest = asked.newest_computed(database)
    return [] if newest is None else [newest]


def _chosen(database: Database, timeline: Timeline) -> set[tuple[str, str]]:
    """Return (customer, menu version) of everyone who gave itself its tier while that menu was in force for it."""
    moments = [publication.at for publication in timeline.publications]
    created = _created(database, timeline)

    @lru_cache(maxsize=1024)
    def by_day(publications: int, day: int) -> str | None:
        # A menu that waits for a period comes at the beginning of a day; one that does not, with its publication.
        at = max(day * DAY_MS, moments[publications - 1] if publications else 0)
        return menu_rows.in_force(timeline, at)

    def by_then(customer: str, at: int) -> str | None:
        if customer in created:
            return menu_rows.in_force(timeline, at, replace(HOUSE, id=customer, created=created[customer]))
        return by_day(bisect_right(moments, at), at // DAY_MS)

    found = ((customer, by_then(customer, at)) for customer, at in asked.own_choices(database))
    return {(customer, version) for customer, version in found if version is not None}


def _refusing(database: Database, timeline: Timeline, now_ms: int, watch: Watch) -> dict[str, frozenset[str]]:
    """Return by menu version the customers who have no tier and had no conversation under the one in force for them."""
    created, found = _created(database, timeline), dict[str, frozenset[str]]()
    arms = {
        customer: menu_rows.in_force(timeline, now_ms, replace(HOUSE, id=customer, created=at))
        for customer, at in created.items()
    }
    usual = menu_rows.in_force(timeline, now_ms)
    for version in {usual, *arms.values()} - {None}:
        assert version is not None
        talking = {key[1] for key in watch.sums.tiers if key[2] == version}
        whom = asked.refusing(database, version) - talking
        found[version] = frozenset(one for one in whom if arms.get(one, usual) == version)
    return found


def _created(database: Database, timeline: Timeline) -> dict[str, int]:
    """Return when customers were created who may be in an arm of an experiment, ms."""
    first = min((one.at for one in timeline.publications if one.arms), default=None)
    return {} if first is None else asked.created_since(database, first)
