"""Carries customers, keys and publications from the ledger into Redis, and marks in the ledger which rows Redis has.

A change is committed first, as not projected. The process that made the change projects it at once; if that fails, the
bookkeeper's sweep projects it later. Everything here may be repeated, and may run in several processes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, bindparam, select, text, update

from gateway.catalog import customer_rows, menu_rows
from gateway.catalog.api_key_rows import OWN
from gateway.catalog.period_changes import change_period, is_another_period
from gateway.clock import now_ms
from gateway.errors import MeteringUnavailable
from gateway.holds.store import redis_keys
from gateway.holds.store.projection import Admitted, Projection
from gateway.holds.terms import Timeline
from gateway.ledger.database import Database
from gateway.ledger.tables import api_keys, customers, publications

AT_ONCE = 500
"""Rows in one transaction: on SQLite nothing else writes until Redis has their keys."""

TOLD_WITHIN_MS = 86_400_000
"""The age up to which the webhook is notified of a publication; an older one is put in force without a notice."""

WAITING = text("NOT projected")
"""Has the wording of the partial indexes; without these, each sweep would read every customer."""


def project_pending(database: Database, projection: Projection, most: int | None = None) -> int:
    """Bring Redis up to date with the ledger; return how many rows it lacked.

    Args:
        most: how many customers, and how many keys, are carried at least before the rest waits for the next sweep;
            None carries all.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable; call this again later.
    """
    carried = project_menus(database, projection)
    projecting: tuple[tuple[Column[Any], Callable[[Database, Projection, Collection[str]], None]], ...] = (
        (customers.c.id, project_customers),
        (api_keys.c.key_id, project_keys),
    )
    for column, project in projecting:
        projected = 0
        for ids in _waiting(database, column):
            project(database, projection, ids)
            projected += len(ids)
            if most is not None and projected >= most:
                break
        carried += projected
    return carried


class CatalogProjector:
    """Writes all customers, keys and menus to a Redis that lost them.

    Rows that are marked as not projected stay so: the sweep carries them again, and notifies the webhook.
    """

    def __init__(self, database: Database, projection: Projection) -> None:
        self._database = database
        self._projection = projection

    def write_menus(self) -> None:
        """Write the publications that are still needed, and their menus."""
        with self._database.read() as connection:
            timeline = menu_rows.still_needed(menu_rows.read_timeline(connection))
            versions = sorted(timeline.versions)
            menus = [menu_rows.read_menu(connection, version) for version in versions]
        for menu in menus:
            self._projection.put_menu(menu)
        self._projection.put_timeline(timeline)

    def write_customers(self, ids: Sequence[str]) -> None:
        """Write customers, and admit their keys."""
        with self._database.read() as connection:
            query = select(*customer_rows.COLUMNS).where(customers.c.id.in_(ids))
            rows = [customer_rows.row_of(row) for row in connection.execute(query)]
        self._projection.put_customers([row.terms() for row in rows])
        with self._database.write() as connection:
            _let_in(connection, self._projection, api_keys.c.customer.in_(ids) & api_keys.c.revoked.is_(None))


def project_customers(database: Database, projection: Projection, ids: Collection[str]) -> None:
    """Write the present state of customers. Redis keeps the later of two revisions, in whatever order they arrive.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable, or a customer's change of period failed. In the second
            case the changes of the other customers are in force.
    """
    if not ids:
        return
    with database.read() as connection:
        query = select(*customer_rows.COLUMNS).where(customers.c.id.in_(ids))
        rows = [customer_rows.row_of(row) for row in connection.execute(query)]
    if not rows:
        return
    later = {row.id: row.terms() for row in rows}
    failed: MeteringUnavailable | None = None
    for before in projection.customers(list(later)):
        if is_another_period(before, later[before.id]):
            try:
                change_period(database, projection, later[before.id])
            except MeteringUnavailable as error:
                failed = error
                del later[before.id]
    projection.put_customers(list(later.values()))
    mark_projected = update(customers).where(customers.c.id == bindparam("one"), customers.c.rev == bindparam("seen"))
    if later:
        with database.write() as connection:
            connection.execute(
                mark_projected.values(projected=True), [{"one": row.id, "seen": row.rev} for row in later.values()]
            )
    if failed is not None:
        raise failed


def project_keys(database: Database, projection: Projection, key_ids: Collection[str]) -> None:
    """Make keys valid in Redis, and revoked keys invalid.

    Keys have no revisions, so their rows stay locked until Redis has them: otherwise a process that had read a key just
    before another process revoked it could make the key valid again.
    """
    chosen = api_keys.c.key_id.in_(key_ids)
    with database.write() as connection:
        _let_in(connection, projection, chosen)
        connection.execute(update(api_keys).where(chosen).values(projected=True))


def _let_in(connection: Connection, projection: Projection, chosen: ColumnElement[bool]) -> None:
    rows = connection.execute(select(api_keys).where(chosen).order_by(api_keys.c.key_id).with_for_update()).all()
    admitted = [
        Admitted(
            bucket=redis_keys.bucket_of(row.customer),
            digest=row.digest,
            customer=row.customer,
            key_id=row.key_id,
            expires=row.expires,
            is_foreign=not row.prefix.startswith(OWN),
        )
        for row in rows
        if row.revoked is None
    ]
    projection.put_keys(
        admitted, [(redis_keys.bucket_of(row.customer), row.digest) for row in rows if row.revoked is not None]
    )


def project_menus(database: Database, projection: Projection) -> int:
    """Put in force the publications that Redis does not have, and notify the webhook; return their number."""
    waiting = select(publications.c.seq).where(WAITING)
    with database.read() as connection:
        if connection.execute(waiting.limit(1)).first() is None:
            return 0
        timeline = menu_rows.read_timeline(connection)
        numbers = set(connection.execute(waiting.where(publications.c.seq <= timeline.rev)).scalars())
        coming = [publication for publication in timeline.publications if publication.seq in numbers]
        versions = sorted(Timeline(tuple(coming)).versions)
        menus = [menu_rows.read_menu(connection, version) for version in versions]
    for menu in menus:
        projection.put_menu(menu)
    projection.put_timeline(menu_rows.still_needed(timeline))
    for publication in coming:
        if publication.at > now_ms() - TOLD_WITHIN_MS:
            projection.write_notice(publication)
    with database.write() as connection:
        carried = publications.c.seq <= timeline.rev
        connection.execute(update(publications).where(carried).values(projected=True))
    return len(numbers)


def _waiting(database: Database, column: Column[Any]) -> Iterator[list[str]]:
    """Yield the ids of the rows that Redis does not have, in batches."""
    last = ""
    while True:
        with database.read() as connection:
            query = select(column).where(WAITING, column > last).order_by(column).limit(AT_ONCE)
            ids = list(connection.execute(query).scalars())
        if not ids:
            return
        yield ids
        last = ids[-1]
