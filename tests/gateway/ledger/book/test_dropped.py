"""Which rows retention dropped: a gap in the chain holds only where each of its rows has a bit under an older seal."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from gateway.ledger.book.appender import append
from gateway.ledger.book.dropped import Dropped, by_seal, dropped_in, mark_dropped
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import Database
from gateway.ledger.tables import usage_records
from tests.gateway.ledger.records import record

TIME = 1_767_268_800_000
TWO_SEALS = Dropped((1, 5), (4, 8), (0b1111, 0b0011))


@pytest.fixture
def sealed(database: Database) -> Database:
    """Eight rows under two seals of four, and one row more."""
    append(database, [record(number) for number in range(1, 9)])
    Sealer(database, lambda: TIME, rows=4).turn(all_of_it=True)
    append(database, [record(9)])
    return database


def drop(database: Database, *seqs: int, marked: bool = True) -> None:
    with database.write() as connection:
        if marked:
            mark_dropped(connection, by_seal(connection, seqs, "main"))
        connection.execute(delete(usage_records).where(usage_records.c.seq.in_(seqs)))


@pytest.mark.parametrize(
    ("first", "last", "has_all"),
    [
        (1, 4, True),
        (2, 3, True),
        (4, 5, True),
        (1, 6, True),
        (6, 7, False),
        (7, 7, False),
        (8, 9, False),
        (9, 9, False),
    ],
)
def test_all_rows_of_a_gap_have_a_bit(first: int, last: int, has_all: bool) -> None:
    assert TWO_SEALS.has_all(first, last) is has_all


def test_marks_add_up(sealed: Database) -> None:
    drop(sealed, 2)
    drop(sealed, 3)

    assert dropped_in(sealed, "main").bits == (0b0110,)
    found = verify_chain(sealed)
    assert (found.is_sound, found.rows, found.dropped) == (True, 9, 2)


@pytest.mark.parametrize(("seqs", "marked"), [((6,), True), ((8,), True), ((3,), False), ((9,), True)])
def test_a_row_that_retention_does_not_drop_is_missing(sealed: Database, seqs: tuple[int, ...], marked: bool) -> None:
    """One of the newest seal or of none, whatever is marked, and one without a mark."""
    drop(sealed, *seqs, marked=marked)

    bad = verify_chain(sealed).bad

    assert bad is not None
    assert bad.seq == seqs[0]
    assert "missing" in bad.reason
