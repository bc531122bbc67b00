"""Claims about the recount of the running sums: each that its records do not come to is named, and no other."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from gateway.holds.periods import period_at
from gateway.holds.store.clients import connect
from gateway.ledger.book.appender import append
from gateway.ledger.book.erasure import erase_beside, erase_records
from gateway.ledger.database import Database
from gateway.ledger.read.open_conversations import DAY_MS
from gateway.ledger.sums.rollup import Rollup
from gateway.ledger.sums.sum_check import CUSTOMERS_AT_ONCE, WrongTotal, wrong_sums
from gateway.ledger.tables import customers, rollup_conversations, rollup_read, rollup_windows
from gateway.ledger.writer import Writer
from pricing.money import MOST
from tests.gateway.ledger.records import NOON, customer_row, record, settle, settled_call
from tests.gateway.ledger.sums.test_rollup import ZONES, history

DAY = period_at("day", "UTC", NOON)
PERIOD = "period 2026-01-01T00:00:00.000Z to 2026-01-02T00:00:00.000Z"


@pytest.fixture
def ledger(database: Database) -> Database:
    """Each kind of ledger in turn, with four customers in four zones."""
    with database.write() as connection:
        for name, (period, timezone) in ZONES.items():
            connection.execute(insert(customers).values(customer_row(name, period, timezone)))
    return database


def book(ledger: Database, *records: Any) -> None:
    append(ledger, list(records))
    Rollup(ledger).bring_up_to_date(NOON)


def change(ledger: Database, *statements: Any) -> None:
    with ledger.write() as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("seed", range(4))
def test_sums_that_were_kept_are_right(ledger: Database, seed: int) -> None:
    """Whatever comes in which batches, in zones that change, with words that are erased, and sums that are behind."""
    draw = random.Random(seed)
    waiting, rollup = history(draw, 160, 3 * DAY_MS), Rollup(ledger, batch=draw.choice((1, 7, 100)))
    while waiting:
        some, waiting = waiting[: (many := draw.randrange(1, 40))], waiting[many:]
        append(ledger, some)
        if draw.random() < 0.7:
            rollup.bring_up_to_date(some[-1]["settled"])
        if draw.random() < 0.4:
            name, zone = draw.choice([*ZONES]), draw.choice([*ZONES.values()])
            change(ledger, update(customers).where(customers.c.id == name).values(period=zone[0], timezone=zone[1]))
        if draw.random() < 0.1:
            change(ledger, update(customers).where(customers.c.id == "cus_coop").values(erased=1))
            with ledger.write() as connection:
                erase_beside(connection, "cus_coop", b"secret")
            erase_records(ledger, "cus_coop", b"secret", 1)

        assert list(wrong_sums(ledger)) == []


@pytest.mark.parametrize(
    ("column", "values", "named"),
    [
        ("tokens", {"tokens_low": 199}, (199, 200)),
        ("tokens", {"tokens_high": 1}, (2**27 + 200, 200)),
        ("charge_nanousd", {"charge_low": 0}, (0, 10_000)),
        ("included", {"included": 9}, (9, 2)),
    ],
)
def test_a_sum_of_a_period_that_was_changed_is_named(
    ledger: Database, column: str, values: dict[str, int], named: tuple[int, int]
) -> None:
    book(ledger, record(1), record(2), record(3, customer="cus_bell"))
    change(ledger, update(rollup_windows).where(rollup_windows.c.customer == "cus_acme").values(values))

    assert list(wrong_sums(ledger)) == [WrongTotal("cus_acme", PERIOD, column, *named)]


@pytest.mark.parametrize("column", ["tokens", "input_tokens"])
def test_a_sum_of_a_conversation_that_was_changed_is_named(ledger: Database, column: str) -> None:
    book(ledger, record(1), record(2), record(3, conversation="c2"))
    mine = rollup_conversations.c.name == "c1"
    change(ledger, update(rollup_conversations).where(mine).values({column: 3}))

    right = {"tokens": 200, "input_tokens": 40}[column]
    assert list(wrong_sums(ledger)) == [WrongTotal("cus_acme", "conversation c1", column, 3, right)]


def test_every_wrong_sum_is_named_not_the_first_one_alone(ledger: Database) -> None:
    many = [f"cus_{number:03d}" for number in range(2 * CUSTOMERS_AT_ONCE + 1)]
    change(ledger, insert(customers).values([customer_row(name, "day") for name in many]))
    book(ledger, *(record(number, customer=name) for number, name in enumerate(many)))
    change(ledger, update(rollup_windows).values(tokens_low=1))

    assert [total.customer for total in wrong_sums(ledger)] == many


def test_a_period_whose_sum_is_missing_is_named(ledger: Database) -> None:
    """A rebuild would take it for a period without use."""
    book(ledger, record(1), record(2, customer="cus_bell"))
    change(ledger, delete(rollup_windows).where(rollup_windows.c.customer == "cus_acme"))

    assert list(wrong_sums(ledger)) == [WrongTotal("cus_acme", PERIOD, "tokens", None, 100)]


def test_a_customer_without_calls_misses_no_sum(ledger: Database) -> None:
    """A fee is a record of a period in which nothing was used."""
    next_day = {"time": DAY[1] + 5, "settled": DAY[1] + 5, "conversation": None}
    book(ledger, record(1, kind="fee", conversation=None), record(2, customer="cus_dorm"))
    book(ledger, record(3, kind="fee", customer="cus_dorm", **next_day))

    assert list(wrong_sums(ledger)) == []


def test_a_place_past_the_book_is_named(ledger: Database) -> None:
    """No later record would be added to the sums."""
    book(ledger, record(1))
    change(ledger, update(rollup_read).values(seq=2))

    assert list(wrong_sums(ledger)) == [WrongTotal(None, "running sums", "last record", 2, 1)]


def test_a_place_that_was_set_back_is_named_by_the_sums_that_go_further(ledger: Database) -> None:
    book(ledger, record(1))
    book(ledger, record(2))
    change(ledger, update(rollup_read).values(seq=1))

    found = [(total.of, total.column, total.stored, total.recounted) for total in wrong_sums(ledger)]
    assert (PERIOD, "tokens", 200, 100) in found
    assert ("conversation c1", "tokens", 200, 100) in found


def test_sums_that_nobody_has_begun_are_not_wrong(ledger: Database) -> None:
    append(ledger, [record(1)])

    assert list(wrong_sums(ledger)) == []


def test_a_customer_that_returned_to_its_zone_has_all_its_records_in_the_sum(ledger: Database) -> None:
    """The sum of the first zone is gone while another counts: it would lack what came meanwhile."""
    book(ledger, record(1))
    for number, zone in ((2, "Asia/Tokyo"), (3, "UTC")):
        change(ledger, update(customers).where(customers.c.id == "cus_acme").values(timezone=zone))
        book(ledger, record(number))

    with ledger.read() as connection:
        rows = connection.execute(select(rollup_windows).where(rollup_windows.c.customer == "cus_acme")).all()
    assert [(row.start, row.end, row.tokens_low) for row in rows] == [(*DAY, 300)]
    assert list(wrong_sums(ledger)) == []


def test_sums_as_large_as_can_be_are_compared(ledger: Database) -> None:
    most = {"billed_output_tokens": MOST, "charge_nanousd": MOST, "input_tokens": MOST}
    book(ledger, *(record(number, **most) for number in range(1_030)))
    assert list(wrong_sums(ledger)) == []

    change(ledger, update(rollup_windows).values(charge_low=rollup_windows.c.charge_low + 1))

    [total] = wrong_sums(ledger)
    assert (total.stored, total.recounted) == (1_030 * MOST + 1, 1_030 * MOST)


def test_a_bookkeeper_that_writes_meanwhile_makes_no_sum_wrong(ledger: Database, valkey_url: str) -> None:
    """Sums and records are read at one moment, whatever is booked between two statements."""
    written, is_done = 0, threading.Event()

    def write() -> None:
        nonlocal written
        with connect(valkey_url) as client:
            writer = Writer(client, ledger)
            while not is_done.is_set():
                for customer in ZONES:
                    settle(client, settled_call(written, customer=customer, conversation=f"c{written % 3}"), charge=5)
                    written += 1
                writer.turn()

    bookkeeper = threading.Thread(target=write)
    bookkeeper.start()
    try:
        found = []
        while written < 200:
            found += wrong_sums(ledger)
    finally:
        is_done.set()
        bookkeeper.join()
    assert found == []
