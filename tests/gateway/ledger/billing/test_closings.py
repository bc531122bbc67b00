"""Closed months: what comes later counts in the period in which it is written, and nothing before changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert, select

from gateway.ledger.billing.closings import (
    PAGE,
    Zones,
    all_closed_until,
    bounds_of,
    close,
    is_month,
    month_at,
    month_before,
    months_of,
    open_before,
)
from gateway.ledger.billing.counted import Month, counted_in, records_counted_in
from gateway.ledger.billing_tables import closings, late_records
from gateway.ledger.book.appender import append, book
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span
from gateway.ledger.tables import customers, usage_records
from tests.gateway.ledger.records import customer_row, record

ZONES = {"cus_berlin": "Europe/Berlin", "cus_tokyo": "Asia/Tokyo", "cus_utc": "UTC"}
OCTOBER = "2026-10"


def at(text: str) -> int:
    """Return a moment in UTC, ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


NOON = at("2026-10-15T12:00:00")
BERLIN_END = at("2026-10-31T23:00:00")
TOKYO_END = at("2026-10-31T15:00:00")


@pytest.fixture
def ledger(database: Database) -> Database:
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row(name, timezone=zone) for name, zone in ZONES.items()])
    return database


def close_all(ledger: Database, month: str = OCTOBER) -> None:
    with ledger.write() as connection:
        close(connection, list(months_of(ledger, month)), BERLIN_END + 5)


def move_all(ledger: Database, zone: str) -> None:
    """Give every customer another time zone."""
    with ledger.write() as connection:
        connection.execute(customers.update().values(timezone=zone))


def ids(ledger: Database, month: str, only: str | None = None) -> list[str]:
    return [one["id"] for one in records_counted_in(ledger, Span(only), Month(ledger, month, only))]


def call(number: int, customer: str, time: int, **changes: Any) -> Any:
    return record(number, **{"customer": customer, "time": time, "settled": time + 500, **changes})


def test_a_month_is_of_the_customers_own_zone(ledger: Database) -> None:
    found = {one.customer: (one.start, one.end) for one in months_of(ledger, OCTOBER)}

    assert found == {name: bounds_of(OCTOBER, zone) for name, zone in ZONES.items()}
    assert found["cus_berlin"] == (at("2026-09-30T22:00:00"), BERLIN_END)
    assert found["cus_tokyo"] == (at("2026-09-30T15:00:00"), TOKYO_END)


def test_every_customer_has_a_month_however_many_there_are(ledger: Database) -> None:
    with ledger.write() as connection:
        connection.execute(insert(customers), [customer_row(f"cus_{number:05}") for number in range(PAGE)])

    found = [one.customer for one in months_of(ledger, OCTOBER)]

    assert len(found) == len(set(found)) == PAGE + len(ZONES)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("2026-10", True),
        ("2026-13", False),
        ("2026-1", False),
        ("0000-01", False),
        ("1969-12", False),
        ("1970-01", True),
        ("2999-12", True),
        ("3000-01", False),
    ],
)
def test_a_month_has_a_name(text: str, is_one: bool) -> None:
    assert is_month(text) is is_one
    if is_one:
        assert bounds_of(text, "UTC")[0] < bounds_of(text, "UTC")[1]
        assert is_month(month_before(text)) or text == "1970-01"
    assert (month_before("2026-01"), month_before("2026-10")) == ("2025-12", "2026-09")
    assert month_at(BERLIN_END - 1, "Europe/Berlin") == "2026-10"
    assert month_at(BERLIN_END, "Europe/Berlin") == "2026-11"


def test_a_record_counts_in_the_month_of_its_time(ledger: Database) -> None:
    """A call that was admitted a millisecond before the end and settled after it is of the month before."""
    append(ledger, [call(1, "cus_berlin", BERLIN_END - 1), call(2, "cus_berlin", BERLIN_END)])
    append(ledger, [call(3, "cus_tokyo", TOKYO_END - 1), call(4, "cus_tokyo", TOKYO_END)])

    assert ids(ledger, OCTOBER) == ["call-000003", "call-000001"]
    assert ids(ledger, "2026-11") == ["call-000004", "call-000002"]


def test_the_last_hours_of_a_month_in_the_west_are_of_that_month(ledger: Database) -> None:
    """They are after the month's end in UTC and in every other customer's zone."""
    zone = "America/Los_Angeles"
    with ledger.write() as connection:
        connection.execute(insert(customers), [customer_row("cus_west", timezone=zone)])
    append(ledger, [call(1, "cus_west", bounds_of(OCTOBER, zone)[1] - 1), call(2, "cus_utc", NOON)])

    assert ids(ledger, OCTOBER) == ["call-000002", "call-000001"]
    assert ids(ledger, "2026-11") == []


def test_a_month_of_nobody_is_not_closed(database: Database) -> None:
    assert not Month(database, OCTOBER).is_closed


