"""Claims about the running sums: at any moment they say what the book says, and cost the same however long it is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import redis
from sqlalchemy import delete, event, insert, select, update

from gateway.holds.periods import period_at
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect
from gateway.holds.store.packing import WindowState
from gateway.ledger.book.appender import append
from gateway.ledger.book.erasure import erase_beside
from gateway.ledger.database import Database
from gateway.ledger.read.open_conversations import DAY_MS, HOUR_MS, open_conversations
from gateway.ledger.read.queries import begun_in, newest_times, spent_in, totals
from gateway.ledger.recovery.agreement import Agreement, Period, Verdict
from gateway.ledger.sums.rollup import Rollup, Used, conversations_in, windows_in
from gateway.ledger.tables import customers, rollup_conversations, rollup_read, rollup_windows
from gateway.ledger.writer import Writer
from pricing.money import MOST
from tests.gateway.ledger.records import NOON, customer_row, record, settle, settled_call

ZONES = {
    "cus_acme": ("day", "UTC"),
    "cus_bell": ("month", "Pacific/Kiritimati"),
    "cus_coop": ("week", "America/New_York"),
    "cus_dorm": ("day", "Australia/Lord_Howe"),
}
KINDS = ("usage", "usage", "usage", "correction", "fee", "credit")


@pytest.fixture
def ledger(database: Database) -> Database:
    """Each kind of ledger in turn, with four customers in four zones."""
    with database.write() as connection:
        for name, (period, timezone) in ZONES.items():
            connection.execute(insert(customers).values(customer_row(name, period, timezone)))
    return database


def history(draw: random.Random, calls: int, lasts_ms: int) -> list[dict[str, Any]]:
    """Return records in the order of their settling: calls of a few conversations that overlap, end and begin anew."""
    found = []
    for number in range(calls):
        time = NOON + draw.randrange(lasts_ms)
        kind = draw.choice(KINDS)
        is_named = draw.random() < 0.8
        found.append(
            record(
                number,
                time=time,
                settled=time + draw.choice((0, 1_000, 600_000)),
                kind=kind,
                customer=draw.choice([*ZONES, "cus_nobody"]),
                conversation=draw.choice(("c1", "c2", None)) if kind in ("usage", "correction") else None,
                billed_output_tokens=draw.choice((0, 7, 400)) * (-1 if kind == "correction" else 1),
                charge_nanousd=draw.choice((0, 5, 10_000)),
                conversation_cap_tokens=4_000 if is_named else None,
                conversation_is_included=True if is_named and draw.random() < 0.3 else None,
            )
        )
    return sorted(found, key=lambda one: (one["settled"], one["id"]))


NOTHING = Used(0, 0, 0)


def booked(ledger: Database) -> dict[str, dict[tuple[int, int], Used]]:
    """Return by the book what every customer's latest period comes to; one without a call comes to nothing."""
    found: dict[str, dict[tuple[int, int], Used]] = {}
    for name, newest in newest_times(ledger, ZONES).items():
        kind, timezone = zone(ledger, name)
        period = period_at(kind, timezone, newest)
        spent = spent_in(ledger, {name: period})[name]
        found[name] = {period: Used(spent.tokens, spent.charge_nanousd, begun_in(ledger, name, *period))}
    return found


def zone(ledger: Database, name: str) -> Any:
    with ledger.read() as connection:
        return connection.execute(select(customers.c.period, customers.c.timezone).where(customers.c.id == name)).one()


def latest(ledger: Database, wanted: Mapping[str, Mapping[tuple[int, int], Used]]) -> dict[str, dict[Any, Used]]:
    """Return what the running sums say of these periods."""
    kept = {name: dict(periods) for name, periods in windows_in(ledger, ZONES)}
    return {name: {period: kept.get(name, {}).get(period, NOTHING) for period in wanted[name]} for name in wanted}


