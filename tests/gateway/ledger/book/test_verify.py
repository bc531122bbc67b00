"""Claims about the recount: whatever is done to the book behind its back, the first bad row is named."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Update, delete, insert, select, update

from gateway.ledger.book.appender import append
from gateway.ledger.book.chain import GENESIS, BadRow, link
from gateway.ledger.book.verify import PAGE, Verification, verify_all, verify_chain
from gateway.ledger.database import Database
from gateway.ledger.tables import chains, usage_records
from tests.gateway.ledger.records import record

book = usage_records.c


@pytest.fixture
def ten(database: Database) -> Database:
    append(database, [record(number) for number in range(1, 11)])
    return database


def row(seq: int) -> Update:
    return update(usage_records).where(book.seq == seq)


def tamper(database: Database, *statements: Any) -> None:
    with database.write() as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_book_that_was_left_alone_is_sound(ten: Database) -> None:
    assert verify_chain(ten) == Verification("main", 10, None)
    assert verify_chain(ten).is_sound


def test_an_empty_book_is_sound(database: Database) -> None:
    assert verify_chain(database) == Verification("main", 0, None)
    assert verify_all(database) == []


def test_a_book_of_several_pages_is_followed_across_them(database: Database) -> None:
    append(database, [record(number) for number in range(2 * PAGE + 1)])
    assert verify_chain(database).rows == 2 * PAGE + 1

    tamper(database, row(PAGE + 1).values(charge_nanousd=0))

    assert verify_chain(database).bad == BadRow(
        PAGE + 1, record(PAGE)["id"], "its content does not have the hash it carries"
    )


def test_an_edit_of_any_column_is_found(ten: Database) -> None:
    edited = {bool: False, int: 7, str: "x"}
    for column in usage_records.c:
        if column.name in ("chain", "seq"):  # those are rows that changed places, below
            continue
        with ten.read() as connection:
            before = connection.execute(select(column).where(book.seq == 4)).scalar_one()
        tamper(ten, row(4).values({column.name: edited[column.type.python_type]}))

        found = verify_chain(ten)

        assert (found.rows, found.bad and found.bad.seq) == (3, 4), column.name
        tamper(ten, row(4).values({column.name: before}))
    assert verify_chain(ten).is_sound


def test_a_deleted_row_is_found(ten: Database) -> None:
    tamper(ten, delete(usage_records).where(book.seq == 4))

    assert verify_chain(ten).bad == BadRow(4, record(5)["id"], "row 4 is missing, row 5 stands in its place")


def test_two_rows_that_changed_places_are_found(ten: Database) -> None:
    tamper(ten, row(4).values(seq=100), row(5).values(seq=4), row(100).values(seq=5))

    assert verify_chain(ten).bad == BadRow(4, record(5)["id"], "it does not name the hash of the row before it")


def test_a_tail_that_was_cut_off_is_found_by_the_head(ten: Database) -> None:
    tamper(ten, delete(usage_records).where(book.seq > 7))

    found = verify_chain(ten)

    assert found == Verification("main", 7, BadRow(8, None, "it is missing, and so is every row up to the head's 10"))


def test_a_book_emptied_of_every_row_is_found(ten: Database) -> None:
    tamper(ten, delete(usage_records))

    assert [found.bad and found.bad.seq for found in verify_all(ten)] == [1]


def test_a_row_put_in_before_the_first_is_found(ten: Database) -> None:
    forged = link(GENESIS, {**record(99), "chain": "main", "seq": 0})
    tamper(ten, insert(usage_records).values(forged))

    found = verify_chain(ten).bad
    assert found is not None
    assert found.id == record(99)["id"]


def test_a_row_put_in_past_the_head_is_found(ten: Database) -> None:
    with ten.read() as connection:
        head = connection.execute(select(chains.c.hash)).scalar_one()
    tamper(ten, insert(usage_records).values(link(head, {**record(99), "chain": "main", "seq": 11})))

    assert verify_chain(ten).bad == BadRow(11, None, "it is past the chain's head, which is row 10")


def test_rows_of_a_chain_nobody_opened_are_found(ten: Database) -> None:
    forged = link(GENESIS, {**record(99), "chain": "side", "seq": 1})
    tamper(ten, insert(usage_records).values(forged))

    assert [(found.chain, found.is_sound) for found in verify_all(ten)] == [("main", True), ("side", False)]


def test_an_edited_head_is_found(ten: Database) -> None:
    tamper(ten, update(chains).values(hash="f" * 64))

    assert verify_chain(ten).bad == BadRow(10, None, "the chain's head names another hash for it")


def test_a_head_that_was_deleted_is_found(ten: Database) -> None:
    tamper(ten, delete(chains))

    assert [found.bad and found.bad.seq for found in verify_all(ten)] == [1]
