"""Runs by schedule: requested once in their time, however many gateways there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.catalog import run_rows
from gateway.ledger.database import Database
from gateway.repricing.scheduler import Scheduler
from tests.gateway.admin.operator import Clock

REQUEST = {"days": 28, "publish": "next_period"}

Make = Callable[[str | Callable[[], str]], Scheduler]


@pytest.fixture
def scheduler_of(database: Database, clock: Clock) -> Iterator[Make]:
    """Make the schedulers of several gateways, which request a run a day; the process of a run ends without a result."""
    schedulers: list[Scheduler] = []

    def make(new_id: str | Callable[[], str]) -> Scheduler:
        next_id = new_id if callable(new_id) else lambda: new_id
        scheduler = Scheduler(database, {}, now_ms=clock, new_id=next_id, every_h=24, asked=REQUEST, command=("true",))
        schedulers.append(scheduler)
        return scheduler

    yield make
    for scheduler in schedulers:
        scheduler.stop()


def runs_in(database: Database) -> list[tuple[str, str, Any]]:
    """Return id, actor and request of each run."""
    with database.read() as connection:
        rows = connection.execute(run_rows.select(run_rows.pricing_runs)).all()
    return [(row.id, row.actor, json.loads(row.asked)) for row in rows]


def test_the_schedule_requests_a_run_once_in_its_time_however_many_gateways_there_are(
    database: Database, scheduler_of: Make, clock: Clock
) -> None:
    schedulers = scheduler_of("run_1"), scheduler_of("run_2")
    for scheduler in schedulers:
        scheduler.turn()
    assert runs_in(database) == [("run_1", "schedule", REQUEST)]

    clock.ms += 24 * 3_600_000 - 1
    for scheduler in schedulers:
        scheduler.turn()
    assert len(runs_in(database)) == 1


def test_a_run_that_another_gateway_requested_in_the_same_moment_is_not_requested_again(
    database: Database, scheduler_of: Make
) -> None:
    """The other gateway requests its run after this one has found that a run is due."""
    other = scheduler_of("run_1")

    def other_first() -> str:
        other.turn()
        return "run_2"

    scheduler_of(other_first).turn()

    assert runs_in(database) == [("run_1", "schedule", REQUEST)]