@pytest.mark.parametrize("seed", range(4))
def test_the_running_sums_say_what_the_book_says(ledger: Database, seed: int) -> None:
    """Whatever comes in which batches, and whether it is added at once, late, or by who begins with a long book."""
    draw = random.Random(seed)
    waiting, rollup = history(draw, 240, 3 * DAY_MS), Rollup(ledger, batch=draw.choice((1, 7, 100)))
    while waiting:
        batch, waiting = waiting[: (many := draw.randrange(1, 60))], waiting[many:]
        append(ledger, batch)
        if draw.random() < 0.5:
            continue
        now = batch[-1]["settled"]
        rollup.bring_up_to_date(now)

        wanted = booked(ledger)
        assert latest(ledger, wanted) == wanted
        assert sorted(conversations_in(ledger, [*ZONES, "cus_nobody"], now), key=repr) == sorted(
            open_conversations(ledger, now), key=repr
        )


def test_a_record_that_settles_late_counts_in_the_period_of_its_admission(ledger: Database) -> None:
    """The period before is kept beside the one that is."""
    midnight = period_at("day", "UTC", NOON)[1]
    append(ledger, [record(1, time=NOON), record(2, time=midnight + 5)])
    Rollup(ledger).bring_up_to_date(midnight)
    append(ledger, [record(3, time=midnight - 5, conversation="c9")])
    Rollup(ledger).bring_up_to_date(midnight)

    ((_, periods),) = windows_in(ledger, ZONES)
    assert [(start, used.tokens) for (start, _), used in periods] == [(midnight - DAY_MS, 200), (midnight, 100)]


def test_each_record_of_a_batch_counts_in_its_own_period(ledger: Database) -> None:
    midnight, rollup = period_at("day", "UTC", NOON)[1], Rollup(ledger)

    def tokens() -> list[int]:
        ((_, periods),) = windows_in(ledger, ZONES)
        return [used.tokens for _, used in periods]

    for one in (record(1, time=NOON), record(2, time=midnight + 5)):
        append(ledger, [one])
        rollup.bring_up_to_date(midnight)
    assert tokens() == [100, 100]
    append(ledger, [record(3, time=midnight + 6), record(4, time=midnight - 5), record(5, time=midnight)])
    rollup.bring_up_to_date(midnight)
    assert tokens() == [200, 300]


def test_a_late_record_of_a_conversation_that_ended_is_not_of_the_one_that_has_its_name_now(ledger: Database) -> None:
    append(ledger, [record(1, time=NOON, settled=NOON)])
    Rollup(ledger).bring_up_to_date(NOON)
    later = NOON + 2 * HOUR_MS
    append(ledger, [record(2, time=later, settled=later)])
    append(ledger, [record(3, time=NOON + 1, settled=later + 5), record(4, time=later - 1, settled=later + 9)])
    Rollup(ledger).bring_up_to_date(later)

    (found,) = conversations_in(ledger, ZONES, later + 10)
    assert (found.first, found.tokens) == (later - 1, 200)


def test_sums_may_pass_what_a_column_holds(ledger: Database) -> None:
    """1,030 records of the largest amount are above 2^63."""
    append(ledger, [record(0)])
    Rollup(ledger).bring_up_to_date(NOON)
    most = {"billed_output_tokens": MOST, "charge_nanousd": MOST, "input_tokens": MOST}
    append(ledger, [record(number, **most) for number in range(1, 1_031)])
    Rollup(ledger).bring_up_to_date(NOON)

    ((_, [(_, used)]),) = windows_in(ledger, ZONES)
    assert (used.tokens, used.charge_nanousd) == (100 + 1_030 * MOST, 5_000 + 1_030 * MOST)
    (one,) = conversations_in(ledger, ZONES, NOON)
    assert (one.tokens, one.input_tokens) == (MOST, MOST), "nobody can be sold more than can be counted"


def test_a_batch_that_another_one_added_is_not_added_again(ledger: Database) -> None:
    """Both have read the same place; the one that comes second finds it moved, and goes on with what is left."""
    append(ledger, [record(1)])
    Rollup(ledger).bring_up_to_date(NOON)
    append(ledger, [record(2), record(3), record(4)])
    first, second = Rollup(ledger, batch=1), Rollup(ledger, batch=1)
    write = ledger.write
    overtaken: list[bool] = []

    def overtake() -> Any:
        if not overtaken:
            overtaken.append(True)
            assert first.turn(NOON) == 1
        return write()

    ledger.write = overtake  # type: ignore[method-assign]
    try:
        second.bring_up_to_date(NOON)
    finally:
        ledger.write = write  # type: ignore[method-assign]
    ((_, [(_, used)]),) = windows_in(ledger, ZONES)
    assert used.tokens == 400


