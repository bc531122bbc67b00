"""An invoice reads each record of its month once, on both databases; of a record that came late its place, too."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, text

from benchmarks.billing.invoice import STEPS_MOST, Readings
from gateway.billing.invoices import Issuer, drafted, finalised
from gateway.ledger.billing.closings import bounds_of, close, months_of
from gateway.ledger.billing.final_invoices import Terms, invoice_of
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.ledger.tables import customers
from tests.gateway.ledger.records import customer_row, record

ROWS = 4_000
BEFORE, MONTH, CUSTOMER = "2026-01", "2026-02", "cus_acme"
START, END = bounds_of(MONTH, "UTC")
TIMES = {"in time": START, "late": bounds_of(BEFORE, "UTC")[0]}
ISSUER = Issuer((), (), "", "USD")


def close_month(database: Database, month: str) -> None:
    with database.write() as connection:
        close(connection, list(months_of(database, month)), END + 1)


@pytest.mark.parametrize(("arrival", "reads"), [("in time", 1), ("late", 2)])
def test_an_invoice_reads_each_record_once(database: Database, arrival: str, reads: int) -> None:
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row(CUSTOMER)])
    close_month(database, BEFORE)
    append(database, [record(number, time=TIMES[arrival] + number, settled=START + number) for number in range(ROWS)])
    if not database.is_sqlite:
        with database.write() as connection:
            connection.execute(text("ANALYZE"))  # as the server does by itself within a minute
    readings, terms = Readings(database), Terms(database)
    most = ROWS * reads * (STEPS_MOST if database.is_sqlite else 1.2)

    began = readings.so_far()
    [month] = months_of(database, MONTH, CUSTOMER)
    draft = drafted(database, month, ISSUER, terms)
    of_draft = readings.so_far() - began
    close_month(database, MONTH)
    [month] = months_of(database, MONTH, CUSTOMER)
    finalised(database, month, ISSUER, terms, lambda: 0)
    of_both = readings.so_far() - began

    final = invoice_of(database, draft["id"])
    assert final is not None
    assert draft["records"] == final["records"] == ROWS
    assert 0 < of_draft < most
    assert of_both < 2 * most