def test_what_comes_after_the_close_counts_when_it_is_written(ledger: Database) -> None:
    """Whatever its time says: in the month in which it was settled, or in the first that is not closed."""
    append(ledger, [call(1, "cus_berlin", NOON)])
    close_all(ledger)
    before = list(records_counted_in(ledger, Span(), Month(ledger, OCTOBER)))

    append(ledger, [call(2, "cus_berlin", NOON, settled=NOON + 5), call(3, "cus_berlin", BERLIN_END - 1)])
    append(ledger, [call(4, "cus_berlin", NOON + 9, settled=at("2026-12-05T00:00:00"))])
    in_december = at("2026-12-01T00:00:00")
    append(ledger, [call(5, "cus_tokyo", TOKYO_END), call(6, "cus_berlin", BERLIN_END, settled=in_december)])

    assert list(records_counted_in(ledger, Span(), Month(ledger, OCTOBER))) == before
    assert ids(ledger, "2026-11") == ["call-000002", "call-000005", "call-000003", "call-000006"]
    assert ids(ledger, "2026-12") == ["call-000004"]


def test_late_records_are_read_by_customer_and_by_every_filter(ledger: Database) -> None:
    append(ledger, [call(number, name, NOON) for number, name in enumerate(ZONES, start=1)])
    close_all(ledger)
    tiers = {11: "t1", 12: "t2"}
    append(ledger, [call(number, "cus_utc", NOON, tier=tier) for number, tier in tiers.items()])
    append(ledger, [call(13, "cus_berlin", NOON, tier="t1", key_id="key_9", end_user="bob")])

    assert ids(ledger, "2026-11", "cus_utc") == ["call-000011", "call-000012"]
    assert ids(ledger, "2026-11", "cus_berlin") == ["call-000013"]
    for narrower, number in ((Span("cus_utc", tier="t1"), 11), (Span(key_id="key_9"), 13), (Span(end_user="bob"), 13)):
        found = records_counted_in(ledger, narrower, Month(ledger, "2026-11", narrower.customer))
        assert [one["id"] for one in found] == [f"call-{number:06d}"]


def test_a_span_of_time_counts_as_months_do(ledger: Database) -> None:
    """A late record is in the span of the moment that it counts at, and in no other."""
    append(ledger, [call(1, "cus_utc", NOON)])
    close_all(ledger)
    append(ledger, [call(2, "cus_utc", NOON)])
    end = bounds_of(OCTOBER, "UTC")[1]

    assert [one["id"] for one in records_counted_in(ledger, Span(until=end))] == ["call-000001"]
    assert [one["id"] for one in records_counted_in(ledger, Span(since=end))] == ["call-000002"]
    assert [one.at for one in counted_in(ledger, (*_first(),), Span(since=end))] == [end]
    assert [one["id"] for one in records_counted_in(ledger, Span())] == ["call-000001", "call-000002"]


def _first() -> tuple[Any, ...]:
    of = usage_records.c
    return of.time, of.id, of.customer


def test_every_record_counts_in_exactly_one_month(ledger: Database) -> None:
    """Whatever was closed between them, months add up to the book."""
    number = 0
    for month in ("2026-08", "2026-09", OCTOBER):
        for name, zone in ZONES.items():
            start, end = bounds_of(month, zone)
            times = (start, start - 1, end - 1, end, NOON - 40 * 86_400_000)
            append(ledger, [call(number + n, name, time) for n, time in enumerate(times)])
            number += len(times)
        close_all(ledger, month)
    append(ledger, [call(number, "cus_berlin", NOON)])

    found = [one for month in range(6, 13) for one in ids(ledger, f"2026-{month:02d}")]

    assert sorted(found) == sorted(f"call-{one:06d}" for one in range(number + 1))


def test_a_month_after_a_closed_one_begins_where_that_ended(ledger: Database) -> None:
    """Also where the customer has another zone since: no moment is of two months, and none of none."""
    close_all(ledger)
    move_all(ledger, "Pacific/Kiritimati")

    closed = {one.customer: one for one in months_of(ledger, OCTOBER)}
    coming = {one.customer: one for one in months_of(ledger, "2026-11")}

    assert all(one.is_closed for one in closed.values())
    assert closed["cus_berlin"].timezone == "Europe/Berlin"
    assert {one: coming[one].start for one in coming} == {one: closed[one].end for one in closed}
    assert Zones(ledger, 0).at("cus_berlin", BERLIN_END - 1) == "Europe/Berlin"
    assert Zones(ledger, 0).at("cus_berlin", BERLIN_END) == "Pacific/Kiritimati"


def test_each_closed_month_keeps_the_zone_of_its_closing(ledger: Database) -> None:
    for month, zone in (("2026-08", "Asia/Tokyo"), ("2026-09", "Europe/Berlin"), (OCTOBER, "Asia/Dubai")):
        move_all(ledger, zone)
        close_all(ledger, month)
    move_all(ledger, "Pacific/Apia")

    moments = [at(f"2026-{month}-15T00:00:00") for month in ("08", "09", "10", "11")]
    assert [Zones(ledger, 0).at("cus_utc", moment) for moment in moments] == [
        *("Asia/Tokyo", "Europe/Berlin", "Asia/Dubai", "Pacific/Apia"),
    ]