def test_what_is_booked_is_in_the_sums_at_once(ledger: Database, valkey_url: str) -> None:
    """In the transaction that books it, where the sums are not behind: it is not read again."""
    with connect(valkey_url) as client:
        writer = Writer(client, ledger)
        for number, customer in enumerate((*ZONES, "cus_nobody", *ZONES)):
            settle(client, settled_call(number, customer=customer, conversation=f"c{number % 2}"), charge=5)
            writer.turn()

            wanted = booked(ledger)
            assert latest(ledger, wanted) == wanted
            assert sorted(conversations_in(ledger, [*ZONES, "cus_nobody"], NOON), key=repr) == sorted(
                open_conversations(ledger, NOON), key=repr
            )
    assert Rollup(ledger).turn(NOON) == 0


def test_sums_that_are_behind_are_not_added_to_out_of_turn(ledger: Database, valkey_url: str) -> None:
    with connect(valkey_url) as client:
        writer = Writer(client, ledger)
        settle(client, settled_call(1), charge=5)
        writer.turn()
        with ledger.write() as connection:
            for table in (rollup_read, rollup_windows, rollup_conversations):
                connection.execute(delete(table))
        settle(client, settled_call(2), charge=5)
        writer.turn()
    assert not list(windows_in(ledger, ZONES))

    Rollup(ledger).bring_up_to_date(NOON)

    wanted = booked(ledger)
    assert latest(ledger, wanted) == wanted


def test_sums_that_cannot_be_added_to_keep_no_record_out_of_the_book(ledger: Database, valkey_url: str) -> None:
    """They stay behind, as after a version that does not know of them, and are added to by the next turn that can."""
    with ledger.write() as connection:
        connection.execute(update(customers).where(customers.c.id == "cus_acme").values(timezone="Nowhere/City"))
    with connect(valkey_url) as client:
        settle(client, settled_call(1), charge=5)
        Writer(client, ledger).turn()
    assert totals(ledger).records == 1
    assert not list(windows_in(ledger, ZONES))
    with ledger.write() as connection:
        connection.execute(update(customers).where(customers.c.id == "cus_acme").values(timezone="UTC"))

    Rollup(ledger).bring_up_to_date(NOON)

    wanted = booked(ledger)
    assert latest(ledger, wanted) == wanted


def test_sums_that_are_gone_are_made_anew(ledger: Database) -> None:
    append(ledger, history(random.Random(9), 200, DAY_MS))
    Rollup(ledger).bring_up_to_date(NOON)
    before = list(windows_in(ledger, ZONES)), list(conversations_in(ledger, ZONES, NOON + HOUR_MS))
    with ledger.write() as connection:
        for table in (rollup_read, rollup_windows, rollup_conversations):
            connection.execute(delete(table))

    Rollup(ledger).bring_up_to_date(NOON + HOUR_MS)

    wanted = booked(ledger)
    assert latest(ledger, wanted) == wanted
    assert list(conversations_in(ledger, ZONES, NOON + HOUR_MS)) == before[1]


def test_a_customer_whose_zone_changed_has_the_sums_of_its_new_periods(ledger: Database) -> None:
    append(ledger, [record(1, time=NOON), record(2, time=NOON + 1)])
    Rollup(ledger).bring_up_to_date(NOON)
    with ledger.write() as connection:
        connection.execute(update(customers).where(customers.c.id == "cus_acme").values(timezone="Asia/Tokyo"))
    append(ledger, [record(3, time=NOON + 2)])
    Rollup(ledger).bring_up_to_date(NOON)

    ((_, periods),) = windows_in(ledger, ZONES)
    assert dict(periods)[period_at("day", "Asia/Tokyo", NOON)].tokens == 300


def test_what_ended_long_ago_is_forgotten(ledger: Database) -> None:
    append(ledger, [record(1, time=NOON, settled=NOON)])
    rollup = Rollup(ledger)
    rollup.bring_up_to_date(NOON)
    rollup.forget_ended(NOON + 3 * HOUR_MS, 2 * HOUR_MS)
    assert rows(ledger) == 1

    rollup.forget_ended(NOON + 3 * HOUR_MS + 1, 2 * HOUR_MS)
    assert rows(ledger) == 0


