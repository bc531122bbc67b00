"""Claims about reading the book: pages meet without gap or overlap, and sums are those of the rows."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.ledger.book.appender import append
from gateway.ledger.cursors import cursor_of
from gateway.ledger.database import Database
from gateway.ledger.read.open_conversations import HOUR_MS
from gateway.ledger.read.queries import (
    Span,
    Spent,
    Totals,
    begun_in,
    settled_since,
    spent_in,
    totals,
    usage_page,
    usage_records_in,
)
from tests.gateway.ledger.records import NOON, record

OTHER = "cus_other"


def read_by_pages(database: Database, span: Span, limit: int) -> list[str]:
    ids: list[str] = []
    cursor = None
    while True:
        page = usage_page(database, span, limit=limit, cursor=cursor)
        assert len(page.records) <= limit
        ids += [row["id"] for row in page.records]
        cursor = page.next_cursor
        if cursor is None:
            return ids


@pytest.fixture
def twenty(database: Database) -> Database:
    """Twenty calls, booked in another order than admitted, four at each moment, every fifth of another customer."""
    append(
        database,
        [
            record(n, time=NOON + n // 4, customer=OTHER if n % 5 == 0 else "cus_acme", charge_nanousd=n)
            for n in reversed(range(20))
        ],
    )
    return database


@pytest.mark.parametrize("page", [1, 2, 3, 1000])
def test_what_was_settled_lately_is_read_page_by_page(database: Database, page: int) -> None:
    calls = [record(number, time=NOON + number // 3, customer=f"cus_{number % 2}") for number in range(12)]
    append(database, [*calls, record(99, time=NOON, customer="cus_other"), record(98, time=NOON - 1, customer="cus_0")])

    found = list(settled_since(database, ["cus_0", "cus_1"], NOON, page))

    wanted = [(one["id"], one["customer"], one["time"], one["charge_nanousd"]) for one in calls]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("limit", [1, 3, 4, 20, 100])
def test_pages_of_any_size_give_every_record_once_oldest_first(twenty: Database, limit: int) -> None:
    assert read_by_pages(twenty, Span(), limit) == [record(n)["id"] for n in range(20)]
    assert [row["id"] for row in usage_records_in(twenty, Span(), page=limit)] == [record(n)["id"] for n in range(20)]


def test_a_span_is_half_open_and_may_be_of_one_customer(twenty: Database) -> None:
    span = Span(customer="cus_acme", since=NOON + 1, until=NOON + 3)

    assert read_by_pages(twenty, span, 2) == [record(n)["id"] for n in (4, 6, 7, 8, 9, 11)]


def test_a_page_that_ends_with_the_last_record_promises_no_other(twenty: Database) -> None:
    assert usage_page(twenty, Span(), limit=20).next_cursor is None
    assert usage_page(twenty, Span(), limit=19).next_cursor is not None
    assert usage_page(twenty, Span(customer="nobody"), limit=1).records == []


def test_records_booked_while_one_reads_are_found_if_they_come_later(twenty: Database) -> None:
    reading = usage_records_in(twenty, Span(), page=5)
    first = next(reading)["id"]
    append(twenty, [record(99, time=NOON + 100)])

    rest = [row["id"] for row in reading]

    assert [first, *rest] == [record(n)["id"] for n in (*range(20), 99)]


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "bnVsbA", "WzFd", "WyIxIiwiMiJd", "WzEsMl0", "e30", "é", "AAAA"])
def test_a_cursor_that_is_not_ours_is_the_callers_mistake(database: Database, cursor: str) -> None:
    with pytest.raises(BadRequest) as refused:
        usage_page(database, Span(), limit=1, cursor=cursor)

    assert refused.value.param == "cursor"


@pytest.mark.parametrize(
    ("position", "is_ours"),
    [
        ((0, "req_1"), True),
        ((2**53, "r" * 256), True),
        ((-1, "req_1"), False),
        ((2**53 + 1, "req_1"), False),
        ((1, ""), False),
        ((1, "r" * 257), False),
        ((1, "a\nb"), False),
    ],
)
def test_the_parts_of_a_cursor_are_bounded(database: Database, position: tuple[int, str], is_ours: bool) -> None:
    """No part reaches the database that a row's position cannot have."""
    with nullcontext() if is_ours else pytest.raises(BadRequest):
        usage_page(database, Span(), limit=1, cursor=cursor_of(*position))


