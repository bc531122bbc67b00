"""Customers as rows of the ledger: found, locked, written and paged through."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from sqlalchemy import Column, Connection, Row, func, insert, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from gateway.catalog.problems import AlreadyExists, NotFound
from gateway.holds.periods import PeriodKind
from gateway.holds.terms import Customer, Increase, Subscription
from gateway.ledger.rows import VALUES_MOST, batches
from gateway.ledger.tables import customers
from pricing.menus.menu import OWN_PRICES

Status = Literal["active", "blocked", "deleted"]

ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """One customer. ``terms`` returns the part of the row that the serving path knows."""

    id: str
    name: str
    tier: str | None
    tier_since: int
    status: Status
    period: PeriodKind
    timezone: str
    created: int
    next_tier: str | None = None
    next_tier_at: int | None = None
    external_id: str | None = None
    overrides: dict[str, int] = field(default_factory=dict)
    rev: int = 1
    subscription_tier: str | None = None
    subscription_version: str | None = None
    subscription_start: int | None = None
    subscription_until: int | None = None
    erased: int | None = None
    increase: dict[str, Any] | None = None
    """``limits`` that are raised until ``increase_until``, and the ``reason``."""
    increase_until: int | None = None
    ended: dict[str, Any] | None = None
    """A paid period that ended early, until the bookkeeper settles it: ``tier``, ``start``, ``until`` and ``at``."""
    notice_percents: list[int] | None = None

    @property
    def subscription(self) -> Subscription | None:
        """The last paid period, open or over; None if the row has none."""
        tier, version = self.subscription_tier, self.subscription_version
        start, until = self.subscription_start, self.subscription_until
        if tier is None or version is None or start is None or until is None:
            return None
        return Subscription(tier, version, start, until)

    def subscribed(self, subscription: Subscription | None) -> CustomerRow:
        """Return the row with another paid period, or with none."""
        if subscription is None:
            return replace(
                self,
                subscription_tier=None,
                subscription_version=None,
                subscription_start=None,
                subscription_until=None,
            )
        return replace(
            self,
            subscription_tier=subscription.tier,
            subscription_version=subscription.version,
            subscription_start=subscription.start,
            subscription_until=subscription.until,
        )

    def without_subscription(self, now_ms: int) -> CustomerRow:
        """Return the row without a paid period; ``ended`` records the rest of a period that was open."""
        paid = self.subscription
        after = self.subscribed(None)
        if paid is None or not paid.is_open(now_ms):
            return after
        return replace(
            after,
            ended={"tier": paid.tier, "start": paid.start, "until": paid.until, "at": now_ms},
        )

    def terms(self) -> Customer:
        increase = None
        if self.increase is not None and self.increase_until is not None:
            increase = Increase(self.increase["limits"], self.increase_until)
        return Customer(
            id=self.id,
            status=self.status,
            tier=self.tier,
            tier_since=self.tier_since,
            next_tier=self.next_tier,
            next_tier_at=self.next_tier_at,
            period=self.period,
            timezone=self.timezone,
            overrides=self.overrides,
            rev=self.rev,
            subscription=self.subscription,
            created=self.created,
            increase=increase,
            notice_percents=None if self.notice_percents is None else tuple(self.notice_percents),
        )


COLUMNS = tuple(customers.c[each.name] for each in fields(CustomerRow))
"""The columns that ``row_of`` reads."""

JSON = ("overrides", "increase", "ended", "notice_percents")
"""The columns that are stored as JSON."""


def row_of(row: Row[tuple[Any, ...]]) -> CustomerRow:
    """Return the customer in a row that was selected by COLUMNS."""
    values = dict(row._mapping)
    for name in JSON:
        values[name] = values[name] and json.loads(values[name])
    return CustomerRow(**values)


def find(connection: Connection, customer_id: str, *, locked: bool = False) -> CustomerRow:
    """Return a customer; with ``locked``, every other change of the customer waits until the transaction ends.

    Raises:
        NotFound: no customer has this id.
    """
    query = select(*COLUMNS).where(customers.c.id == customer_id)
    row = None
    if customer_id.isprintable():  # PostgreSQL refuses to look for some other characters
        row = connection.execute(query.with_for_update() if locked else query).one_or_none()
    if row is None:
        raise NotFound(f"There is no customer {customer_id[:64]!r}.")
    return row_of(row)


def add(connection: Connection, row: CustomerRow) -> None:
    """Write a new customer.

    Raises:
        AlreadyExists: another customer has its external_id.
    """
    add_all(connection, [row])


def add_all(connection: Connection, rows: Sequence[CustomerRow]) -> None:
    """Write new customers.

    Raises:
        AlreadyExists: another customer has one of their external_ids.
    """
    if not rows:
        return
    try:
        connection.execute(insert(customers), [{**_values(row), "projected": False} for row in rows])
    except IntegrityError as error:
        raise (
            _conflict(rows[0]) if len(rows) == 1 else AlreadyExists("Another customer has one of these external_ids.")
        ) from error


def with_external_ids(connection: Connection, names: Sequence[str]) -> list[CustomerRow]:
    """Return the customers with these external ids, each locked until the transaction ends."""
    return _locked(connection, customers.c.external_id, names)


def with_ids(connection: Connection, ids: Sequence[str]) -> list[CustomerRow]:
    """Return the customers with these ids, each locked until the transaction ends."""
    return _locked(connection, customers.c.id, ids)


def _locked(connection: Connection, column: Column[Any], values: Sequence[str]) -> list[CustomerRow]:
    rows: list[CustomerRow] = []
    for batch in batches(values, VALUES_MOST):
        query = select(*COLUMNS).where(column.in_(batch))
        rows += [row_of(row) for row in connection.execute(query.order_by(customers.c.id).with_for_update())]
    return rows


def store(connection: Connection, row: CustomerRow) -> CustomerRow:
    """Write a changed customer, which was ``locked`` when found, as its next revision.

    Raises:
        AlreadyExists: another customer has its external_id.
    """
    row = replace(row, rev=row.rev + 1)
    try:
        connection.execute(update(customers).where(customers.c.id == row.id).values(**_values(row), projected=False))
    except IntegrityError as error:
        raise _conflict(row) from error
    return row


def _values(row: CustomerRow) -> dict[str, Any]:
    values = {column.name: getattr(row, column.name) for column in fields(row)}
    for name in JSON:
        values[name] = None if values[name] is None else json.dumps(values[name], sort_keys=True)
    return values


def _conflict(row: CustomerRow) -> AlreadyExists:
    return AlreadyExists(f"Another customer has the external_id {row.external_id!r}.")


def page(
    connection: Connection,
    *,
    limit: int,
    after: tuple[int, str] | None = None,
    tiers: Collection[str] = (),
    **filters: str | None,
) -> list[CustomerRow]:
    """Return customers in the order they were created; ``filters`` are columns and the values they must have.

    With ``tiers``, only customers that have, will have or have paid for any of these tiers are returned.
    """
    query = select(*COLUMNS).order_by(customers.c.created, customers.c.id).limit(limit)
    if after is not None:
        query = query.where(tuple_(customers.c.created, customers.c.id) > after)
    for name, value in filters.items():
        if value is not None:
            query = query.where(customers.c[name] == value)
    if tiers:
        tier_columns = (customers.c.tier, customers.c.next_tier, customers.c.subscription_tier)
        query = query.where(or_(*(column.in_(tiers) for column in tier_columns)))
    return [row_of(row) for row in connection.execute(query)]


def with_a_tier(connection: Connection) -> Iterator[CustomerRow]:
    """Yield every customer that has or will have a tier and is not deleted."""
    last = ""
    while True:
        query = select(*COLUMNS).where(
            customers.c.id > last,
            customers.c.status != "deleted",
            customers.c.tier.is_not(None) | customers.c.next_tier.is_not(None),
        )
        rows = connection.execute(query.order_by(customers.c.id).limit(ROWS_AT_ONCE)).all()
        yield from (row_of(row) for row in rows)
        if len(rows) < ROWS_AT_ONCE:
            return
        last = rows[-1].id


def with_own_prices(connection: Connection) -> int:
    """Return how many customers that are not deleted have prices of their own."""
    has_own_price = or_(*(customers.c.overrides.contains(f'"{field}"') for field in OWN_PRICES.values()))
    query = select(func.count()).select_from(customers).where(customers.c.status != "deleted", has_own_price)
    return int(connection.execute(query).scalar_one())


def folded(row: CustomerRow, now_ms: int) -> CustomerRow:
    """Return the row with its next tier as its tier, if the time of that change has come."""
    if row.next_tier_at is None or row.next_tier_at > now_ms:
        return row
    return replace(row, tier=row.next_tier, tier_since=row.next_tier_at, next_tier=None, next_tier_at=None)