def test_an_erased_customers_conversations_are_gone(ledger: Database) -> None:
    append(ledger, [record(1), record(2, customer="cus_bell")])
    Rollup(ledger).bring_up_to_date(NOON)
    with ledger.write() as connection:
        erase_beside(connection, "cus_acme", b"secret")

    assert [one.customer for one in conversations_in(ledger, ZONES, NOON)] == ["cus_bell"]


def rows(ledger: Database) -> int:
    with ledger.read() as connection:
        return len(connection.execute(select(rollup_conversations.c.name)).all())


def look(ledger: Database, client: redis.Redis) -> Verdict | None:
    day = period_at("day", "UTC", NOON)
    return Agreement(ledger, client, lambda: "1").look_at(Period("cus_acme", *day))


@pytest.fixture
def window(valkey_url: str) -> Iterator[Callable[[int, int], redis.Redis]]:
    """Set what the window of the customer says is used."""
    with connect(valkey_url) as client:
        bucket = redis_keys.bucket_of("cus_acme")
        client.hset(redis_keys.state(bucket), "generation", "1")
        client.hset(redis_keys.WATERMARK, "seq", "1000000")
        name = redis_keys.window(bucket, "cus_acme", period_at("day", "UTC", NOON)[0])

        def says(tokens: int, charge: int) -> redis.Redis:
            client.hset(name, "amounts", WindowState(used=tokens, spend_used=charge).to_bytes())
            typed: redis.Redis = client
            return typed

        yield says


def test_a_window_agrees_with_what_is_rolled_up_and_what_is_not_yet(
    ledger: Database, window: Callable[[int, int], redis.Redis]
) -> None:
    append(ledger, [record(1), record(2)])
    Rollup(ledger).bring_up_to_date(NOON)
    append(ledger, [record(3), record(4, customer="cus_bell")])

    assert look(ledger, window(300, 15_000)) == Verdict(None)
    found = look(ledger, window(299, 15_000))
    assert found is not None
    assert found.fault is not None
    assert "records say 300 tokens and 15000" in found.fault


def test_where_the_running_sums_are_wrong_the_records_decide(
    ledger: Database, window: Callable[[int, int], redis.Redis]
) -> None:
    append(ledger, [record(1), record(2)])
    Rollup(ledger).bring_up_to_date(NOON)
    with ledger.write() as connection:
        connection.execute(update(rollup_windows).values(tokens_low=7))

    assert look(ledger, window(200, 10_000)) == Verdict(None)
    found = look(ledger, window(199, 10_000))
    assert found is not None
    assert found.fault is not None


def test_a_look_at_the_books_costs_the_same_in_a_month_of_any_length(
    sqlite_ledger: Database, window: Callable[[int, int], redis.Redis]
) -> None:
    """Counted in steps of SQLite's machine: fewer than a thousand more for ten times the records."""
    steps = []
    for last in (500, 5_000):
        done = 0 if last == 500 else 500
        append(sqlite_ledger, [record(number, conversation=f"c{number}") for number in range(done, last)])
        Rollup(sqlite_ledger).bring_up_to_date(NOON)
        client = window(100 * last, 5_000 * last)
        stream = settle(client, settled_call(0, conversation="c0"))  # it is in the book, and not out of the stream yet
        steps.append(steps_of(sqlite_ledger, client))
        client.delete(stream)

    assert steps[1] < steps[0] + 1_000
    assert steps[0] > 10


def steps_of(ledger: Database, client: redis.Redis) -> int:
    count = 0

    def counted() -> int:
        nonlocal count
        count += 10
        return 0

    engine = ledger._engine
    event.listen(engine, "checkout", lambda raw, *_: raw.set_progress_handler(counted, 10))
    assert look(ledger, client) == Verdict(None)
    return count


@pytest.fixture
def sqlite_ledger(sqlite_url: str) -> Any:
    database = Database(sqlite_url)
    database.migrate()
    with database.write() as connection:
        connection.execute(insert(customers).values(customer_row("cus_acme", "day", "UTC")))
    yield database
    database.close()
