"""Everybody's windows and books are looked at in turn, and what does not add up is told until it does."""

from __future__ import annotations

import asyncio

import pytest
import redis
from sqlalchemy import insert

from gateway.clock import now_ms
from gateway.errors import AccountInconsistent
from gateway.holds.periods import period_at
from gateway.holds.store import redis_keys
from gateway.holds.store.packing import WindowState
from gateway.ledger.book.appender import append
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.database import Database
from gateway.ledger.recovery.agreement import Agreement, Period
from gateway.ledger.recovery.conservation import BOOKS_A_TURN, CUSTOMERS_A_TURN, QUIET, Conservation
from gateway.ledger.tables import customers
from tests.gateway.holds.harness import GENERATION, HoldsHarness, holds_harness
from tests.gateway.ledger.records import customer_row, record


def with_customers(database: Database, *names: str) -> None:
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row(name) for name in names])


def conservation(database: Database, client: redis.Redis) -> Conservation:
    return Conservation(database, client, generation=lambda: GENERATION, now_ms=now_ms)


def month() -> tuple[int, int]:
    return period_at("month", "UTC", now_ms())


def begin(harness: HoldsHarness, customer: str, window: WindowState) -> None:
    """Say what is used and held of a customer's month."""
    name = redis_keys.window(redis_keys.bucket_of(customer), customer, month()[0])
    harness.blocking.hset(name, "amounts", window.to_bytes())


@pytest.mark.parametrize(
    ("a_turn", "wrong"),
    [(CUSTOMERS_A_TURN, WindowState(held=5)), (BOOKS_A_TURN, WindowState(used=5))],
    ids=["windows", "books"],
)
@pytest.mark.parametrize("is_quiet", [False, True], ids=["busy", "quiet"])
async def test_every_customer_is_looked_at_in_turn(
    valkey_url: str, database: Database, a_turn: int, wrong: WindowState, is_quiet: bool
) -> None:
    """One customer more than a turn looks at, of whom no call and no record tells; then the first is looked at again.

    While nobody calls a turn looks at fewer.
    """
    names = [f"cus_{number:03}" for number in range((max(1, a_turn // QUIET) if is_quiet else a_turn) + 1)]
    with_customers(database, *names)
    async with holds_harness(valkey_url) as harness:
        await harness.generation.learn(0)
        looking, numbers = conservation(database, harness.blocking), iter(range(1, 9))
        begin(harness, names[-1], wrong)

        def breaches() -> int:
            if not is_quiet:
                append(database, [record(next(numbers), customer="somebody")])
                Watermark(harness.blocking).restore(database)
            return looking.turn().breaches

        assert breaches() == 0
        assert breaches() == 1
        begin(harness, names[0], wrong)
        assert max(breaches() for _ in range(2)) == 2


async def test_who_is_wrong_in_two_ways_is_not_served_before_both_are_mended(
    valkey_url: str, database: Database
) -> None:
    """Tokens are used that no record has, and held by no call."""
    with_customers(database, "acme")
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        harness.customer("acme", "basic")
        await harness.generation.learn(0)
        looking = conservation(database, harness.blocking)
        begin(harness, "acme", WindowState(used=7, held=5))
        assert looking.turn().breaches == 2

        [window] = harness.blocking.scan_iter("*:window:acme:*")
        harness.blocking.hset(window, "amounts", WindowState(used=7).to_bytes())
        assert looking.turn().breaches == 1
        with pytest.raises(AccountInconsistent):
            await harness.reserve("c1", "acme", 5)

        harness.blocking.hset(window, "amounts", WindowState().to_bytes())
        assert looking.turn().breaches == 0
        assert (await harness.reserve("c1", "acme", 5)).grant == 5


async def test_what_is_settled_while_books_are_compared_is_no_fault(valkey_url: str, database: Database) -> None:
    """The window was read before it, its record after it: they are compared another time."""
    with_customers(database, "acme")
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", price_nanousd=7)
        harness.customer("acme", "basic")
        hold = await harness.reserve("c1", "acme", 50)
        period = Period("acme", hold.facts.period_start, hold.facts.period_end)
        loop, settled = asyncio.get_running_loop(), []

        def settles_meanwhile() -> str:
            if not settled:
                settling = asyncio.run_coroutine_threadsafe(harness.settlements.settle(hold, harness.outcome(10)), loop)
                settled.append(settling.result(30))
            return GENERATION

        looking = Agreement(database, harness.blocking, settles_meanwhile)

        assert await asyncio.to_thread(looking.look_at, period) is None
        again = await asyncio.to_thread(looking.look_at, period)
        assert again is not None
        assert again.fault is None
