"""The sums in SQL are those of the same records in memory, however they came and whoever died meanwhile."""

from __future__ import annotations

import multiprocessing
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, func, select

from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.ledger.sums.market_rows import customers_in, lengths_in, pace_in, tiers_in, weeks_in
from gateway.ledger.sums.market_sums import TABLES, bring_up_to_date, going_in
from gateway.ledger.sums_tables import sums_going, sums_read
from pricing.estimate.observations.conversations import IDLE_MS, POOLED_MOST, Sums, Watch, windows_of
from pricing.estimate.observations.gathering import summed
from pricing.usage import UsageRecord
from tests.gateway.ledger.records import NOON, record

HOUR_MS = 3_600_000
WEEK_MS = 7 * 24 * HOUR_MS
LATER = NOON + 20 * WEEK_MS


def some_records(
    count: int, *, first: int = 0, seed: int = 1, span_ms: int = 3 * WEEK_MS, customers: int = 20
) -> list[UsageRecord]:
    random = np.random.default_rng(seed)
    times = np.sort(random.integers(0, span_ms, count))
    return [
        record(
            first + number,
            time=NOON + int(time),
            settled=NOON + int(time) + 1500,
            customer=f"cus_{random.integers(customers)}",
            conversation=f"c{random.integers(10)}",
            tier=str(random.choice(["t1", "t2"])),
            tier_chosen=str(random.choice(["t1", "t2"])) if random.random() < 0.3 else None,
            finish=str(random.choice(["complete", "cap", "disconnect", "tool_calls"])),
            usage_source=str(random.choice(["upstream", "drained", "timed", "granted"])),
            billed_output_tokens=int(random.integers(0, 50)),
            duration_ms=int(random.integers(250, 20_000)),
        )
        for number, time in enumerate(times.tolist())
    ]


def in_memory(records: list[UsageRecord]) -> Sums:
    watch = Watch()
    watch.see(records)
    watch.close_all()
    return watch.sums


def in_sql(database: Database) -> Sums:
    """Return all sums, the conversations that may go on included."""
    watch = Watch(going_in(database))
    watch.close_all()
    with database.read() as connection:
        for name, table in TABLES.items():
            into = getattr(watch.sums, name)
            keys = len(table.primary_key.columns)
            for row in connection.execute(select(table)):
                known = into.setdefault(tuple(row[:keys]), [0] * (len(row) - keys))
                into[tuple(row[:keys])] = [before + amount for before, amount in zip(known, row[keys:], strict=True)]
    return watch.sums


def test_the_sums_in_sql_are_those_in_memory(database: Database) -> None:
    records = some_records(1500)
    append(database, records)

    assert bring_up_to_date(database, LATER) == 1500
    assert in_sql(database) == in_memory(records)
    assert list(going_in(database)) == []


def test_only_what_is_new_is_read(database: Database) -> None:
    """A second look at a book that has grown by ten records reads ten; one at the same book none."""
    records = some_records(1510)
    append(database, records[:1500])
    bring_up_to_date(database, NOON)
    append(database, records[1500:])
    rows: list[int] = []

    assert bring_up_to_date(database, NOON, rows.append) == 10
    assert bring_up_to_date(database, NOON) == 0
    assert in_sql(database) == in_memory(records)


def test_records_in_many_small_batches_come_to_the_same(database: Database) -> None:
    """A conversation that is open at the end of a batch goes on in the next one."""
    records = some_records(200, span_ms=6 * HOUR_MS)
    append(database, records)

    assert bring_up_to_date(database, NOON, batch=7) == 200
    assert in_sql(database) == in_memory(records)


