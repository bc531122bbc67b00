"""Pricing runs in the ledger: one at a time, and a process that was replaced writes nothing more."""

from __future__ import annotations

import pytest

from gateway.catalog import run_rows
from gateway.catalog.run_rows import ATTEMPTS_MOST, STALE_MS, Replaced
from gateway.ledger.database import Database


def test_the_oldest_run_is_taken_and_the_next_only_once_it_has_ended(database: Database) -> None:
    with database.write() as connection:
        for place, name in enumerate(("run_b", "run_a")):
            run_rows.queue(connection, id=name, created=place, actor="me", asked={})
        first = run_rows.take(connection, 1_000)
        assert first is not None
        assert run_rows.take(connection, 1_001) is None
        assert not run_rows.is_waiting(connection, 1_001)
        run_rows.beat(connection, first, 2_000, "estimating", 40)

        run_rows.finish(connection, first, 3_000, state="done", reason=None, result={"estimates": {}})

        second = run_rows.take(connection, 3_001)
        assert (first.id, second and second.id) == ("run_b", "run_a")
        assert run_rows.find(connection, "run_b").percent == 100


def test_a_silent_process_is_replaced_and_finds_that_it_was(database: Database) -> None:
    with database.write() as connection:
        run_rows.queue(connection, id="run_a", created=0, actor="me", asked={})
        first = run_rows.take(connection, 1_000)
        assert first is not None
        assert run_rows.take(connection, 999 + STALE_MS) is None

        second = run_rows.take(connection, 1_000 + STALE_MS)

        assert second is not None
        assert second.attempt == 2
        with pytest.raises(Replaced):
            run_rows.beat(connection, first, 0, "", 0)
        with pytest.raises(Replaced):
            run_rows.finish(connection, first, 0, state="done", reason=None)


def test_a_run_that_ends_every_process_fails(database: Database) -> None:
    now = 0
    with database.write() as connection:
        run_rows.queue(connection, id="run_a", created=0, actor="me", asked={})
        for _ in range(ATTEMPTS_MOST):
            assert run_rows.take(connection, now) is not None
            now += STALE_MS
        assert run_rows.take(connection, now) is None
        assert run_rows.find(connection, "run_a").state == "failed"
        run_rows.queue(connection, id="run_b", created=1, actor="me", asked={})
        for _ in range(ATTEMPTS_MOST):
            taken = run_rows.take(connection, now)
            assert taken is not None
            run_rows.release(connection, taken, now)
        assert run_rows.find(connection, "run_b").state == "failed"
