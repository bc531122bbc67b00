"""Menus and their publications in the ledger: a menu is immutable, a publication puts one in force."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, select, text

from gateway.catalog import customer_rows
from gateway.catalog.problems import AlreadyExists, Conflict, Invalid, NotFound
from gateway.holds.terms import Customer, Publication, Standing, Timeline, standing
from gateway.ledger.tables import menus, publications
from pricing.menus.menu import Menu

Effective = Literal["now", "next_period"]

MENUS_LOCK = 0x746F6B6D656E7573  # "tokmenus"; PostgreSQL's advisory locks are numbers

SKEW_MS = 3_600_000
"""No two clocks of an installation differ by this much."""

LONGEST_PERIOD_MS = 32 * 86_400_000

NAMED = 10
"""The most customers that a refusal names; it only counts the others."""

HOUSE = Customer(
    id="",
    status="active",
    tier=None,
    tier_since=0,
    next_tier=None,
    next_tier_at=None,
    period="month",
    timezone="UTC",
    overrides={},
    rev=0,
)
"""A customer with months in UTC and no terms of its own; its menu is called the menu in force."""


def hold_still(connection: Connection, *, to_publish: bool = False) -> None:
    """Block publications until the transaction ends; ``to_publish`` also waits for all transactions that block them.

    So no customer gets a tier that is being withdrawn, and publications are numbered in the order in which they are
    committed. On SQLite nothing needs to be locked: a transaction that writes is the only writer.
    """
    if connection.dialect.name == "postgresql":
        lock = "pg_advisory_xact_lock" if to_publish else "pg_advisory_xact_lock_shared"
        connection.execute(text(f"SELECT {lock}(:lock)"), {"lock": MENUS_LOCK})


def read_timeline(connection: Connection) -> Timeline:
    """Return every publication there ever was."""
    rows = connection.execute(select(publications).order_by(publications.c.seq))
    return Timeline(
        tuple(
            Publication(row.seq, row.version, row.at, row.effective, json.loads(row.moves), json.loads(row.arms))
            for row in rows
        )
    )


def read_menu(connection: Connection, version: str) -> Menu:
    """Return the public part of a menu.

    Raises:
        NotFound: there is no menu of this version.
    """
    return Menu.from_json(read_body(connection, version))


def read_body(connection: Connection, version: str) -> dict[str, Any]:
    """Return a complete menu, as it was posted.

    Raises:
        NotFound: there is no menu of this version.
    """
    stored = None
    if version.isprintable():  # PostgreSQL refuses to look for some other characters
        stored = connection.execute(select(menus.c.body).where(menus.c.version == version)).scalar_one_or_none()
    if stored is None:
        raise NotFound(f"There is no menu {version[:64]!r}.")
    body: dict[str, Any] = json.loads(stored)
    return body


def refuse_existing(connection: Connection, version: str) -> None:
    """Raise AlreadyExists where there is a menu of this version."""
    query = select(menus.c.version).where(menus.c.version == version)
    if connection.execute(query).scalar_one_or_none() is not None:
        raise AlreadyExists(f"There is a menu {version!r} already, and a menu never changes.")


def earlier(timeline: Timeline, version: str) -> str | None:
    """Return the menu to go back to: ``version`` if another menu replaced it, else the menu that it replaced."""
    versions = [publication.version for publication in timeline.publications]
    if version not in versions:
        return None
    if versions[-1] != version:
        return version
    return next((before for before in reversed(versions) if before != version), None)


def moved_back(timeline: Timeline, menu: Menu) -> dict[str, str]:
    """Return moves that undo those of the last publication, for tiers that ``menu`` lacks and that had one source."""
    last = timeline.publications[-1]
    back = {new: old for old, new in last.moves.items() if menu.tier(old) is not None and menu.tier(new) is None}
    came_from = list(last.moves.values())
    return {new: old for new, old in back.items() if came_from.count(new) == 1}


def in_force(timeline: Timeline, now_ms: int, customer: Customer = HOUSE) -> str | None:
    """Return the version in force now, for customers with months in UTC, or None before the first publication."""
    return standing(customer, timeline, now_ms).version


def add_menu(connection: Connection, body: Mapping[str, Any], *, source: str, created: int) -> Menu:
    """Write a complete menu, and return its public part.

    Raises:
        NotAMenu: the body is no menu.
        AlreadyExists: there is a menu of this version.
    """
    menu = Menu.from_json(body)
    refuse_existing(connection, menu.version)
    values = {"version": menu.version, "source": source, "created": created, "body": json.dumps(body)}
    connection.execute(insert(menus).values(**values))
    return menu


def find_or_add(connection: Connection, body: Mapping[str, Any], *, source: str, created: int) -> Menu:
    """Return the public part of a menu; a new menu is written. Equal versions are equal menus: they hash the inputs."""
    menu = Menu.from_json(body)
    known = connection.execute(select(menus.c.version).where(menus.c.version == menu.version)).scalar_one_or_none()
    return menu if known else add_menu(connection, body, source=source, created=created)


def publish(
    connection: Connection,
    menu: Menu,
    *,
    now_ms: int,
    effective: Effective = "now",
    moves: Mapping[str, str] | None = None,
    arms: Mapping[str, float] | None = None,
) -> Publication:
    """Put a menu in force; ``moves`` maps old tier names to new names, ``arms`` maps menus to try to their shares.

    Call ``hold_still(connection, to_publish=True)`` first in the transaction.

    Raises:
        Invalid: a tier moves to a tier that the menu does not have, or an arm is no menu of the same tiers.
        Conflict: customers would have a tier that the menu does not have.
    """
    moves, arms = dict(moves or {}), dict(arms or {})
    _refuse_other_tiers(connection, menu, arms)
    for old, new in moves.items():
        if menu.tier(new) is None:
            raise Invalid.field(f"moves.{old}", f"The menu has no tier {new!r}.", "tier_not_found")
    timeline = read_timeline(connection)
    last = timeline.publications[-1] if timeline.publications else None
    at = now_ms if last is None else max(now_ms, last.at)  # a later number never has an earlier time
    coming = Publication(timeline.rev + 1, menu.version, at, effective, moves, arms)
    _refuse_to_strand(connection, Timeline((*timeline.publications, coming)), menu, at)
    values = {"version": menu.version, "at": at, "effective": effective}
    texts = {"moves": json.dumps(moves), "arms": json.dumps(arms)}
    numbered = insert(publications).values(**values, **texts, projected=False).returning(publications.c.seq)
    return Publication(connection.execute(numbered).scalar_one(), menu.version, at, effective, moves, arms)


def _refuse_other_tiers(connection: Connection, menu: Menu, arms: Mapping[str, float]) -> None:
    """Raise Invalid where an arm is not a menu of the same tiers, sold the same way, or the arms' shares exceed 1."""
    tier_names = {tier.name for tier in menu.tiers}
    for version in arms:
        try:
            arm = read_menu(connection, version)
        except NotFound as error:
            raise Invalid.field(f"arms.{version[:64]}", error.message, "menu_not_found") from error
        if {tier.name for tier in arm.tiers} != tier_names or (arm.bill, arm.currency) != (menu.bill, menu.currency):
            raise Invalid.field(f"arms.{version}", "An arm has the tiers of the menu, under the same names and bill.")
    if sum(arms.values()) > 1:
        raise Invalid.field("arms", "The shares of all arms are at most 1 together.")


