"""Claims about the book: each record once, on one unbroken chain, whoever brings it and however often."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from gateway.errors import MeteringUnavailable
from gateway.ledger.book.appender import append, book, insert_records
from gateway.ledger.book.chain import GENESIS, verify
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span, usage_records_in
from gateway.ledger.tables import chains, usage_dead_letters, usage_records
from pricing.usage import FIELDS, UsageRecord
from tests.gateway.ledger.records import record


def in_the_book(database: Database) -> list[UsageRecord]:
    return list(usage_records_in(database, Span()))


@pytest.fixture
def second(database: Database, ledger_url: str) -> Iterator[Database]:
    """Another process' view of the same ledger."""
    other = Database(ledger_url)
    yield other
    other.close()


def test_records_come_back_as_they_were_booked(database: Database) -> None:
    appended = append(
        database, [record(1, model="modèle ☃", prepaid_nanousd=5), record(2, requested_tokens=7, prepaid_nanousd=0)]
    )

    assert in_the_book(database) == appended
    assert [list(row) for row in in_the_book(database)] == [list(FIELDS)] * 2
    assert appended[0]["model"] == "modèle ☃"
    assert appended[0]["prev_hash"] == GENESIS
    assert appended[1]["prev_hash"] == appended[0]["hash"]
    assert [row["seq"] for row in appended] == [1, 2]
    assert verify(in_the_book(database)).bad is None


def test_a_record_delivered_again_changes_nothing(database: Database) -> None:
    first = append(database, [record(1), record(2)])

    again = append(database, [record(2), record(1, settled=0), record(3), record(3)])

    assert [row["id"] for row in again] == [record(3)["id"]]
    assert in_the_book(database) == [*first, *again]


def test_many_records_at_once_keep_what_only_one_of_them_says(database: Database) -> None:
    """Columns in which no record of a batch says anything are left out of it; those in which one does are not."""
    silent = {"end_user": None, "requested_tokens": None, "client_request_id": None}
    batch = [record(number, **silent) for number in range(120)]
    batch[70] |= {"requested_tokens": 0, "end_user": "ann", "prepaid_nanousd": 7}

    appended = append(database, batch)
    again = append(database, [*batch, record(500)])

    assert in_the_book(database)[:120] == appended
    assert [row["end_user"] for row in appended if "end_user" in row] == ["ann"]
    assert [row["id"] for row in again] == [record(500)["id"]]
    assert verify_chain(database).rows == 121


@pytest.mark.parametrize("words", ["\\N", "\\.", "\\", "a\tb", "a\nb", "a\r\nb", "null", "", "\x01", '"', "☃"])
def test_a_text_that_a_database_could_take_for_syntax_is_kept_as_it_is(database: Database, words: str) -> None:
    """COPY has signs of its own for null, the end of a value and the end of all rows."""
    appended = append(database, [record(number, client_request_id=words, end_user=words) for number in range(60)])

    assert in_the_book(database) == appended
    assert {row["client_request_id"] for row in appended} == {words}
    assert verify_chain(database).rows == 60


def test_a_server_that_goes_while_it_is_appended_to_takes_nothing(postgres_url: str) -> None:
    database, other = Database(postgres_url), Database(postgres_url)
    database.migrate()
    with pytest.raises(MeteringUnavailable), database.write() as connection:
        backend = connection.execute(select(func.pg_backend_pid())).scalar_one()
        with other.write() as beside:
            beside.execute(select(func.pg_terminate_backend(backend, 60_000)))
        insert_records(connection, [dict.fromkeys(FIELDS) | record(1, chain="main", seq=1, prev_hash="", hash="")])

    append(database, [record(1), record(2)])

    assert verify_chain(database).rows == 2
    database.close()
    other.close()


