"""Prepaid credit is drawn first: what is drawn, left and due is exact, and is read from the records alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, update

from gateway.billing.invoices import drafted, finalised
from gateway.billing.prepaid import Prepaid, drawn, left_at, left_before
from gateway.ledger.billing.adjustment_reasons import Adjustment, note
from gateway.ledger.billing.closings import close, months_of
from gateway.ledger.billing.final_invoices import Terms, invoices_in
from gateway.ledger.book.appender import append
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import Database
from gateway.ledger.sums.rollup import Rollup
from gateway.ledger.tables import customers
from tests.gateway.admin.billing.test_invoices import ISSUER
from tests.gateway.billing.test_retention import NOW, at, dropped, retain
from tests.gateway.ledger.records import customer_row, record

ACME = "cus_acme"
AMOUNTS = st.integers(-(2**60), 2**60)
MORE = st.integers(0, 2**60)


@pytest.fixture
def ledger(database: Database) -> Database:
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row(ACME, timezone="Europe/Berlin")])
    return database


def paid(ledger: Database, number: int, time: str, amount: int) -> None:
    """Book what the customer paid in advance."""
    facts = {"kind": "prepaid", "charge_nanousd": 0, "prepaid_nanousd": amount, "conversation": None}
    posted(ledger, number, time, **facts, billed_output_tokens=0)
    with ledger.write() as connection:
        note(connection, Adjustment(f"call-{number:06d}", ACME, None, "Paid", "op", at(time)))


def posted(ledger: Database, number: int, time: str, **changes: Any) -> None:
    defaults = {"customer": ACME, "time": at(time), "settled": at(time) + 1, "conversation_is_included": None}
    append(ledger, [record(number, **{**defaults, **changes})])


def finals(ledger: Database, *names: str) -> None:
    """Close months, then make their invoices final in the order in which they are named."""
    for name in sorted(names):
        with ledger.write() as connection:
            close(connection, list(months_of(ledger, name)), NOW)
    while Sealer(ledger, lambda: NOW, rows=2).turn(all_of_it=True):
        pass
    for name in names:
        [month] = months_of(ledger, name)
        finalised(ledger, month, ISSUER, Terms(ledger), lambda: NOW)


def prepaid(ledger: Database) -> dict[str, tuple[int, ...]]:
    """Return by month what final invoices say of prepaid credit."""
    found = [one for _, one in invoices_in(ledger, customer=ACME, limit=99)]
    return {one["period"]["month"]: tuple(one["prepaid"].values()) for one in found if one["prepaid"] is not None}


@given(MORE, MORE, AMOUNTS)
def test_what_is_there_is_drawn_before_anything_is_due(before: int, added: int, charged: int) -> None:
    found = drawn(before, added, charged)

    assert found is not None
    assert found.before_nanousd + found.added_nanousd == found.drawn_nanousd + found.left_nanousd
    assert found.drawn_nanousd + found.due_nanousd == charged
    assert found.left_nanousd >= 0
    assert found.due_nanousd >= 0
    assert found.left_nanousd == 0 or found.due_nanousd == 0


def test_who_has_paid_nothing_in_advance_has_no_prepaid_credit() -> None:
    assert drawn(None, 0, -50) is None
    assert drawn(0, 0, 50) == Prepaid(0, 0, 0, 0, 50)
    assert drawn(None, 70, -50) == Prepaid(0, 70, -50, 120, 0)


def test_it_is_carried_from_month_to_month(ledger: Database) -> None:
    """Also over months without records; usage, fees and credits draw on it, and what came before it is none of its."""
    posted(ledger, 1, "2026-01-10T00:00:00")
    paid(ledger, 2, "2026-02-10T00:00:00", 12_000)
    posted(ledger, 3, "2026-02-11T00:00:00")
    posted(ledger, 4, "2026-02-12T00:00:00", kind="fee", charge_nanousd=1_000)
    posted(ledger, 5, "2026-04-10T00:00:00")
    posted(ledger, 6, "2026-04-11T00:00:00", kind="credit", charge_nanousd=-300)
    posted(ledger, 7, "2026-05-10T00:00:00")

    assert left_at(ledger, ACME, NOW) == 0
    finals(ledger, "2026-01", "2026-02", "2026-03", "2026-04", "2026-05")

    assert prepaid(ledger) == {
        **{"2026-02": (0, 12_000, 6_000, 6_000, 0), "2026-04": (6_000, 0, 4_700, 1_300, 0)},
        "2026-05": (1_300, 0, 1_300, 0, 3_700),
    }
    assert left_at(ledger, ACME, NOW) == 0
    assert verify_chain(ledger).is_sound


@pytest.mark.parametrize("order", [("2026-01", "2026-02", "2026-03"), ("2026-03", "2026-01", "2026-02")])
def test_the_order_in_which_invoices_become_final_changes_nothing(ledger: Database, order: tuple[str, ...]) -> None:
    """Months that are closed and not invoiced yet, and open ones, are read from their records."""
    paid(ledger, 1, "2026-01-10T00:00:00", 12_000)
    for number, month in enumerate(("01", "02", "03"), start=2):
        posted(ledger, number, f"2026-{month}-11T00:00:00")
    [april] = months_of(ledger, "2026-04")
    posted(ledger, 5, "2026-04-11T00:00:00")
    before = drafted(ledger, april, ISSUER, Terms(ledger))

    finals(ledger, *order)

    assert prepaid(ledger) == {
        **{"2026-01": (0, 12_000, 5_000, 7_000, 0), "2026-02": (7_000, 0, 5_000, 2_000, 0)},
        "2026-03": (2_000, 0, 2_000, 0, 3_000),
    }
    assert before == drafted(ledger, april, ISSUER, Terms(ledger))


def test_what_was_paid_in_a_closed_month_is_left_after_a_move_to_a_zone_further_east(ledger: Database) -> None:
    """The payment is of January in Los Angeles and of February in Tokyo; it counts in January, which was closed first."""
    _move(ledger, "America/Los_Angeles")
    paid(ledger, 1, "2026-02-01T03:00:00", 12_000)
    with ledger.write() as connection:
        close(connection, list(months_of(ledger, "2026-01")), NOW)
    _move(ledger, "Asia/Tokyo")

    assert left_before(ledger, ACME, "2026-02") == 12_000
    assert left_at(ledger, ACME, at("2026-02-10T00:00:00")) == 12_000


def _move(ledger: Database, zone: str) -> None:
    with ledger.write() as connection:
        connection.execute(update(customers).where(customers.c.id == ACME).values(timezone=zone))


def test_a_late_record_draws_in_the_month_in_which_it_counts(ledger: Database) -> None:
    paid(ledger, 1, "2026-01-10T00:00:00", 12_000)
    finals(ledger, "2026-01")
    posted(ledger, 2, "2026-01-20T00:00:00", settled=at("2026-02-20T00:00:00"))

    assert (left_before(ledger, ACME, "2026-02"), left_before(ledger, ACME, "2026-03")) == (12_000, 7_000)


def test_dropping_old_months_leaves_what_is_left(ledger: Database) -> None:
    """Also of a customer whose record of the payment is gone."""
    paid(ledger, 1, "2026-01-10T00:00:00", 12_000)
    posted(ledger, 2, "2026-02-11T00:00:00")
    finals(ledger, "2026-01", "2026-02", "2026-03")
    posted(ledger, 3, "2026-04-11T00:00:00")
    finals(ledger)
    Rollup(ledger).bring_up_to_date(NOW)
    before = left_at(ledger, ACME, NOW)

    assert retain(ledger) == 2

    assert dropped(ledger) == {ACME: ["2026-01", "2026-02"]}
    assert left_at(ledger, ACME, NOW) == before == 2_000
