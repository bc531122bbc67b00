"""Totals: whole numbers that add up to the records in every grouping, each record in one day, month and group."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import insert

from gateway.billing.totals import COUNTED, FIELD_OF, SUMMED, Begun, totals_by
from gateway.ledger.billing.closings import bounds_of, close, months_of
from gateway.ledger.billing.counted import Month, records_counted_in
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span, usage_records_in
from gateway.ledger.tables import customers
from tests.gateway.ledger.records import customer_row, record

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
ZONES = {
    **{"cus_berlin": "Europe/Berlin", "cus_samoa": "Pacific/Apia", "cus_howe": "Australia/Lord_Howe", "cus_utc": "UTC"},
    **{"cus_beirut": "Asia/Beirut", "cus_kiribati": "Pacific/Kiritimati", "cus_chatham": "Pacific/Chatham"},
}
MONTHS = ("2024-02", "2024-03", "2024-10", "2024-11")
"""A leap month, and months in which clocks are set."""


@pytest.fixture
def ledger(database: Database) -> Database:
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row(name, timezone=zone) for name, zone in ZONES.items()])
    return database


def history(draw: random.Random, count: int) -> Iterator[Any]:
    """Yield records of all kinds around the beginnings and ends of months and days, in no order."""
    for number in range(count):
        customer = draw.choice(list(ZONES))
        edges = bounds_of(draw.choice(MONTHS), ZONES[customer])
        time = draw.choice((*edges, *edges, edges[0] + draw.randrange(31) * DAY_MS)) + draw.choice(
            (-1, 0, 1, 7, HOUR_MS)
        )
        kind = draw.choices(("usage", "correction", "fee", "credit"), (8, 1, 1, 1))[0]
        is_call = kind in ("usage", "correction")
        tokens = draw.choice((0, 1, 2**52)) if is_call else 0
        changes: dict[str, Any] = {
            **{"customer": customer, "time": time, "settled": time + draw.choice((1, HOUR_MS)), "kind": kind},
            **{"tier": draw.choice(("t1", "t2", None)), "menu_version": draw.choice(("m1", "m2"))},
            **{"key_id": draw.choice(("k1", "k2", None)), "end_user": draw.choice(("ann", "é", None))},
            **{"conversation": draw.choice(("c1", "c2")) if is_call else None, "billed_output_tokens": tokens},
            **{"output_tokens": tokens, "input_tokens": draw.randrange(100) if is_call else 0},
            **{"charge_nanousd": draw.randrange(2**52) * (-1 if kind == "credit" else 1)},
        }
        yield record(number, **changes)


def summed(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(row[name] for row in rows) for name in COUNTED}


@pytest.mark.parametrize("seed", range(3))
def test_every_grouping_adds_up_to_the_records(ledger: Database, seed: int) -> None:
    """In every month of all customers and of one, whatever was closed between the records."""
    draw = random.Random(seed)
    waiting = list(history(draw, 160))
    for month in MONTHS:
        append(ledger, waiting[:40])
        waiting = waiting[40:]
        with ledger.write() as connection:
            close(connection, [one for one in months_of(ledger, month) if draw.random() < 0.7], 0)
    whole = dict.fromkeys((*SUMMED, "calls"), 0)
    for year, months in ((2024, range(1, 13)), (2025, (1,))):
        for number in months:
            for only in (None, "cus_berlin"):
                month = Month(ledger, f"{year}-{number:02d}", only)
                records = list(records_counted_in(ledger, Span(only), month))
                wanted = {field: sum(one[field] for one in records) for field in SUMMED}
                wanted["calls"] = sum(one["kind"] == "usage" for one in records)
                found = {by: summed(totals_by(ledger, by, Span(only), month)) for by in FIELD_OF}

                assert {by: {name: sums[name] for name in wanted} for by, sums in found.items()} == dict.fromkeys(
                    FIELD_OF, wanted
                )
                assert len({sums["conversations"] for sums in found.values()}) == 1
                if only is None:
                    whole = {name: whole[name] + wanted[name] for name in whole}
    book = list(usage_records_in(ledger, Span()))
    assert whole == {
        **{field: sum(one[field] for one in book) for field in SUMMED},
        "calls": sum(one["kind"] == "usage" for one in book),
    }


def test_a_day_is_of_the_customers_zone(ledger: Database) -> None:
    """By the clocks on its wall, as the standard library tells it, also where a day has 23 or 25 hours, or none was."""
    append(ledger, list(history(random.Random(7), 200)))
    wanted: dict[str, int] = {}
    for one in usage_records_in(ledger, Span()):
        day = datetime.fromtimestamp(one["time"] / 1000, ZoneInfo(ZONES[one["customer"]])).date().isoformat()
        wanted[day] = wanted.get(day, 0) + one["charge_nanousd"]

    found = {row["day"]: row["charge_nanousd"] for row in totals_by(ledger, "day", Span())}

    assert found == wanted
    assert list(found) == sorted(found)


def test_groups_are_by_name_and_null_is_last(database: Database) -> None:
    append(database, [record(1, tier=None), record(2, tier="t2"), record(3, tier="t1"), record(4, tier="t2")])

    rows = totals_by(database, "tier", Span())

    assert [(row["tier"], row["calls"]) for row in rows] == [("t1", 1), ("t2", 2), (None, 1)]
    assert list(rows[0]) == ["tier", *COUNTED]


def test_a_conversation_counts_at_its_first_output_token(database: Database) -> None:
    """Once, in the day and month of that call, though it goes on over midnight; a new one of its name counts again."""
    midnight = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 1000
    times = (midnight - 3, midnight - 2, midnight - 1, midnight + 1, midnight + 2 * HOUR_MS)
    tokens = (0, 5, 5, 5, 5)
    calls = [
        record(number, time=time, settled=time, billed_output_tokens=count)
        for number, (time, count) in enumerate(zip(times, tokens, strict=True))
    ]
    append(database, calls)

    assert [row["conversations"] for row in totals_by(database, "day", Span())] == [1, 1]
    assert [row["conversations"] for row in totals_by(database, "day", Span(since=midnight))] == [1]
    assert [row["calls"] for row in totals_by(database, "day", Span(since=midnight))] == [2]


def test_a_conversation_ends_after_an_hour_of_silence_and_after_a_day() -> None:
    """Counted from its last settlement and from its first admission, to the millisecond."""
    begun = Begun()
    half = HOUR_MS // 2

    assert begun.is_begun_by("cus", "a", 0, HOUR_MS, 1)
    assert not begun.is_begun_by("cus", "a", 2 * HOUR_MS - 1, 2 * HOUR_MS - 1, 1)
    assert begun.is_begun_by("cus", "a", 3 * HOUR_MS - 1, 3 * HOUR_MS, 1)
    assert [time for time in range(0, DAY_MS, half) if begun.is_begun_by("cus", "b", time, time, 1)] == [0]
    assert not begun.is_begun_by("cus", "b", DAY_MS - 1, DAY_MS - 1, 1)
    assert begun.is_begun_by("cus", "b", DAY_MS, DAY_MS, 1)


def test_the_first_output_token_may_be_that_of_a_correction(database: Database) -> None:
    corrected: dict[str, Any] = {"kind": "correction", "corrects": "call-000001"}
    append(database, [record(1, billed_output_tokens=0), record(2, **corrected, billed_output_tokens=5)])

    [row] = totals_by(database, "customer", Span())

    assert (row["calls"], row["conversations"], row["billed_output_tokens"]) == (1, 1, 5)


def test_a_late_call_counts_and_begins_no_conversation(ledger: Database) -> None:
    """The month of its conversation is closed."""
    start = bounds_of("2024-03", "UTC")[0]
    append(ledger, [record(1, customer="cus_utc", time=start, settled=start, conversation="a")])
    with ledger.write() as connection:
        close(connection, list(months_of(ledger, "2024-03", "cus_utc")), 0)
    append(ledger, [record(2, customer="cus_utc", time=start, settled=start + 5, conversation="b")])

    [row] = totals_by(ledger, "customer", Span(), Month(ledger, "2024-04"))

    assert (row["calls"], row["conversations"]) == (1, 0)


def test_conversations_that_ended_are_forgotten() -> None:
    """Memory goes with those that are open at once."""
    begun = Begun()
    for number in range(200_000):
        begun.is_begun_by("cus", f"c{number}", number * 1_000, number * 1_000, 1)

    assert len(begun.going) < 60_000