@dataclass(slots=True)
class Stranded:
    """Customers that would have a tier that is not sold."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, customer_id: str) -> None:
        self.count += 1
        if self.count <= NAMED:
            self.first.append(customer_id)


def _refuse_to_strand(connection: Connection, timeline: Timeline, menu: Menu, now_ms: int) -> None:
    timeline = still_needed(timeline)
    sold = {tier.name for tier in menu.tiers}
    stranded: dict[str, Stranded] = {}
    for row in customer_rows.with_a_tier(connection):
        unsold = {
            coming.tier
            for _, coming in ahead(row.terms(), timeline, now_ms)
            if coming.version == menu.version and coming.tier is not None and coming.tier not in sold
        }
        for tier in unsold:
            stranded.setdefault(tier, Stranded()).add(row.id)
    if stranded:
        raise Conflict(
            "; ".join(_sentence(tier, group) for tier, group in sorted(stranded.items()))
            + ". Give them another tier first.",
            code="tier_in_use",
            more={
                "tiers": {
                    tier: {"count": group.count, "customers": group.first} for tier, group in sorted(stranded.items())
                }
            },
        )


def _sentence(tier: str, group: Stranded) -> str:
    names = ", ".join(group.first) + (f" and {group.count - NAMED} more" if group.count > NAMED else "")
    return f"{group.count} customer{'s have' if group.count > 1 else ' has'} the tier {tier!r}: {names}"


def ahead(customer: Customer, timeline: Timeline, now_ms: int) -> Iterator[tuple[int, Standing]]:
    """Yield a customer's standing now and after each change that is already decided, each with its time."""
    at = now_ms
    while True:
        current = standing(customer, timeline, at)
        yield at, current
        if current.next is None:
            return
        at = current.next.effective


