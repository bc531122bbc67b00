"""A bookkeeper does all its duties in each sweep while anything changes, and in one of five while nothing does."""

from __future__ import annotations

from sqlalchemy import insert

from gateway.holds.store import redis_keys
from gateway.holds.store.inflight import Survey
from gateway.ledger.database import Database
from gateway.ledger.recovery.stillness import STILL_SWEEPS, Stillness
from gateway.ledger.tables import customers
from tests.gateway.holds.harness import holds_harness
from tests.gateway.ledger.records import customer_row

BUCKET = redis_keys.bucket_of("acme")


def sweeps(stillness: Stillness, survey: Survey, count: int = STILL_SWEEPS) -> list[int]:
    """Return the turns that are due in the next sweeps."""
    due = []
    for _ in range(count):
        survey.take()
        due.append(stillness.turns_due())
    return due


def changed(database: Database, name: str) -> None:
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row(name)])


async def test_duties_are_done_for_every_sweep_and_while_nothing_changes_for_five_at_once(
    valkey_url: str, database: Database
) -> None:
    async with holds_harness(valkey_url) as harness:
        survey = Survey(harness.blocking)
        stillness = Stillness(database, survey)

        assert sweeps(stillness, survey, 11) == [1, 0, 0, 0, 0, 5, 0, 0, 0, 0, 5]
        changed(database, "acme")
        assert sweeps(stillness, survey, 2) == [1, 0]
        stillness.end()
        assert sweeps(stillness, survey, 2) == [2, 0]


async def test_a_call_in_flight_and_a_waiting_record_are_work_and_so_is_what_they_leave(
    valkey_url: str, database: Database
) -> None:
    """The sweep after the last of them still counts them as gone."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        harness.customer("acme", "basic")
        survey = Survey(harness.blocking)
        stillness = Stillness(database, survey)
        sweeps(stillness, survey, 2)
        hold = await harness.reserve("c1", "acme", 10)
        assert sweeps(stillness, survey) == [2, 1, 1, 1, 1]
        await harness.settlements.settle(hold, harness.outcome(10))
        assert sweeps(stillness, survey) == [1] * STILL_SWEEPS
        harness.blocking.delete(redis_keys.usage(BUCKET))

        assert sweeps(stillness, survey, 3) == [1, 0, 0]
