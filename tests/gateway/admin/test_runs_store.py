"""Pricing runs in the ledger: one at a time, and a process that was replaced writes nothing more."""

from __future__ import annotations

import pytest

from gateway.admin import runs_store
from gateway.admin.runs_store import ATTEMPTS_MOST, STALE_MS, Replaced
from gateway.ledger.database import Database


def test_the_oldest_run_is_taken_and_the_next_only_once_it_has_ended(database: Database) -> None:
    with database.write() as connection:
        for place, name in enumerate(("run_b", "run_a")):
            runs_store.queue(connection, id=name, created=place, actor="me", asked={})
        first = runs_store.take(connection, 1_000)
        assert first is not None
        assert runs_store.take(connection, 1_001) is None
        assert not runs_store.is_waiting(connection, 1_001)
        runs_store.beat(connection, first, 2_000, "estimating", 40)

        runs_store.finish(connection, first, 3_000, state="done", reason=None, result={"estimates": {}})

        second = runs_store.take(connection, 3_001)
        assert (first.id, second and second.id) == ("run_b", "run_a")
        assert runs_store.find(connection, "run_b").percent == 100


def test_a_silent_process_is_replaced_and_finds_that_it_was(database: Database) -> None:
    with database.write() as connection:
        runs_store.queue(connection, id="run_a", created=0, actor="me", asked={})
        first = runs_store.take(connection, 1_000)
        assert first is not None
        assert runs_store.take(connection, 999 + STALE_MS) is None

        second = runs_store.take(connection, 1_000 + STALE_MS)

        assert second is not None
        assert second.attempt == 2
        with pytest.raises(Replaced):
            runs_store.beat(connection, first, 0, "", 0)
        with pytest.raises(Replaced):
            runs_store.finish(connection, first, 0, state="done", reason=None)


def test_a_run_that_ends_every_process_fails(database: Database) -> None:
    now = 0
    with database.write() as connection:
        runs_store.queue(connection, id="run_a", created=0, actor="me", asked={})
        for _ in range(ATTEMPTS_MOST):
            assert runs_store.take(connection, now) is not None
            now += STALE_MS
        assert runs_store.take(connection, now) is None
        assert runs_store.find(connection, "run_a").state == "failed"
        runs_store.queue(connection, id="run_b", created=1, actor="me", asked={})
        for _ in range(ATTEMPTS_MOST):
            taken = runs_store.take(connection, now)
            assert taken is not None
            runs_store.release(connection, taken, now)
        assert runs_store.find(connection, "run_b").state == "failed"
