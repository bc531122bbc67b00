"""SQL may be locked or unavailable: calls go on, the stream grows within its bound, and nothing is lost.

The upstream is asked as the caller asks, and half of the calls stream: the ledger gets a call once it is settled, and
its record is the same however the upstream was asked.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from gateway.holds.admission import BACKLOG_MOST
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect
from gateway.ledger.book.entries import ADDED
from tests.faults.calls import AS_ASKED, Faulty, faulty_loop
from tests.faults.truth import Script
from tests.faults.wire import Wire, wire
from tests.loop.rig import Sold
from tests.servers import fresh_database
from tests.waiting import until

CALLS = 20


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[tuple[Faulty, sqlite3.Connection]]:
    """The loop on SQLite, and another program's connection to its file."""
    with faulty_loop(tmp_path, upstream_streams=AS_ASKED) as faulty:
        connection = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None, timeout=10)
        with closing(connection):
            yield faulty, connection


@pytest.fixture
def wired(postgres_server: str, tmp_path: Path) -> Iterator[tuple[Faulty, Wire]]:
    """The loop on PostgreSQL, and the wire to it."""
    with fresh_database(postgres_server) as url:
        there = make_url(url)
        socket = Path(str(there.query["host"])) / ".s.PGSQL.5432"
        with wire(str(socket)) as between:
            here = there.set(host="127.0.0.1", port=between.port, query={})
            address = here.render_as_string(hide_password=False)
            with faulty_loop(tmp_path, ledger_url=address, upstream_streams=AS_ASKED) as faulty:
                yield faulty, between
                between.mend()


def waiting(faulty: Faulty, who: Sold) -> int:
    """Return how many of a customer's records are not in the ledger yet."""
    with connect(faulty.loop.settings.redis_url) as client:
        return int(client.xlen(redis_keys.usage(redis_keys.bucket_of(who.id))))


def new_customer(faulty: Faulty) -> Sold:
    """Return a customer who has made a call: a newly started Redis is compared with the ledger first."""
    who = faulty.loop.customer("open")
    assert faulty.post(who, Script()).status_code == 200
    until(lambda: waiting(faulty, who) == 0)
    return who


def call_without_books(faulty: Faulty, who: Sold) -> None:
    """Make calls while the ledger accepts nothing, and assert that each is answered."""
    answers = [faulty.post(who, Script(), stream=number % 2 == 0) for number in range(CALLS)]
    assert {answer.status_code for answer in answers} == {200}
    assert waiting(faulty, who) >= CALLS


def see_that_nothing_is_lost(faulty: Faulty, who: Sold, calls: int) -> None:
    until(lambda: waiting(faulty, who) == 0)
    rows = faulty.loop.usage(who)
    assert len({row["id"] for row in rows}) == len(rows) == calls
    assert sum(row["billed_output_tokens"] for row in rows) == 10 * calls
    assert faulty.loop.account(who)["period"]["tokens_used"] == 10 * calls


def test_calls_go_on_while_the_ledger_is_locked_and_nothing_is_lost(
    locked: tuple[Faulty, sqlite3.Connection],
) -> None:
    faulty, other = locked
    who = new_customer(faulty)
    other.execute("BEGIN IMMEDIATE")
    call_without_books(faulty, who)
    other.execute("ROLLBACK")

    see_that_nothing_is_lost(faulty, who, 1 + CALLS)


def test_calls_go_on_while_the_database_is_away_and_nothing_is_lost(wired: tuple[Faulty, Wire]) -> None:
    faulty, between = wired
    who = new_customer(faulty)
    between.cut()
    call_without_books(faulty, who)
    between.mend()

    see_that_nothing_is_lost(faulty, who, 1 + CALLS)


def test_calls_go_on_while_the_database_says_nothing_and_nothing_is_lost(wired: tuple[Faulty, Wire]) -> None:
    faulty, between = wired
    who = new_customer(faulty)
    between.stall()
    call_without_books(faulty, who)
    between.cut()
    between.mend()

    see_that_nothing_is_lost(faulty, who, 1 + CALLS)


def test_beyond_the_bound_of_what_may_wait_nothing_is_served(locked: tuple[Faulty, sqlite3.Connection]) -> None:
    faulty, other = locked
    who = new_customer(faulty)
    (row,) = faulty.loop.usage(who)
    other.execute("BEGIN IMMEDIATE")
    stream = redis_keys.usage(redis_keys.bucket_of(who.id))
    record = {name: value for name, value in row.items() if name not in ADDED}
    with connect(faulty.loop.settings.redis_url) as client, client.pipeline(transaction=False) as batch:
        for number in range(BACKLOG_MOST):
            entry = json.dumps({**record, "id": f"{row['id']}-{number}", "billed_output_tokens": 0})
            batch.xadd(stream, {"record": entry, "charge": "0"})
        batch.execute()
    before = len(faulty.truth.calls)
    answer = faulty.post(who, Script())

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "metering_unavailable")
    assert len(faulty.truth.calls) == before
    other.execute("ROLLBACK")
    until(lambda: faulty.post(who, Script()).status_code == 200)
    until(lambda: waiting(faulty, who) == 0)
    assert len(faulty.loop.usage(who)) == BACKLOG_MOST + 2
