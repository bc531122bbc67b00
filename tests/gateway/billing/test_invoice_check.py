"""Claims about the recount of invoices: a stored total that the month's records do not come to is named, and no other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from gateway.billing.invoices import Issuer, finalised
from gateway.ledger.billing.closings import close, months_of
from gateway.ledger.billing.final_invoices import Terms
from gateway.ledger.billing.invoice_check import AT_ONCE, wrong_invoices, wrong_notes
from gateway.ledger.billing_tables import closings, credit_notes, dropped_totals, invoices
from gateway.ledger.book.appender import append
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.database import Database
from gateway.ledger.sums.rollup import Rollup
from gateway.ledger.sums.sum_check import WrongTotal, wrong_sums
from gateway.ledger.tables import customers
from tests.gateway.billing.test_retention import MONTHS, NOW, ZONES, at, history, retain
from tests.gateway.ledger.records import customer_row, record

ISSUER = Issuer((), (), "", "USD")
SEED = 5


@pytest.fixture
def ledger(database: Database) -> Database:
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row(name, timezone=zone) for name, zone in ZONES.items()])
    return database


def invoiced(ledger: Database, records: list[Any], months: tuple[str, ...] = MONTHS[:3]) -> None:
    """Book records, every eighth only once its month is closed; make the invoices of the months final."""
    append(ledger, [one for number, one in enumerate(records) if number % 8])
    for month in months:
        with ledger.write() as connection:
            close(connection, list(months_of(ledger, month)), NOW)
        append(ledger, records[::8] if month == MONTHS[1] else [])
        for customer_month in months_of(ledger, month):
            finalised(ledger, customer_month, ISSUER, Terms(ledger), lambda: NOW)
    while Sealer(ledger, lambda: NOW, rows=7).turn(all_of_it=True):
        pass
    Rollup(ledger).bring_up_to_date(NOW)


def change(ledger: Database, *statements: Any) -> None:
    with ledger.write() as connection:
        for statement in statements:
            connection.execute(statement)


def one_invoice(ledger: Database) -> tuple[str, str, dict[str, Any]]:
    with ledger.read() as connection:
        row = connection.execute(select(invoices).order_by(invoices.c.number).limit(1)).one()
    return row.id, row.customer, json.loads(row.body)


@pytest.mark.parametrize("seed", range(3))
def test_invoices_that_were_left_alone_are_right(ledger: Database, seed: int) -> None:
    """With records that came late, and before, while and after their months are dropped."""
    invoiced(ledger, history(seed))
    assert list(wrong_invoices(ledger)) == []

    assert retain(ledger) > 0

    assert list(wrong_invoices(ledger)) == []
    assert list(wrong_sums(ledger)) == []


def test_the_sum_of_a_period_that_retention_dropped_is_not_compared(ledger: Database) -> None:
    """The last period of a customer that has been silent since: its records are gone, and nothing reads its sum."""
    january = {"customer": "cus_utc", "time": at("2026-01-10T00:00:00"), "settled": at("2026-01-10T00:00:01")}
    april = {"customer": "cus_berlin", "time": at("2026-04-10T00:00:00"), "settled": at("2026-04-10T00:00:01")}
    invoiced(ledger, [record(number, **(january if number == 1 else april)) for number in range(16)])
    assert list(wrong_sums(ledger)) == []

    assert retain(ledger) == 1

    assert list(wrong_sums(ledger)) == []
    assert list(wrong_invoices(ledger)) == []


def test_the_total_of_an_invoice_that_was_changed_is_named(ledger: Database) -> None:
    invoiced(ledger, history(SEED))
    name, customer, body = one_invoice(ledger)
    right, lines = body["total_nanousd"], body["lines"]
    cheaper = [{**lines[0], "amount_nanousd": lines[0]["amount_nanousd"] - 1}, *lines[1:]]
    mine = update(invoices).where(invoices.c.id == name)
    faults = {
        "total": ({"total": "7"}, 7, right),
        "total_nanousd": ({"body": json.dumps({**body, "total_nanousd": 8})}, 8, right),
        "lines": ({"body": json.dumps({**body, "lines": cheaper})}, right - 1, right),
        "records": ({"body": json.dumps({**body, "records": 0})}, 0, body["records"]),
    }
    for column, (values, stored, recounted) in faults.items():
        change(ledger, mine.values(values))

        assert list(wrong_invoices(ledger)) == [WrongTotal(customer, f"invoice {name}", column, stored, recounted)]
        change(ledger, mine.values(total=str(right), body=json.dumps(body)))


def test_an_invoice_that_was_deleted_is_named(ledger: Database) -> None:
    invoiced(ledger, history(SEED))
    name, customer, body = one_invoice(ledger)
    change(ledger, delete(invoices).where(invoices.c.id == name))

    missing = WrongTotal(
        customer, f"invoice of {body['period']['month']}", "total_nanousd", None, body["total_nanousd"]
    )
    assert list(wrong_invoices(ledger)) == [missing]


def test_an_invoice_of_a_month_that_is_not_closed_is_named(ledger: Database) -> None:
    invoiced(ledger, history(SEED))
    name, customer, body = one_invoice(ledger)
    month = (closings.c.customer == customer, closings.c.month == body["period"]["month"])
    change(ledger, delete(closings).where(*month))

    assert list(wrong_invoices(ledger)) == [
        WrongTotal(customer, f"invoice {name}", "total", body["total_nanousd"], None)
    ]


def test_totals_of_a_dropped_month_that_were_changed_differ_from_its_invoice(ledger: Database) -> None:
    invoiced(ledger, history(SEED))
    assert retain(ledger) > 0
    with ledger.read() as connection:
        row = connection.execute(select(dropped_totals).order_by(dropped_totals.c.id).limit(1)).one()
    *others, charge = json.loads(row.sums)
    change(
        ledger,
        update(dropped_totals).where(dropped_totals.c.id == row.id).values(sums=json.dumps([*others, charge + 3])),
    )

    found = list(wrong_invoices(ledger))

    assert {total.column for total in found} == {"total", "total_nanousd", "lines"}
    assert {(total.customer, total.of) for total in found} == {
        (row.customer, f"invoice inv_{row.month}_{row.customer}")
    }
    assert {total.recounted - total.stored for total in found if total.stored is not None and total.recounted} == {3}


def test_invoices_of_several_pages_are_compared(ledger: Database) -> None:
    many = [f"cus_{number:03d}" for number in range(2 * AT_ONCE + 1)]
    change(ledger, insert(customers).values([customer_row(name) for name in many]))
    invoiced(ledger, [record(number, customer=name, settled=1) for number, name in enumerate(many)], MONTHS[:1])
    change(ledger, update(invoices).values(total="1"))

    with ledger.read() as connection:
        count = len(connection.execute(select(invoices.c.id)).all())
    assert count > AT_ONCE
    assert len(list(wrong_invoices(ledger))) == count


def test_a_note_that_credits_another_amount_than_its_record_is_named(ledger: Database) -> None:
    append(ledger, [record(1, kind="credit", charge_nanousd=-40), record(2, kind="credit", charge_nanousd=-50)])
    names = {"customer": "cus_acme", "invoice": "inv", "name": "", "body": "{}"}
    notes = [
        {"id": f"call-{number:06d}", "number": number, "amount": amount, **names}
        for number, amount in ((1, 40), (2, 5))
    ]
    change(ledger, insert(credit_notes).values(notes))

    assert list(wrong_notes(ledger)) == [WrongTotal("cus_acme", "credit note call-000002", "amount", 5, 50)]