@pytest.mark.parametrize("batch", [10, 1_000])
def test_a_customers_hundred_conversations_of_a_week_are_pooled_however_many_come_at_a_time(
    database: Database, batch: int
) -> None:
    """The first and the last moment of each of two weeks count as that week's."""
    first_week = NOON // WEEK_MS * WEEK_MS
    moments = [week + part * (WEEK_MS - 1) // 119 for week in (first_week, first_week + WEEK_MS) for part in range(120)]
    records = [
        record(number, time=time, settled=time, conversation=f"c{number}") for number, time in enumerate(moments)
    ]
    append(database, records)

    bring_up_to_date(database, LATER, batch=batch)

    assert in_sql(database).lengths == in_memory(records).lengths
    for week in (first_week, first_week + WEEK_MS):
        rows = list(lengths_in(database, week // WEEK_MS, Sums()))
        assert sum(row[3] + row[4] for row in rows) == POOLED_MOST * (2 if week == first_week else 1)


@pytest.mark.parametrize("batch", [10, 1_000])
def test_a_hundred_streamed_calls_of_a_customer_are_in_a_weeks_pace_however_many_come_at_a_time(
    database: Database, batch: int
) -> None:
    """300 conversations within an hour, none of which has ended when the last begins: all 300 were in, ten at a time."""
    records = [
        record(number, time=NOON + 10_000 * number, settled=NOON + 10_000 * number + 1500, conversation=f"c{number}")
        for number in range(300)
    ]
    append(database, records)

    bring_up_to_date(database, LATER, batch=batch)

    assert in_sql(database) == in_memory(records)
    assert [row[0] for row in in_sql(database).pace.values()] == [POOLED_MOST]


@pytest.mark.parametrize("batch", [10, 1_000])
def test_the_conversations_that_end_first_are_pooled_however_many_records_come_at_a_time(
    database: Database, batch: int
) -> None:
    """150 conversations begin in one order and end in the other; other customers' calls show that time passes."""
    calls = [(number, number, 1 + number) for number in range(150)]
    calls += [(number, 600 + 10 * (150 - number), 1000) for number in range(150)]
    records = [
        record(
            place,
            time=NOON + 1000 * second,
            settled=NOON + 1000 * second,
            conversation=f"c{number}",
            billed_output_tokens=tokens,
        )
        for place, (number, second, tokens) in enumerate(sorted(calls, key=lambda call: call[1]))
    ]
    records += [
        record(
            1000 + number,
            time=NOON + 60_000 * number,
            settled=NOON + 60_000 * number,
            customer="cus_other",
            conversation=f"o{number}",
        )
        for number in range(40, 300)
    ]
    append(database, records)

    bring_up_to_date(database, LATER, batch=batch)

    pooled = {key[3] - 1001 for key in in_sql(database).lengths if key[3] > 1000}
    assert pooled == set(range(50, 150))
    assert in_sql(database) == in_memory(records)


def test_open_conversations_wait_until_nobody_can_go_on_with_them(database: Database) -> None:
    append(database, [record(1, conversation="c1"), record(2, conversation="c2")])

    bring_up_to_date(database, NOON + IDLE_MS)
    assert {one.conversation for one in going_in(database)} == {"c1", "c2"}

    bring_up_to_date(database, NOON + 3 * IDLE_MS)
    assert list(going_in(database)) == []
    assert [row[3:] for row in lengths_in(database, 0, Sums())] == [(2, 0)]


def test_dying_within_a_batch_leaves_the_sums_as_they_were(database: Database) -> None:
    """The place in the book and the sums are one transaction: what fails at its last statement has added nothing."""
    records = some_records(300)
    append(database, records[:100])
    bring_up_to_date(database, NOON)
    before = in_sql(database)
    append(database, records[100:])

    def die(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.startswith("UPDATE sums_read"):
            raise KeyboardInterrupt

    event.listen(database._engine, "before_cursor_execute", die)
    with pytest.raises(KeyboardInterrupt):
        bring_up_to_date(database, NOON)
    event.remove(database._engine, "before_cursor_execute", die)

    assert in_sql(database) == before
    bring_up_to_date(database, NOON)
    assert in_sql(database) == in_memory(records)


def _bring(url: str) -> None:
    database = Database(url)
    bring_up_to_date(database, NOON, batch=100)
    database.close()


def test_two_at_once_add_nothing_twice(ledger_url: str) -> None:
    """Each has 24 batches to try; nobody has a hundred conversations, of which it would matter which are pooled."""
    database = Database(ledger_url)
    records = some_records(2_400, span_ms=WEEK_MS, customers=200)
    append(database, records)
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_bring, args=(ledger_url,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0]
    assert in_sql(database) == in_memory(records)
    database.close()


def test_weeks_are_left_out_and_customers_are_added_up(database: Database) -> None:
    """From a week on, one row a customer; what is still open comes on top."""
    append(
        database,
        [
            record(1, conversation="c1"),
            record(2, conversation="c2", time=NOON + 2 * WEEK_MS, settled=NOON + 2 * WEEK_MS),
            record(3, conversation="c3", time=NOON + 3 * WEEK_MS, settled=NOON + 3 * WEEK_MS, tier_chosen="t2"),
        ],
    )
    bring_up_to_date(database, NOON + 3 * WEEK_MS)
    watch = Watch(going_in(database))
    assert watch.close_all() == 1

    everything = list(customers_in(database, 0, watch.sums))
    lately = list(customers_in(database, (NOON + 2 * WEEK_MS) // WEEK_MS, watch.sums))

    assert [(row[0], row[1]) for row in everything] == [("cus_acme", 3)]
    assert [(row[0], row[1]) for row in lately] == [("cus_acme", 2)]
    assert [row[1:] for row in tiers_in(database, (NOON + 3 * WEEK_MS) // WEEK_MS, watch.sums)] == [
        ("m1", "t2", True, 1)
    ]
    assert pace_in(database, 0, watch.sums)[0] == 3


def test_the_database_adds_up_by_window_as_memory_does(database: Database) -> None:
    """Of three weeks and more, some of them in the sums and some of conversations that may go on."""
    records = some_records(1500)
    append(database, records)
    bring_up_to_date(database, records[-1]["time"] + 1)
    watch = Watch(going_in(database))
    watch.close_all()
    weeks = weeks_in(database, 0, watch.sums)
    assert weeks is not None

    windows = windows_of(*weeks)

    found = summed(in_memory(records))
    assert len(windows) >= 3
    assert windows == found.windows
    assert sorted(customers_in(database, 0, watch.sums, windows)) == sorted(found.customers)


def test_a_ledger_without_records_has_no_sums(database: Database) -> None:
    assert bring_up_to_date(database, NOON) == 0
    assert list(customers_in(database, 0, Sums())) == []
    assert pace_in(database, 0, Sums()) == [0.0] * 8
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(sums_read)).scalar_one() == 0
        assert connection.execute(select(func.count()).select_from(sums_going)).scalar_one() == 0