def test_what_customers_spent_is_counted_in_each_ones_own_period(twenty: Database) -> None:
    append(twenty, [record(50, kind="correction", billed_output_tokens=-30, charge_nanousd=-2, time=NOON + 4)])
    append(twenty, [record(51, time=NOON + 100), record(52, kind="credit", charge_nanousd=-9, time=NOON + 4)])
    periods = {"cus_acme": (NOON + 4, NOON + 100), OTHER: (NOON, NOON + 100), "cus_new": (NOON, NOON + 100)}

    spent = spent_in(twenty, periods)

    assert spent == {
        "cus_acme": Spent(tokens=4 * 100 - 30 - 0, charge_nanousd=16 + 17 + 18 + 19 - 2),
        OTHER: Spent(tokens=400, charge_nanousd=0 + 5 + 10 + 15),
        "cus_new": Spent(),
    }


def test_sums_stay_exact_where_floating_point_would_not(database: Database) -> None:
    """Also past 2^63, where a sum of SQLite's own fails."""
    most: dict[str, Any] = {"charge_nanousd": 2**53 - 1, "billed_output_tokens": 2**53 - 1}
    append(database, [record(number, **most) for number in range(1, 1_031)])

    assert spent_in(database, {"cus_acme": (0, 2**53)}) == {"cus_acme": Spent(1_030 * (2**53 - 1), 1_030 * (2**53 - 1))}
    assert totals(database).charge_nanousd == 1_030 * (2**53 - 1)


def test_more_customers_than_fit_one_transaction_are_all_answered(twenty: Database) -> None:
    periods = {f"cus_{number}": (0, 2**53) for number in range(250)} | {"cus_acme": (0, 2**53)}

    spent = spent_in(twenty, periods)

    assert spent.keys() == periods.keys()
    assert spent["cus_acme"].tokens == 1_600


def test_totals_are_the_sums_of_the_rows_in_a_span(twenty: Database) -> None:
    rows = list(usage_records_in(twenty, Span(until=NOON + 3)))

    assert totals(twenty, Span(until=NOON + 3)) == Totals(
        records=12,
        input_tokens=sum(row["input_tokens"] for row in rows),
        output_tokens=sum(row["output_tokens"] for row in rows),
        billed_output_tokens=sum(row["billed_output_tokens"] for row in rows),
        charge_nanousd=sum(row["charge_nanousd"] for row in rows),
    )
    assert totals(twenty, Span(since=NOON + 1_000)) == Totals()


def test_what_a_subscription_included_is_counted_by_conversation_and_not_by_name(database: Database) -> None:
    """Five that used one name, hours apart, are five; what was charged, or goes on, is none."""
    begun = [record(n, time=NOON + 2 * n * HOUR_MS) for n in range(1, 6)]
    others = [
        record(11, time=NOON + 2 * HOUR_MS + 1, conversation_is_included=None),
        record(12, time=NOON + 3 * HOUR_MS, conversation="charged", conversation_is_included=None),
        record(13, time=NOON, conversation="before"),
        record(14, time=NOON + 4 * HOUR_MS, customer="cus_other"),
    ]
    append(database, [*begun, *others])

    assert begun_in(database, "cus_acme", NOON + 1, NOON + 20 * HOUR_MS) == 5
    assert begun_in(database, "cus_acme", NOON + 1, NOON + 10 * HOUR_MS) == 4


def test_records_from_before_they_said_what_is_included_are_counted_by_name(database: Database) -> None:
    old = {"conversation_cap_tokens": None, "conversation_is_included": None}
    append(
        database,
        [
            record(1, time=NOON, conversation="a", **old),
            record(2, time=NOON + 1, conversation="b", **old),
            record(3, time=NOON + 2, conversation="b", **old),
            record(4, time=NOON + 3, conversation="b", conversation_is_included=None),
            record(5, time=NOON + 4, conversation="c"),
        ],
    )

    assert begun_in(database, "cus_acme", NOON + 1, NOON + HOUR_MS) == 2


def test_what_belongs_to_no_conversation_is_no_included_one(database: Database) -> None:
    """As a correction that makes up for records that are missing."""
    append(
        database,
        [
            record(
                1,
                kind="correction",
                conversation=None,
                **{"conversation_cap_tokens": None, "conversation_is_included": None},
            )
        ],
    )

    assert begun_in(database, "cus_acme", NOON, NOON + HOUR_MS) == 0
