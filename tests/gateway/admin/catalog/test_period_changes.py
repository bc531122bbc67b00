"""A change of a customer's period or time zone: every call is counted in the period that is, and none twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from sqlalchemy import update

from gateway.catalog.projector import project_customers, project_pending
from gateway.clock import now_ms
from gateway.errors import InsufficientQuota, MeteringUnavailable
from gateway.holds.maintenance.census import Census
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import text
from gateway.holds.store.packing import window_state
from gateway.holds.store.projection import PeriodUse, Projection
from gateway.holds.terms import Customer, period_of
from gateway.ledger.book.appender import append
from gateway.ledger.book.entries import Entry, Malformed, record_in
from gateway.ledger.book.watermark import Watermark, watermark_fields
from gateway.ledger.database import Database
from gateway.ledger.read.queries import begun_in, spent_in
from gateway.ledger.recovery.agreement import Agreement, Period
from gateway.ledger.tables import customers
from gateway.ledger.writer import Writer
from pricing.usage import UsageRecord
from tests.gateway.holds.harness import GENERATION, LEASE, HoldsHarness, holds_harness
from tests.gateway.ledger.records import customer_row, record, settle, settled_call

DAY_MS = 86_400_000
KINDS = ("day", "week", "month")
ZONES = ("UTC", "Asia/Kolkata", "America/Sao_Paulo", "Pacific/Apia")


async def begin(harness: HoldsHarness, database: Database, **changes: Any) -> None:
    """Have a customer in both stores, which has called days ago, too."""
    await harness.generation.learn(0)
    limits = {name: changes.pop(name) for name in ("period_tokens_max", "included_conversations") if name in changes}
    harness.tier("basic", price_nanousd=7, **limits)
    harness.customer("acme", "basic", **changes)
    with database.write() as connection:
        connection.execute(customers.insert(), [customer_row("acme", harness.customers["acme"].period)])
    old = [record(number, customer="acme", time=now_ms() - number * DAY_MS) for number in range(1, 9)]
    book(harness, database, [one | {"billed_output_tokens": number} for number, one in enumerate(old, start=1)])


def book(harness: HoldsHarness, database: Database, records: list[UsageRecord]) -> None:
    """Append records to the ledger, and tell Redis how far it is."""
    append(database, records)
    Watermark(harness.blocking).restore(database)
    for bucket, seq in watermark_fields(database).items():
        harness.blocking.hset(redis_keys.state(bucket), "tide", str(seq))


def change(harness: HoldsHarness, database: Database, projection: Projection | None = None, **changes: Any) -> None:
    """Change a customer as the operator does: in the ledger first."""
    now = harness.customers["acme"]
    after = harness.customers["acme"] = replace(now, rev=now.rev + 1, **changes)
    terms = {
        "period": after.period,
        "timezone": after.timezone,
        "overrides": "{}",
        "rev": after.rev,
        "tier": after.tier,
    }
    with database.write() as connection:
        connection.execute(update(customers).values(projected=False, **terms))
    project_customers(database, projection or harness.projection, ["acme"])


def faults(harness: HoldsHarness, database: Database) -> list[str]:
    """Return how windows differ from holds and records."""
    windows = [text(name) for name in harness.blocking.scan_iter(match="*:window:acme:*", count=1_000)]
    counted = Census(harness.blocking, lambda: GENERATION).take(windows).windows.values()
    period = Period("acme", *period_of(harness.customers["acme"], now_ms()))
    verdict = Agreement(database, harness.blocking, lambda: GENERATION).look_at(period)
    assert verdict is not None
    return [fault for fault in (*counted, verdict.fault) if fault is not None]


async def test_a_period_that_comes_back_counts_the_calls_that_were_made_meanwhile(
    valkey_url: str, database: Database
) -> None:
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day")
        await harness.play("reserve one acme 40 -> granted 40\nsettle one 30 -> charged 7")
        change(harness, database, period="month")
        await harness.play("reserve two acme 40 -> granted 40\nsettle two 30 -> charged 7")
        change(harness, database, period="day")

        assert harness.window("acme") == {"used": 60, "held": 0, "spend_used": 14, "spend_held": 0}
        assert faults(harness, database) == []


@pytest.mark.parametrize("booked", ["waiting", "booked"])
async def test_what_waits_for_the_ledger_is_used_of_the_new_period(
    valkey_url: str, database: Database, booked: str
) -> None:
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day")
        await harness.play("reserve one acme 40 -> granted 40\nsettle one 30 -> charged 7")
        if booked == "booked":
            Writer(harness.blocking, database).turn()
        change(harness, database, period="month")

        before = sum(
            days
            for days in range(1, 9)
            if now_ms() - days * DAY_MS >= period_of(harness.customers["acme"], now_ms())[0]
        )
        assert harness.window("acme")["used"] == 30 + before


async def test_a_call_in_flight_is_held_in_the_new_period_and_settled_there(
    valkey_url: str, database: Database
) -> None:
    """A quota is not exceeded by the calls that ran while its period changed."""
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day", period_tokens_max=100)
        await harness.play("reserve one acme 60 -> granted 60")
        change(harness, database, timezone="Asia/Kolkata")

        assert harness.window("acme") == {"used": 0, "held": 60, "spend_used": 0, "spend_held": 7}
        with pytest.raises(InsufficientQuota):
            await harness.reserve("two", "acme", 60)
        assert faults(harness, database) == []
        await harness.play("settle one 50 -> charged 7")
        assert harness.window("acme") == {"used": 50, "held": 0, "spend_used": 7, "spend_held": 0}
        assert faults(harness, database) == []


async def test_a_call_in_flight_is_settled_in_the_new_period_also_after_a_rebuild(
    valkey_url: str, database: Database
) -> None:
    """A rebuild removes the window that the call was admitted to, with the note that its holds have moved."""
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day")
        await harness.play("reserve one acme 60 -> granted 60")
        admitted_to = redis_keys.window(redis_keys.bucket_of("acme"), "acme", harness.holds["one"].facts.period_start)
        change(harness, database, timezone="Asia/Kolkata")
        harness.blocking.delete(admitted_to)

        await harness.play("settle one 50 -> charged 7")
        assert harness.window("acme") == {"used": 50, "held": 0, "spend_used": 7, "spend_held": 0}
        assert faults(harness, database) == []


async def test_a_call_of_a_dead_worker_is_billed_in_the_new_period(valkey_url: str, database: Database) -> None:
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day")
        await harness.play("reserve one acme 60 -> granted 60")
        harness.renew("one", 20)
        change(harness, database, timezone="Asia/Kolkata")
        harness.end_lease("one")
        harness.blocking.set(redis_keys.ended_worker(LEASE.owner), "1")
        harness.reclaimer(lambda: 0.0).turn()

        assert harness.window("acme") == {"used": 20, "held": 0, "spend_used": 7, "spend_held": 0}
        assert faults(harness, database) == []


@pytest.mark.parametrize("kind", ["old window", "new window", "old end user", "new end user", "end user in use"])
async def test_a_change_that_meets_a_key_of_another_type_writes_nothing(
    valkey_url: str, database: Database, kind: str
) -> None:
    """It is tried again, and is done whole once that is mended."""
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day")
        harness.tier("basic", price_nanousd=7, end_user_period_tokens_max=100)
        with database.write() as connection:
            connection.execute(update(customers).values(overrides='{"end_user_period_tokens_max": 100}'))
        await harness.reserve("one", "acme", 30, end_user="bob")
        await harness.settlements.settle(harness.holds["one"], harness.outcome(25))
        await harness.reserve("two", "acme", 20, end_user="eve")
        bucket, old = redis_keys.bucket_of("acme"), harness.holds["two"].facts.period_start
        with database.write() as connection:
            connection.execute(update(customers).values(timezone="Asia/Kolkata", rev=2))
        harness.customers["acme"] = after = replace(harness.customers["acme"], timezone="Asia/Kolkata")
        new = period_of(after, now_ms())[0]
        name = {
            "old window": redis_keys.window(bucket, "acme", old),
            "new window": redis_keys.window(bucket, "acme", new),
            "old end user": redis_keys.end_user(bucket, "acme", old, "eve"),
            "new end user": redis_keys.end_user(bucket, "acme", new, "eve"),
            "end user in use": redis_keys.end_user(bucket, "acme", new, "bob"),
        }[kind]
        was = harness.blocking.dump(name)
        harness.blocking.delete(name)
        harness.blocking.set(name, "a string")
        before = harness.dumped()
        with pytest.raises(MeteringUnavailable):
            project_customers(database, harness.projection, ["acme"])

        assert harness.dumped() == before
        harness.blocking.delete(name)
        if was is not None:
            harness.blocking.restore(name, 0, was)
        project_customers(database, harness.projection, ["acme"])
        assert harness.window("acme") == {"used": 25, "held": 20, "spend_used": 7, "spend_held": 7}
        assert harness.end_user("acme", "bob") == {"used": 25, "held": 0}
        assert harness.end_user("acme", "eve") == {"used": 0, "held": 20}
        assert faults(harness, database) == []


async def test_end_users_are_counted_on_in_the_new_period(valkey_url: str, database: Database) -> None:
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day")
        harness.tier("basic", end_user_period_tokens_max=100)
        with database.write() as connection:
            connection.execute(update(customers).values(overrides='{"end_user_period_tokens_max": 100}'))
        await harness.reserve("one", "acme", 30, end_user="bob")
        await harness.reserve("two", "acme", 20, end_user="bob")
        await harness.reserve("three", "acme", 10, end_user="eve")
        await harness.settlements.settle(harness.holds["one"], harness.outcome(30))
        old = redis_keys.end_user(redis_keys.bucket_of("acme"), "acme", harness.holds["two"].facts.period_start, "bob")
        with database.write() as connection:
            connection.execute(update(customers).values(timezone="Asia/Kolkata", rev=2))
        harness.customers["acme"] = replace(harness.customers["acme"], timezone="Asia/Kolkata")
        project_customers(database, harness.projection, ["acme"])

        assert harness.end_user("acme", "bob") == {"used": 30, "held": 20}
        assert harness.end_user("acme", "eve") == {"used": 0, "held": 10}
        assert harness.blocking.hget(old, "held") == b"0"
        await harness.settlements.settle(harness.holds["two"], harness.outcome(15))
        await harness.settlements.settle(harness.holds["three"], harness.outcome(0))
        assert harness.end_user("acme", "bob") == {"used": 45, "held": 0}
        assert harness.end_user("acme", "eve") == {"used": 0, "held": 0}


class Busy(Projection):
    """Something happens whenever records have been read, before the change is put in force."""

    def __init__(self, harness: HoldsHarness, meanwhile: Callable[[], object]) -> None:
        super().__init__(harness.blocking)
        self._meanwhile = meanwhile

    def change_period(self, customer: Customer, period: tuple[int, int], used: PeriodUse) -> str | None:
        if customer.id == "acme":
            self._meanwhile()
        return super().change_period(customer, period, used)


async def test_records_that_come_while_a_change_is_made_are_counted_once(valkey_url: str, database: Database) -> None:
    """Waiting, booked or both, at each of the moments at which one or the other is read."""
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day")
        writer, stream = (
            Writer(harness.blocking, database, entries_per_turn=1),
            redis_keys.usage(redis_keys.bucket_of("acme")),
        )
        for number in range(4):
            await harness.play(f"reserve call{number} acme 10 -> granted 10")
        entries = [await _entry(harness, f"call{number}") for number in range(4)]
        settle(harness.blocking, settled_call(9, customer="acme", time=now_ms() - 40 * DAY_MS))

        def arrives() -> None:
            harness.blocking.xadd(stream, entries.pop())

        def arrives_and_is_booked() -> None:
            arrives()
            while writer.turn():
                pass

        def arrives_and_is_in_both() -> None:
            arrives()
            book(harness, database, _waiting(harness))

        steps = [writer.turn, arrives, arrives_and_is_in_both, arrives_and_is_booked]
        change(harness, database, Busy(harness, lambda: steps and steps.pop()()), period="week")

        used = harness.window("acme")["used"]
        while writer.turn():
            pass
        assert used == spent_in(database, {"acme": period_of(harness.customers["acme"], now_ms())})["acme"].tokens


async def test_what_is_booked_and_still_waits_is_counted_once(valkey_url: str, database: Database) -> None:
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day")
        await harness.play("reserve one acme 40 -> granted 40\nsettle one 30 -> charged 7")
        book(harness, database, _waiting(harness))
        change(harness, database, timezone="Asia/Kolkata")

        assert harness.window("acme")["used"] == 30


async def test_of_two_changes_the_later_one_holds_whichever_comes_first(valkey_url: str, database: Database) -> None:
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day")
        change(harness, database, period="month")
        later = harness.customers["acme"]

        earlier = replace(later, rev=later.rev - 1, period="week")
        assert harness.projection.change_period(earlier, period_of(earlier, now_ms()), PeriodUse()) is None
        assert harness.projection.customers(["acme"]) == [later]


async def test_a_call_from_before_the_new_period_stays_in_its_own(valkey_url: str, database: Database) -> None:
    """It is counted by the time at which it was admitted, as its record is."""
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day")
        await harness.play("reserve one acme 60 -> granted 60")
        own, start = harness.window("acme"), now_ms() + 60_000
        changed = replace(harness.customers["acme"], rev=9, timezone="Asia/Kolkata")
        read_to = harness.projection.change_period(changed, (start, start + DAY_MS), PeriodUse(read_to="nothing"))
        assert read_to is not None
        harness.projection.change_period(changed, (start, start + DAY_MS), PeriodUse(read_to=read_to))

        new = redis_keys.window(redis_keys.bucket_of("acme"), "acme", start)
        assert (window_state(harness.blocking, new).held, harness.window("acme")) == (0, own)
        await harness.play("settle one 50 -> charged 7\naccount acme -> used 50 held 0")


def _waiting(harness: HoldsHarness) -> list[UsageRecord]:
    """Return the records that wait for the ledger."""
    stream, entries = harness.projection.waiting_records(redis_keys.bucket_of("acme"))
    found = [record_in(Entry(stream, name, fields)) for name, fields in entries]
    return [one for one in found if not isinstance(one, Malformed)]


async def _entry(harness: HoldsHarness, hold: str) -> dict[Any, Any]:
    """Settle a call and take its entry out of the stream again, as if it were still to come."""
    stream = redis_keys.usage(redis_keys.bucket_of("acme"))
    await harness.settlements.settle(harness.holds[hold], harness.outcome(5))
    [(name, fields)] = harness.projection.waiting_records(redis_keys.bucket_of("acme"))[1]
    harness.blocking.xdel(stream, name)
    return fields


async def test_where_records_never_stop_the_change_waits(valkey_url: str, database: Database) -> None:
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day")
        stream = redis_keys.usage(redis_keys.bucket_of("acme"))
        harness.customer("other", "basic", period="day")
        with database.write() as connection:
            connection.execute(customers.insert(), [customer_row("other") | {"rev": 2, "projected": False}])
        busy = Busy(harness, lambda: harness.blocking.xadd(stream, {"record": "{}"}))
        with pytest.raises(MeteringUnavailable):
            change(harness, database, busy, period="month")
        with pytest.raises(MeteringUnavailable):
            project_pending(database, busy)
        assert harness.projection.customers(["acme"])[0].period == "day"
        assert harness.projection.customers(["other"])[0].period == "month"  # nobody else waits
        harness.blocking.delete(stream)

        assert project_pending(database, harness.projection) == 1
        assert harness.projection.customers(["acme"])[0].period == "month"


@pytest.mark.parametrize("seed", range(8))
async def test_windows_holds_and_records_agree_whatever_changes_when(
    valkey_url: str, database: Database, seed: int
) -> None:
    random = Random(seed)
    async with holds_harness(valkey_url) as harness:
        await begin(harness, database, period="day", period_tokens_max=100_000, included_conversations=5)
        writer, open_calls, calls_made = Writer(harness.blocking, database, entries_per_turn=2), [], 0
        for _ in range(40):
            match random.choice(["reserve", "reserve", "settle", "settle", "book", "lapse", "change"]):
                case "reserve":
                    calls_made += 1
                    await harness.reserve(f"call{calls_made}", "acme", random.randint(1, 50))
                    open_calls.append(f"call{calls_made}")
                case "settle" if open_calls:
                    name = open_calls.pop(random.randrange(len(open_calls)))
                    await harness.settlements.settle(
                        harness.holds[name], harness.outcome(random.randint(0, harness.holds[name].grant))
                    )
                case "book":
                    writer.turn()
                case "lapse" if open_calls:
                    harness.end_lease(random.choice(open_calls))
                    harness.reclaimer(lambda: 1e6).turn()
                case "change":
                    change(harness, database, period=random.choice(KINDS), timezone=random.choice(ZONES))
            assert faults(harness, database) == []
        while writer.turn():
            pass
        period = period_of(harness.customers["acme"], now_ms())
        window = redis_keys.window(redis_keys.bucket_of("acme"), "acme", period[0])
        assert window_state(harness.blocking, window).included == begun_in(database, "acme", *period)
