"""Claims about the way from the streams to the book: every settled call gets there once, whatever dies on the way."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import select

from gateway.errors import MeteringUnavailable
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect
from gateway.ledger.book.dead_letters import count_dead_letters, read_dead_letters
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span, totals, usage_records_in
from gateway.ledger.read.read_your_writes import wait_until_booked
from gateway.ledger.tables import usage_records
from gateway.ledger.writer import Writer
from pricing.usage import FIELDS
from tests.buckets import records_waiting
from tests.gateway.ledger.records import settle, settled_call
from tests.waiting import until


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    with connect(valkey_url) as client:
        yield client


def ids(database: Database) -> list[str]:
    return [record["id"] for record in usage_records_in(database, Span())]


def test_a_turn_moves_what_is_settled_and_empties_the_streams(client: redis.Redis, database: Database) -> None:
    settle(client, settled_call(1), charge=7)
    settle(client, settled_call(2, customer="cus_other"), charge="9007199254740991")

    moved = Writer(client, database).turn()

    assert moved == 2
    assert records_waiting(client) == 0
    first, second = usage_records_in(database, Span())
    assert first == {
        **settled_call(1),
        **{field: first[field] for field in ("settled", "chain", "seq", "prev_hash", "hash")},
        "charge_nanousd": 7,
        "conversation_cap_tokens": 4_000,
        "conversation_is_included": True,
    }
    assert second["charge_nanousd"] == 9_007_199_254_740_991
    assert first["settled"] <= second["settled"]
    assert verify_chain(database).rows == 2


def test_a_turn_raises_the_marks_of_redis_and_reports_the_records(client: redis.Redis, database: Database) -> None:
    """By these marks a restored Redis is noticed, and a ledger that was replaced by an older copy."""
    settle(client, settled_call(1))
    settle(client, settled_call(2))
    reported: list[str] = []
    bucket = redis_keys.bucket_of(settled_call(1)["customer"])

    Writer(client, database, note=lambda records: reported.extend(record["id"] for record in records)).turn()

    assert client.hgetall(redis_keys.WATERMARK) == {b"seq": b"2", b"booked": b"2"}
    assert client.hget(redis_keys.state(bucket), "tide") == b"2"
    assert reported == [settled_call(1)["id"], settled_call(2)["id"]]


def test_records_are_booked_in_the_order_in_which_they_were_settled(client: redis.Redis, database: Database) -> None:
    for number, bucket in enumerate(("ff", "00", "80", "00")):
        record = json.dumps(settled_call(number))
        client.xadd(redis_keys.usage(bucket), {"record": record, "charge": "0"}, id=f"{1_000 + number // 2}-{number}")

    Writer(client, database).turn()

    with database.read() as connection:
        rows = connection.execute(select(usage_records.c.id).order_by(usage_records.c.seq)).scalars().all()
    assert rows == [settled_call(number)["id"] for number in range(4)]


def test_a_full_disk_books_nothing_by_halves_and_loses_nothing(client: redis.Redis, sqlite_url: str) -> None:
    """What does not fit stays in the streams; once there is room it is booked, each record once."""
    database = Database(sqlite_url)
    database.migrate()
    for number in range(200):
        settle(client, settled_call(number), charge=1)
    with database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    writer = Writer(client, database)
    with pytest.raises(MeteringUnavailable) as full:
        while writer.turn():
            pass
    assert "full" in str(full.value.__cause__)
    assert records_waiting(client) + len(ids(database)) == 200
    with database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    while writer.turn():
        pass

    assert sorted(ids(database)) == sorted(settled_call(number)["id"] for number in range(200))
    assert verify_chain(database).is_sound
    database.close()


def test_with_nothing_waiting_a_turn_is_0_and_writes_nothing(client: redis.Redis, database: Database) -> None:
    assert Writer(client, database).turn() == 0
    assert verify_chain(database).rows == 0


def test_a_backlog_is_moved_in_turns_until_none_is_left(client: redis.Redis, database: Database) -> None:
    for number in range(25):
        settle(client, settled_call(number))
    writer = Writer(client, database, entries_per_turn=10)

    assert [writer.turn() for _ in range(4)] == [10, 10, 5, 0]
    assert ids(database) == [settled_call(number)["id"] for number in range(25)]


@contextmanager
def deletions_refused(client: redis.Redis) -> Iterator[None]:
    """Let Valkey do everything but delete from streams."""
    client.acl_setuser("default", enabled=True, commands=["-xdel"], nopass=True)
    try:
        yield
    finally:
        client.acl_setuser("default", enabled=True, commands=["+xdel"], nopass=True)


def turns_without_end(valkey_url: str, ledger_url: str) -> None:
    writer = Writer(connect(valkey_url), Database(ledger_url), entries_per_turn=32)
    while True:
        with suppress(MeteringUnavailable):
            writer.turn()


def test_a_writer_killed_between_commit_and_trim_doubles_nothing(
    client: redis.Redis, database: Database, valkey_url: str, ledger_url: str
) -> None:
    """Valkey refuses deletions, so the writer commits, cannot trim, tries again, and is killed before it ever could."""
    for number in range(50):
        settle(client, settled_call(number))
    writer = multiprocessing.get_context("spawn").Process(target=turns_without_end, args=(valkey_url, ledger_url))
    with deletions_refused(client):
        writer.start()
        try:
            until(lambda: totals(database).records == 32)
        finally:
            writer.kill()
            writer.join()

    assert records_waiting(client) == 50
    assert Writer(client, database, entries_per_turn=32).turn() == 32
    assert Writer(client, database).turn() == 18
    assert records_waiting(client) == 0
    assert len(ids(database)) == len(set(ids(database))) == 50
    assert verify_chain(database).is_sound


def test_a_ledger_that_is_not_to_be_had_trims_nothing(client: redis.Redis, database: Database) -> None:
    settle(client, settled_call(1))
    nowhere = Database("postgresql://postgres@127.0.0.1:9/ledger")

    with pytest.raises(MeteringUnavailable):
        Writer(client, nowhere).turn()

    assert records_waiting(client) == 1
    assert Writer(client, database).turn() == 1


def test_a_redis_that_is_not_to_be_had_is_metering_unavailable(database: Database) -> None:
    with pytest.raises(MeteringUnavailable):
        Writer(redis.Redis(unix_socket_path="/nowhere", retry=Retry(NoBackoff(), 0)), database).turn()


def test_four_writers_at_once_book_each_call_once(
    client: redis.Redis, database: Database, valkey_url: str, ledger_url: str
) -> None:
    for number in range(400):
        settle(client, settled_call(number, customer=f"cus_{number % 40}"), charge=number)

    def empty_the_streams() -> None:
        own = Database(ledger_url)
        with connect(valkey_url) as own_client:
            writer = Writer(own_client, own, entries_per_turn=2)
            while writer.turn():
                pass
        own.close()

    writers = [threading.Thread(target=empty_the_streams) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert records_waiting(client) == 0
    assert sorted(ids(database)) == [settled_call(number)["id"] for number in range(400)]
    assert totals(database).charge_nanousd == sum(range(400))
    assert verify_chain(database).is_sound
    assert count_dead_letters(database) == 0


def test_an_entry_that_is_no_record_is_kept_aside_and_stops_no_other(client: redis.Redis, database: Database) -> None:
    stream = settle(client, settled_call(1))
    bad = client.xadd(stream, {"record": b"\xff", "note": "who wrote this?"})
    settle(client, settled_call(2))

    assert Writer(client, database).turn() == 3

    assert records_waiting(client) == 0
    assert ids(database) == [settled_call(number)["id"] for number in (1, 2)]
    assert count_dead_letters(database) == 1
    assert read_dead_letters(database) == [
        {
            "stream": stream,
            "entry": bad.decode() if isinstance(bad, bytes) else bad,
            "reason": "charge is not a whole number of nano-units",
            "body": json.dumps({"record": "\udcff", "note": "who wrote this?"}),
        }
    ]


def test_a_second_record_under_one_id_is_kept_aside_and_a_repetition_is_not(
    client: redis.Redis, database: Database
) -> None:
    settle(client, settled_call(1))
    settle(client, settled_call(1))
    stream = settle(client, settled_call(1, output_tokens=101))

    Writer(client, database).turn()

    assert ids(database) == [settled_call(1)["id"]]
    kept = read_dead_letters(database)
    assert [(row["stream"], row["reason"]) for row in kept] == [(stream, "the book has another record of this id")]


json_value = st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats() | st.text(max_size=300)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.dictionaries(st.sampled_from(FIELDS), json_value, max_size=3), max_size=12))
def test_whatever_stands_in_a_stream_ends_in_the_book_or_aside(
    client: redis.Redis, database: Database, changes: list[dict[str, Any]]
) -> None:
    before = totals(database).records + count_dead_letters(database)
    for change in changes:
        # Each under an id of its own, or the book rightly takes it for a repetition.
        call = {**settled_call(), **change, "id": f"call-{client.incr('calls')}"}
        client.xadd(redis_keys.usage("00"), {"record": json.dumps(call), "charge": "0"})

    assert Writer(client, database).turn() == len(changes)

    assert records_waiting(client) == 0
    assert totals(database).records + count_dead_letters(database) == before + len(changes)


def test_a_cluster_is_emptied_like_a_single_server(cluster_url: str, database: Database) -> None:
    with connect(cluster_url) as client:
        for number in range(60):
            settle(client, settled_call(number, customer=f"cus_{number}"))

        assert Writer(client, database).turn() == 60

        assert records_waiting(client) == 0
        assert wait_until_booked(client)
    assert len(ids(database)) == 60


def test_waiting_ends_when_what_was_settled_before_is_booked(client: redis.Redis, database: Database) -> None:
    """The writer moves while the reader waits: in place of the reader's pauses, another call is settled each time."""
    settle(client, settled_call(1))
    writer = Writer(client, database, entries_per_turn=1)
    numbers = iter(range(2, 100))

    def meanwhile(_: float) -> None:
        settle(client, settled_call(next(numbers)))
        writer.turn()

    assert wait_until_booked(client, pause=meanwhile)

    assert settled_call(1)["id"] in ids(database)
    assert records_waiting(client) > 0


def test_waiting_gives_up_at_its_deadline(client: redis.Redis) -> None:
    settle(client, settled_call(1))
    deadlines = iter([0.0, 1.0, 1.9, 2.0])

    assert not wait_until_booked(client, clock=lambda: next(deadlines), pause=lambda _: None)


def test_a_reader_of_one_customer_does_not_wait_for_another(client: redis.Redis) -> None:
    settle(client, settled_call(1, customer="cus_other"))

    assert wait_until_booked(client, [redis_keys.bucket_of("cus_acme")])