def still_needed(timeline: Timeline) -> Timeline:
    """Return the timeline without the publications that no customer's standing depends on any more.

    A publication that moves no tier only sets the menu in force, until a later publication does. It is left out once
    two conditions hold: it has taken effect for every customer, which takes a period at most, and after that a later
    publication has taken effect for every customer. Both must hold an hour before the last publication, so that no
    gateway's clock is behind that time.

    A publication that moves tiers and waits for a period takes effect only for customers for whom no later publication
    took effect before. So the publications that came while it waited are retained with it.
    """
    if not timeline.publications:
        return timeline
    now_ms = timeline.publications[-1].at - SKEW_MS
    retained: list[Publication] = []
    settled_at = settled_next_period_at = -1
    for publication in reversed(timeline.publications):
        by_period = publication.effective == "next_period"
        surpassed = settled_at >= _latest(publication) or (by_period and settled_next_period_at >= 0)
        if publication.moves or not surpassed:
            retained.append(publication)
        if _latest(publication) <= now_ms:
            settled_at = max(settled_at, publication.at)
            if by_period:
                settled_next_period_at = max(settled_next_period_at, publication.at)
    waited = [
        (published.at, _latest(published))
        for published in retained
        if published.effective == "next_period" and published.moves
    ]
    seqs = {published.seq for published in retained}
    return Timeline(
        tuple(
            published
            for published in timeline.publications
            if published.seq in seqs or any(since <= published.at <= until for since, until in waited)
        )
    )


def _latest(publication: Publication) -> int:
    """Return a time by which a publication has taken effect for every customer."""
    return publication.at if publication.effective == "now" else publication.at + LONGEST_PERIOD_MS


def read_page(connection: Connection, limit: int, after: tuple[int, str] | None) -> Sequence[Row[int, str]]:
    """Return ``created`` and ``version`` of menus in the order they were created, after a position."""
    query = select(menus.c.created, menus.c.version).order_by(menus.c.created, menus.c.version).limit(limit)
    if after is not None:
        later = (menus.c.created == after[0]) & (menus.c.version > after[1])
        query = query.where((menus.c.created > after[0]) | later)
    return connection.execute(query).all()


def find(connection: Connection, version: str) -> Row[Any]:
    """Return a menu's row.

    Raises:
        NotFound: there is no such menu.
    """
    row = connection.execute(select(menus).where(menus.c.version == version)).one_or_none()
    if row is None:
        raise NotFound(f"There is no menu {version[:64]!r}.")
    return row
