"""Puts a change of a customer's period or time zone in force, so that each call is counted exactly once.

Usage of the new period is in the ledger, in records that wait to be booked, and in in-flight calls. The first two are
added up here. The script that puts the change in force adds the in-flight calls; it changes nothing if a record has
come since the first two were added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gateway.clock import now_ms
from gateway.errors import MeteringUnavailable
from gateway.holds.store import redis_keys
from gateway.holds.store.projection import PeriodUse, Projection
from gateway.holds.terms import Customer, period_of
from gateway.ledger.book.entries import Entry, Malformed, record_in
from gateway.ledger.book.watermark import head
from gateway.ledger.database import Database
from gateway.ledger.read.queries import (
    OF_CALLS,
    begun_in,
    booked_among,
    calls_after,
    spent_in,
    tokens_by_end_user,
)
from gateway.ledger.recovery.hot_state import limits_end_users, menus_ever
from pricing.usage import UsageRecord

TRIES = 100
"""The most attempts to read the records that came meanwhile; each takes a few milliseconds."""

NOTHING_READ = "nothing"
"""Replaces the id of a stream's last entry that was read, where no entry has been read yet."""


def is_another_period(before: Customer, after: Customer) -> bool:
    """Return whether a customer's usage is counted in another period after a change of its terms."""
    return (before.period, before.timezone) != (after.period, after.timezone)


def change_period(database: Database, projection: Projection, customer: Customer) -> None:
    """Put in force a customer's terms with a new period or time zone.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable, or records come faster than they are read; nothing has
            changed. Call this again later.
    """
    period = period_of(customer, now_ms())
    upto = head(database)
    spent = spent_in(database, {customer.id: period}, upto)[customer.id]
    included = begun_in(database, customer.id, *period, upto)
    tiers = [tier for menu in menus_ever(database) for tier in menu.tiers]
    counts_users = limits_end_users(customer.overrides, tiers)
    by_user = tokens_by_end_user(database, customer.id, *period, upto) if counts_users else {}
    read_to = projection.change_period(customer, period, PeriodUse(read_to=NOTHING_READ))
    for _ in range(TRIES):
        if read_to is None:
            return
        use = PeriodUse(spent.tokens, spent.charge_nanousd, included, Counter(by_user), read_to)
        for record in _later_records(database, projection, customer.id, period, upto):
            use.tokens += record["billed_output_tokens"]
            use.charge_nanousd += record["charge_nanousd"]
            use.included += record["conversation_is_included"] is True
            if counts_users:
                use.by_user[record["end_user"]] += record["billed_output_tokens"]
        read_to = projection.change_period(customer, period, use)
    raise MeteringUnavailable("Records come faster than they can be read; try again later.")


def _later_records(
    database: Database, projection: Projection, customer: str, period: tuple[int, int], upto: int
) -> Iterable[UsageRecord]:
    """Return the records of a period that are not among the ledger's first ``upto``: those booked since or waiting."""
    # The stream is read first: an entry that leaves it meanwhile is in the ledger by then.
    stream, entries = projection.waiting_records(redis_keys.bucket_of(customer))
    parsed = [record_in(Entry(stream, name, entry)) for name, entry in entries]
    waiting = {
        record["id"]: record
        for record in parsed
        if not isinstance(record, Malformed)
        and (record["customer"], record["kind"] in OF_CALLS) == (customer, True)
        and period[0] <= record["time"] < period[1]
    }
    for name in booked_among(database, list(waiting), upto):
        del waiting[name]
    return (waiting | {record["id"]: record for record in calls_after(database, customer, *period, upto)}).values()
