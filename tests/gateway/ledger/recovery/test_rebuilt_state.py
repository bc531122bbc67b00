"""Claims about what a rebuild writes, and when one is due: the ledger's word, all of it, and never an older ledger's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import insert

from gateway.holds.periods import period_at
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect, text
from gateway.holds.store.packing import ConversationState, window_state
from gateway.ledger.book.appender import append
from gateway.ledger.book.watermark import LedgerBehind, head
from gateway.ledger.database import Database
from gateway.ledger.recovery.recovery import CUSTOMERS_AT_ONCE, Recovery
from gateway.ledger.tables import customers
from tests.gateway.ledger.records import NOON, customer_row, record
from tests.gateway.ledger.recovery.test_recovery import in_force, recovery, with_customers

BUCKET = redis_keys.bucket_of("acme")
MINUTE_MS = 60_000
WINDOW = redis_keys.window(BUCKET, "acme", period_at("month", "UTC", NOON)[0])


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    with connect(valkey_url) as client:
        yield client


@pytest.fixture
def rebuilt(database: Database, client: redis.Redis) -> Recovery:
    """A hot state that was rebuilt after two records, which nobody had rolled up."""
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row("acme")])
    append(database, [record(1, customer="acme"), record(2, customer="acme")])
    found = recovery(database, client)
    found.rebuild()
    return found


def test_a_window_is_what_its_records_add_up_to(client: redis.Redis, rebuilt: Recovery) -> None:
    state = window_state(client, WINDOW)

    assert (state.used, state.held, state.spend_used, state.included) == (200, 0, 10_000, 2)


def test_a_conversation_has_its_beginning_and_its_last_call(database: Database, client: redis.Redis) -> None:
    """It stays as long as a call of it may come."""
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row("acme")])
    times = NOON - 50 * MINUTE_MS, NOON - 20 * MINUTE_MS
    append(database, [record(n, customer="acme", time=time, settled=time + 5) for n, time in enumerate(times)])
    recovery(database, client).rebuild()

    name = redis_keys.conversation(BUCKET, "acme", "c1")
    state = ConversationState.from_bytes(client.get(name) or b"")
    assert (state.first, state.last, state.used) == (times[0], times[1] + 5, 200)
    assert client.pttl(name) > 61 * MINUTE_MS


def test_a_server_that_fell_back_is_rebuilt_whole(database: Database, client: redis.Redis, rebuilt: Recovery) -> None:
    """It has heard of less than the ledger holds, whatever its buckets say."""
    client.hset(WINDOW, "amounts", b"")
    client.hset(redis_keys.WATERMARK, "seq", str(head(database) - 1))

    rebuilt.ensure()

    assert window_state(client, WINDOW).used == 200
    assert client.hget(redis_keys.WATERMARK, "seq") == b"2"


def test_a_ledger_that_is_older_than_its_redis_is_not_rebuilt_from(client: redis.Redis, rebuilt: Recovery) -> None:
    """Unless somebody has said that what is missing is given up."""
    client.hset(redis_keys.WATERMARK, "booked", "3")

    for again in (rebuilt.ensure, rebuilt.rebuild):
        with pytest.raises(LedgerBehind):
            again()
    client.hset(WINDOW, "amounts", b"")
    rebuilt.rebuild(without_missing=True)

    assert window_state(client, WINDOW).used == 200


def test_the_first_bucket_need_not_wait_until_the_keys_of_all_others_are_removed(
    database: Database, client: redis.Redis
) -> None:
    """Its keys are removed alone, then those of the rest in sixteen passes, while the buckets before are written."""
    with_customers(database, CUSTOMERS_AT_ONCE + 1)
    stale = [redis_keys.pace(bucket, "cus_gone") for bucket in redis_keys.ALL_BUCKETS]
    for name in stale:
        client.hset(name, "live", "1")
    client.config_set("slowlog-max-len", 100_000)
    client.config_set("slowlog-log-slower-than", 0)
    client.slowlog_reset()

    recovery(database, client).rebuild()

    client.config_set("slowlog-log-slower-than", -1)
    commands = [text(entry["command"]).split() for entry in reversed(client.slowlog_get(100_000))]
    removals = [words[1:] for words in commands if words[0] == "UNLINK" and words[1].endswith(":cus_gone")]
    assert removals[0] == stale[:1]
    assert [len(names) for names in removals[1:]] == [15] + [16] * 15
    assert sorted(name for names in removals for name in names) == stale
    assert client.exists(*stale) == 0
    assert len(in_force(client)) == 1