def test_a_book_that_somebody_keeps_locked_is_unavailable(postgres_url: str) -> None:
    database, other = Database(postgres_url), Database(postgres_url)
    database.migrate()
    with other.write() as beside:
        beside.execute(text("LOCK TABLE usage_records IN SHARE MODE"))
        with pytest.raises(MeteringUnavailable), database.write() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '10ms'"))
            book(connection, [record(1)])

    assert append(database, [record(1)])
    database.close()
    other.close()


def test_an_error_of_a_row_does_not_say_what_the_row_has(postgres_url: str) -> None:
    """PostgreSQL's own message quotes the value; what customers send is logged nowhere."""
    database = Database(postgres_url)
    database.migrate()
    words = "their words"

    with pytest.raises(DBAPIError) as refused:
        append(database, [record(1, client_request_id=words * 50)])

    assert "too long" in str(refused.value)
    assert words not in "".join(traceback.format_exception(refused.value))
    assert append(database, [record(1)])
    database.close()


def test_a_field_left_out_is_null_and_hashed_as_null(database: Database) -> None:
    short = record(1)
    del short["requested_tokens"], short["ttft_ms"]

    append(database, [short])

    assert in_the_book(database)[0]["ttft_ms"] is None
    assert verify_chain(database).is_sound


def test_another_record_under_an_id_of_the_book_is_told_from_a_repetition(database: Database) -> None:
    append(database, [record(1)])

    with database.write() as connection:
        repeated, changed = record(1, settled=0), record(1, output_tokens=101)
        booked = book(connection, [repeated, changed, record(2), record(2, customer="cus_b")])
        changes = ({"charge_nanousd": 5_001}, {"conversation": "c2"}, {"end_user": None}, {"client_request_id": "x"})
        in_one_field = book(connection, [record(1, **change) for change in changes])

    assert [row["id"] for row in booked.appended] == [record(2)["id"]]
    assert booked.conflicting == [1, 3]
    assert in_one_field.conflicting == [0, 1, 2, 3]
    assert len(in_the_book(database)) == 2


def test_chains_do_not_touch_each_other(database: Database) -> None:
    append(database, [record(1)], chain="main")
    append(database, [record(2)], chain="other")

    assert verify_chain(database, "main").rows == verify_chain(database, "other").rows == 1


def test_a_transaction_that_fails_leaves_the_chain_as_it_was(database: Database) -> None:
    append(database, [record(1)])

    with pytest.raises(ZeroDivisionError), database.write() as connection:
        book(connection, [record(2)])
        raise ZeroDivisionError

    assert append(database, [record(3)])[0]["seq"] == 2
    assert verify_chain(database).is_sound


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    batches=st.lists(
        st.tuples(st.booleans(), st.lists(st.integers(0, 30), max_size=8)),
        max_size=8,
    )
)
def test_any_interleaving_of_two_writers_books_each_record_once(
    database: Database, second: Database, batches: list[tuple[bool, list[int]]]
) -> None:
    with database.write() as connection:
        for table in (usage_records, chains, usage_dead_letters):
            connection.execute(table.delete())

    for is_first, numbers in batches:
        append(database if is_first else second, [record(number) for number in numbers])

    delivered = {number for _, numbers in batches for number in numbers}
    assert [row["id"] for row in in_the_book(database)] == [record(number)["id"] for number in sorted(delivered)]
    assert verify_chain(database) == verify_chain(second)
    assert verify_chain(database).is_sound


def test_writers_at_the_same_time_book_each_record_once(database: Database, second: Database) -> None:
    """Eight threads on two handles append overlapping batches: they take turns at the chain's head."""
    batches = [[record(number) for number in range(start, start + 30)] for start in range(0, 120, 10)]
    with ThreadPoolExecutor(8) as threads:
        runs = [threads.submit(append, (database, second)[place % 2], batch) for place, batch in enumerate(batches * 2)]
        appended = [row["id"] for run in runs for row in run.result()]

    assert len(appended) == len(set(appended)) == 140
    assert verify_chain(database).rows == 140
    assert verify_chain(database).is_sound