def test_closing_waits_for_records_that_are_being_booked(ledger: Database) -> None:
    """So each record is either booked before the close, and in the month, or after it, and late."""
    append(ledger, [call(1, "cus_utc", NOON)])
    with ThreadPoolExecutor(1) as pool, ledger.write() as connection:
        book(connection, [call(2, "cus_utc", NOON)])
        closing = pool.submit(close_all, ledger)
        with pytest.raises(TimeoutError):
            closing.result(0.3)

    assert closing.result(60) is None
    with ledger.read() as connection:
        assert set(connection.execute(select(closings.c.seq)).scalars()) == {2}


def test_closing_twice_changes_nothing(ledger: Database) -> None:
    append(ledger, [call(1, "cus_utc", NOON)])
    close_all(ledger)
    first = list(months_of(ledger, OCTOBER))
    close_all(ledger)

    assert list(months_of(ledger, OCTOBER)) == first


def test_a_span_is_closed_once_everybodys_months_are(ledger: Database) -> None:
    """Up to the end of the earliest; of one customer, up to its own."""
    assert not all_closed_until(ledger, NOON)
    close_all(ledger)

    assert all_closed_until(ledger, TOKYO_END)
    assert not all_closed_until(ledger, TOKYO_END + 1)
    assert all_closed_until(ledger, BERLIN_END, "cus_berlin")
    assert not all_closed_until(ledger, BERLIN_END, "cus_nobody")


def test_a_span_is_open_while_a_customer_has_closed_nothing(ledger: Database) -> None:
    """Another customer's closed months do not stand for its own; several closed months count up to the last."""
    for month in ("2026-09", OCTOBER):
        with ledger.write() as connection:
            close(connection, list(months_of(ledger, month, "cus_berlin")), BERLIN_END + 5)

    assert not all_closed_until(ledger, NOON)
    assert all_closed_until(ledger, NOON, "cus_berlin")
    close_all(ledger)
    assert all_closed_until(ledger, NOON)


def test_a_customer_who_came_later_keeps_nothing_open(ledger: Database) -> None:
    close_all(ledger)
    with ledger.write() as connection:
        connection.execute(insert(customers), [customer_row("cus_new") | {"created": at("2026-11-03T00:00:00")}])

    assert Month(ledger, OCTOBER).is_closed
    assert not Month(ledger, "2026-11").is_closed
    assert all_closed_until(ledger, TOKYO_END)


def test_a_month_is_due_for_who_was_there_before_its_end(database: Database) -> None:
    """A customer of the very end is of the next month; a time before every customer and every close is not closed."""
    end = bounds_of(OCTOBER, "UTC")[1]
    with database.write() as connection:
        rows = [customer_row(name) | {"created": created} for name, created in (("cus_a", end - 1), ("cus_b", end))]
        connection.execute(insert(customers), rows)

    assert [one.customer for one in months_of(database, OCTOBER) if one.is_due] == ["cus_a"]
    assert not all_closed_until(database, end - 1)
    assert not all_closed_until(database, at("2020-01-01T00:00:00"))


def test_an_open_month_before_is_found_by_its_first_record(ledger: Database) -> None:
    append(ledger, [call(1, "cus_utc", at("2026-08-03T00:00:00")), call(2, "cus_utc", NOON)])
    months = {one.customer: one for one in months_of(ledger, OCTOBER)}

    with ledger.read() as connection:
        assert open_before(connection, months["cus_utc"]) == at("2026-08-03T00:00:00")
        assert open_before(connection, months["cus_tokyo"]) is None
    close_all(ledger, "2026-08")
    with ledger.read() as connection:
        assert open_before(connection, months["cus_utc"]) is None
    append(ledger, [call(3, "cus_utc", at("2026-09-01T00:00:00"))])  # of the first moment that is not closed
    with ledger.read() as connection:
        assert open_before(connection, months["cus_utc"]) == at("2026-09-01T00:00:00")


def test_what_comes_into_the_last_of_several_closed_months_is_late(ledger: Database) -> None:
    for month in ("2026-09", OCTOBER):
        close_all(ledger, month)
    append(ledger, [call(1, "cus_utc", NOON)])

    assert ids(ledger, OCTOBER) == []
    assert ids(ledger, "2026-11") == ["call-000001"]


def test_records_before_any_close_are_never_late(ledger: Database) -> None:
    append(ledger, [call(1, "cus_utc", NOON), call(2, "cus_nobody", NOON)])
    close_all(ledger, "2026-09")
    append(ledger, [call(3, "cus_utc", NOON - 1), call(4, "cus_nobody", 5)])

    with ledger.read() as connection:
        assert connection.execute(select(late_records)).all() == []
