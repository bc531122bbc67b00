"""Claims about sealing: which rows come under which seal, and that each seal can be computed from the contract."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, delete

from gateway.errors import BadRequest
from gateway.ledger.book.appender import append
from gateway.ledger.book.sealing import SEAL_MS, SEAL_ROWS, SEALS_A_TURN, RowMissing, Sealer
from gateway.ledger.book.seals import NotASeal, Seal, seal_covering, seals_in_order, seals_page
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span, usage_records_in
from gateway.ledger.tables import seals, usage_records
from tests.gateway.ledger.book.test_merkle import defined_root
from tests.gateway.ledger.records import record

START = 1_767_268_800_000


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.ms = START

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sealer(database: Database, clock: Clock) -> Sealer:
    return Sealer(database, clock)


def add(database: Database, first: int, last: int) -> list[dict[str, Any]]:
    return append(database, [record(number) for number in range(first, last + 1)])


def ranges(database: Database) -> list[tuple[int, int, int]]:
    return [(seal.seq, seal.first_seq, seal.last_seq) for seal in seals_in_order(database)]


def computed(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_an_empty_book_has_no_seal(database: Database, sealer: Sealer) -> None:
    assert sealer.turn() == 0
    assert sealer.turn(all_of_it=True) == 0
    assert ranges(database) == []


def test_a_thousand_rows_are_sealed_at_once_and_fewer_a_minute_after_the_last_seal(
    database: Database, sealer: Sealer, clock: Clock
) -> None:
    add(database, 1, 3)
    assert sealer.turn() == 1
    add(database, 4, 4 + SEAL_ROWS)
    clock.ms += SEAL_MS - 1
    assert sealer.turn() == 1
    assert ranges(database) == [(1, 1, 3), (2, 4, 3 + SEAL_ROWS)]

    clock.ms += SEAL_MS - 1
    assert sealer.turn() == 0
    clock.ms += 1

    assert sealer.turn() == 1
    assert ranges(database)[2:] == [(3, 4 + SEAL_ROWS, 4 + SEAL_ROWS)]


def test_a_clock_that_was_set_back_keeps_no_row_unsealed(database: Database, sealer: Sealer, clock: Clock) -> None:
    add(database, 1, 1)
    sealer.turn()
    add(database, 2, 2)
    clock.ms -= 10 * SEAL_MS

    assert sealer.turn() == 1


def test_a_seal_is_the_one_that_the_contract_defines(database: Database, sealer: Sealer, clock: Clock) -> None:
    """Computed from what is published, with nothing of ours."""
    add(database, 1, 5)
    sealer.turn()
    add(database, 6, 8)
    sealer.turn(all_of_it=True)

    records = sorted(usage_records_in(database, Span()), key=lambda record: record["seq"])
    prev = "0" * 64
    for seq, rows in enumerate((records[:5], records[5:]), 1):
        root = defined_root([hashlib.sha256(b"\x00" + computed(row)).digest() for row in rows])
        content = {
            **{"seq": seq, "time": START, "chain": "main", "prev": prev, "root": root.hex(), "rows": len(rows)},
            **{"first_seq": rows[0]["seq"], "last_seq": rows[-1]["seq"]},
        }
        prev = hashlib.sha256(computed(content)).hexdigest()
        [seal] = [seal.to_json() for seal in seals_in_order(database) if seal.seq == seq]
        assert seal == {**content, "hash": prev}


@pytest.mark.parametrize("order", [range(0), range(3), range(2, 7), range(10)])
def test_what_was_heard_of_rows_seals_them_as_reading_them_does(
    database: Database, sealer: Sealer, clock: Clock, order: Sequence[int]
) -> None:
    added = add(database, 1, 10)
    with_text = append(database, [record(11, end_user="“Ø”\u2028", client_request_id='a\\b"c\x7f')])
    sealer.hear([added[place] for place in order] + with_text)
    sealer.turn()

    [seal] = seals_in_order(database)

    rows = sorted(usage_records_in(database, Span()), key=lambda record: record["seq"])
    assert seal.root == defined_root([hashlib.sha256(b"\x00" + computed(row)).digest() for row in rows]).hex()


def test_two_who_seal_at_once_leave_one_chain_of_seals(database: Database, clock: Clock) -> None:
    one, other = Sealer(database, clock), Sealer(database, clock)
    one.hear(add(database, 1, 4))
    other.turn()
    add(database, 5, 6)
    one.turn(all_of_it=True)
    other.turn(all_of_it=True)

    assert ranges(database) == [(1, 1, 4), (2, 5, 6)]


class Overtaken(Sealer):
    """One that another process overtakes between reading which seal is due and keeping it."""

    def __init__(self, other: Sealer, database: Database, clock: Clock) -> None:
        super().__init__(database, clock)
        self._other = other

    def _leaves(self, connection: Connection, first: int, last: int) -> list[bytes]:
        leaves = super()._leaves(connection, first, last)
        self._other.turn(all_of_it=True)
        return leaves


def test_who_is_overtaken_keeps_no_second_seal(database: Database, clock: Clock) -> None:
    add(database, 1, 4)

    Overtaken(Sealer(database, clock), database, clock).turn(all_of_it=True)

    assert ranges(database) == [(1, 1, 4)]


def test_a_long_book_is_sealed_in_turns(database: Database, clock: Clock) -> None:
    """One that was never sealed keeps nobody waiting."""
    sealer = Sealer(database, clock, rows=2)
    add(database, 1, 2 * SEALS_A_TURN + 1)

    turns = [sealer.turn(all_of_it=True) for _ in range(3)]

    assert turns == [SEALS_A_TURN, 1, 0]


def test_a_row_that_is_missing_is_not_sealed_over(database: Database, sealer: Sealer) -> None:
    add(database, 1, 5)
    with database.write() as connection:
        connection.execute(delete(usage_records).where(usage_records.c.seq == 4))

    with pytest.raises(RowMissing, match="Row 4 of chain main is missing"):
        sealer.turn()

    assert ranges(database) == []


def test_the_seal_that_covers_a_row_is_found(database: Database, sealer: Sealer) -> None:
    add(database, 1, 3)
    sealer.turn()
    add(database, 4, 6)
    sealer.turn(all_of_it=True)
    add(database, 7, 7)

    with database.read() as connection:
        found = [seal_covering(connection, seq) for seq in range(1, 8)]
        elsewhere = seal_covering(connection, 1, "side")

    assert [seal and seal.seq for seal in found] == [1, 1, 1, 2, 2, 2, None]
    assert elsewhere is None
    with database.write() as connection:
        connection.execute(delete(seals).where(seals.c.seq == 1))
    with database.read() as connection:
        assert seal_covering(connection, 3) is None


def test_seals_are_listed_newest_first_page_by_page(database: Database, sealer: Sealer) -> None:
    for number in range(1, 6):
        add(database, number, number)
        sealer.turn(all_of_it=True)

    pages, cursor = [], None
    for _ in range(3):
        page = seals_page(database, limit=2, cursor=cursor)
        pages.append([seal.seq for seal in page.seals])
        cursor = page.next_cursor

    assert (pages, cursor) == ([[5, 4], [3, 2], [1]], None)
    assert seals_page(database, limit=5).next_cursor is None
    with pytest.raises(BadRequest):
        seals_page(database, limit=2, cursor="x")


def test_a_published_seal_is_read_back_and_one_that_was_changed_is_not(database: Database, sealer: Sealer) -> None:
    add(database, 1, 3)
    sealer.turn()
    [seal] = seals_in_order(database)
    shown = seal.to_json()

    assert Seal.from_json(shown) == seal
    for changed in ({**shown, "rows": 2}, {**shown, "time": 1}, {**shown, "root": None}, {}, [], None):
        with pytest.raises(NotASeal):
            Seal.from_json(changed)
