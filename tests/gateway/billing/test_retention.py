"""Retention: records of old closed months go behind their seals; totals, invoices, proofs and kept records stay."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, update

from gateway.billing.retention import DAY_MS, LOOK_MS, Retention
from gateway.billing.totals import FIELD_OF, totals_by
from gateway.errors import RecordsDropped
from gateway.ledger.billing.closings import close, months_of
from gateway.ledger.billing.counted import Month, records_counted_in
from gateway.ledger.billing.dropped_months import erase_kept_words
from gateway.ledger.billing.old_records import RowChanged
from gateway.ledger.billing.upstream_sums import sums_by_day
from gateway.ledger.billing.usage_buckets import sums_by_bucket
from gateway.ledger.billing_tables import closings, dropped_months, dropped_rows, dropped_totals, late_records
from gateway.ledger.book.appender import append, book
from gateway.ledger.book.erasure import erase_records
from gateway.ledger.book.proofs import proof_of
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.seals import seals_in_order
from gateway.ledger.book.verify import Published, verify_chain
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span, usage_records_in
from gateway.ledger.sums.rollup import Rollup, conversations_in, windows_in
from gateway.ledger.tables import chains, customers, rollup_read, usage_records
from tests.gateway.ledger.records import customer_row, record

HOUR_MS = 3_600_000
ZONES = {"cus_berlin": "Europe/Berlin", "cus_samoa": "Pacific/Apia", "cus_utc": "UTC"}
MONTHS = ("2026-01", "2026-02", "2026-03", "2026-04")
RECORDS = 140


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


NOW = at("2026-05-20T12:00:00")
"""With 62 days: January and February are old enough, March is not."""


@pytest.fixture
def ledger(database: Database) -> Database:
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row(name, timezone=zone) for name, zone in ZONES.items()])
    return database


def history(seed: int, count: int = RECORDS) -> list[Any]:
    """Return records of four months, more of them around the turns of months, in the order of their time."""
    draw, rows = random.Random(seed), []
    turns = [at(f"{month}-01T00:00:00") for month in MONTHS]
    for number in range(count):
        customer = draw.choice(list(ZONES))
        near = draw.choice(turns) + draw.randrange(-15 * HOUR_MS, 15 * HOUR_MS)
        time = draw.choice((near, turns[0] + draw.randrange(115) * DAY_MS))
        kind = draw.choices(("usage", "correction", "fee", "credit"), (9, 1, 1, 1))[0]
        is_call = kind in ("usage", "correction")
        tokens = draw.choice((0, 1, 500)) if is_call else 0
        rows.append(
            record(
                number,
                **{"customer": customer, "time": max(time, turns[0] + 15 * HOUR_MS), "kind": kind},
                **{"tier": draw.choice(("t1", None)), "menu_version": draw.choice(("m1", "m2"))},
                **{"key_id": draw.choice(("k1", None)), "end_user": draw.choice(("ann", "é", None))},
                **{"conversation": draw.choice(("c1", "c2")) if is_call else None, "billed_output_tokens": tokens},
                **{"charge_nanousd": draw.randrange(2**52) * (-1 if kind == "credit" else 1)},
            )
        )
    rows.sort(key=lambda one: one["time"])
    return [{**one, "settled": one["time"] + 1_000} for one in rows]


def booked(
    ledger: Database, records: list[Any], closed: tuple[str, ...] = MONTHS[:3], late_every: int | None = 8
) -> None:
    """Book records, every eighth only once its month is closed; seal them, and bring the running sums up to date."""
    late = records[::late_every] if late_every else []
    append(ledger, [one for one in records if one not in late])
    for month in closed:
        close_all(ledger, month)
    append(ledger, late)
    while Sealer(ledger, lambda: NOW, rows=7).turn(all_of_it=True):
        pass
    Rollup(ledger).bring_up_to_date(NOW)


def close_all(ledger: Database, month: str) -> None:
    with ledger.write() as connection:
        close(connection, list(months_of(ledger, month)), NOW)
        connection.execute(update(closings).values(is_invoiced=True))


def retain(ledger: Database, *, days: int | None = 62, now: int = NOW) -> int:
    """Mark, and a day later delete; return how many rows are gone."""
    before = count(ledger)
    for time in (now, now + DAY_MS):
        retention = Retention(ledger, lambda time=time: time, days, rows=5)  # type: ignore[misc]
        while retention.turn():
            pass
    return before - count(ledger)


def count(ledger: Database) -> int:
    with ledger.read() as connection:
        return connection.execute(select(func.count()).select_from(usage_records)).scalar_one()


def all_totals(ledger: Database) -> Any:
    months = {(month, only): Month(ledger, month, only) for month in MONTHS for only in (None, "cus_samoa")}
    return {
        (by, about): totals_by(ledger, by, Span(about[1]), month) for about, month in months.items() for by in FIELD_OF
    }


def dropped(ledger: Database) -> dict[str, list[str]]:
    with ledger.read() as connection:
        rows = connection.execute(select(dropped_months).order_by(dropped_months.c.customer, dropped_months.c.month))
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row.customer, []).append(row.month)
    return found


def calls(customer: str, *times: str, **changes: Any) -> list[Any]:
    return [
        record(number, customer=customer, time=at(time), settled=at(time) + 1, **changes)
        for number, time in enumerate(times, start=1)
    ]


@pytest.mark.parametrize("seed", range(2))
def test_totals_of_every_month_stay_the_same(ledger: Database, seed: int) -> None:
    """By everything that they are by, of all customers and of one: what is dropped, half dropped and kept."""
    booked(ledger, history(seed))
    before, whole = all_totals(ledger), [totals_by(ledger, by, Span()) for by in FIELD_OF]
    marking = Retention(ledger, lambda: NOW, 62)
    assert marking.turn()
    assert all_totals(ledger) == before
    deleting = Retention(ledger, lambda: NOW + DAY_MS, 62, rows=5)
    for _ in range(3):
        assert deleting.turn()
    assert all_totals(ledger) == before

    assert retain(ledger) > 20

    assert all_totals(ledger) == before
    assert [totals_by(ledger, by, Span()) for by in FIELD_OF] == whole


def test_only_old_closed_invoiced_months_go(ledger: Database) -> None:
    """Of each customer its own, oldest first; without a setting none; not one that is not invoiced, nor one after it."""
    booked(ledger, history(1))
    with ledger.write() as connection:
        this = (closings.c.customer == "cus_utc", closings.c.month == "2026-01")
        connection.execute(update(closings).where(*this).values(is_invoiced=False))
    assert retain(ledger, days=None) == 0

    assert retain(ledger) > 0

    assert dropped(ledger) == {"cus_berlin": ["2026-01", "2026-02"], "cus_samoa": ["2026-01", "2026-02"]}
    kept = {(one["customer"], one["time"] < at("2026-01-30T00:00:00")) for one in usage_records_in(ledger, Span())}
    assert ("cus_utc", True) in kept
    with ledger.read() as connection:
        late = set(connection.execute(select(late_records.c.seq)).scalars())
    old = list(usage_records_in(ledger, Span("cus_berlin", until=at("2026-02-27T00:00:00"))))
    assert all(one["seq"] in late for one in old)


def test_a_recount_holds_and_says_what_was_dropped(ledger: Database) -> None:
    """Against seals that were published before, too; and every proof of a kept record verifies as before."""
    booked(ledger, history(2))
    published = list(seals_in_order(ledger))
    proofs = {one["id"]: proof_of(ledger, one["id"]) for one in usage_records_in(ledger, Span())}

    gone = retain(ledger)
    found = verify_chain(ledger, published=Published(published))

    assert (found.is_sound, found.rows, found.dropped, found.seals) == (True, RECORDS, gone, len(published))
    kept = {one["id"] for one in usage_records_in(ledger, Span())}
    assert {name: proof_of(ledger, name) for name in proofs} == {
        name: proof if name in kept else None for name, proof in proofs.items()
    }


def test_a_recount_finds_what_retention_did_not_do(ledger: Database) -> None:
    """A row that somebody else deleted or changed between dropped ones is named, and so is a mark without a seal."""
    booked(ledger, history(2))
    retain(ledger)
    kept = [one["seq"] for one in usage_records_in(ledger, Span())]
    with ledger.write() as connection:
        connection.execute(delete(usage_records).where(usage_records.c.seq == min(kept)))
    bad = verify_chain(ledger).bad
    assert bad is not None
    assert "is missing" in bad.reason
    second = sorted(kept)[1]
    with ledger.write() as connection:
        rows = connection.execute(select(dropped_rows)).all()
        every = [{**row._asdict(), "rows": b"\xff" * len(row.rows)} for row in rows]
        connection.execute(delete(dropped_rows))
        connection.execute(insert(dropped_rows), every)
        connection.execute(update(usage_records).where(usage_records.c.seq == second).values(charge_nanousd=1))

    changed = verify_chain(ledger).bad

    assert changed is not None
    assert changed.seq <= second


def test_what_is_dropped_is_refused_and_not_left_out(ledger: Database) -> None:
    """A file, sums of buckets and a reconciliation of such a time; a part of a month; not the months that are kept."""
    booked(ledger, history(3))
    before = list(records_counted_in(ledger, Span(), Month(ledger, "2026-03")))
    retain(ledger)
    start, end = at("2026-02-01T00:00:00"), at("2026-02-02T00:00:00")

    for read in (
        lambda: list(records_counted_in(ledger, Span(), Month(ledger, "2026-02"))),
        lambda: list(records_counted_in(ledger, Span("cus_utc", start, end))),
        lambda: sums_by_bucket(ledger, "cus_utc", start, end, DAY_MS, only={}, generates=True),
        lambda: sums_by_day(ledger, start, end),
        lambda: totals_by(ledger, "tier", Span(None, start, end)),
    ):
        with pytest.raises(RecordsDropped):
            read()
    assert list(records_counted_in(ledger, Span(), Month(ledger, "2026-03"))) == before


def test_a_conversation_over_the_end_of_a_dropped_month_is_counted_once(ledger: Database) -> None:
    booked(
        ledger, calls("cus_utc", "2026-02-28T23:40:00", "2026-03-01T00:10:00", "2026-03-01T05:00:00"), late_every=None
    )
    append(ledger, [record(9, customer="cus_utc", time=NOW, settled=NOW)])
    Sealer(ledger, lambda: NOW).turn(all_of_it=True)
    Rollup(ledger).bring_up_to_date(NOW)

    assert retain(ledger) >= 1

    [february], [march] = (totals_by(ledger, "customer", Span("cus_utc"), Month(ledger, one)) for one in MONTHS[1:3])
    assert (february["calls"], february["conversations"]) == (1, 1)
    assert (march["calls"], march["conversations"]) == (2, 1)


def test_a_month_waits_for_a_credit_that_names_one_of_its_records(ledger: Database) -> None:
    """Until the month of the credit is old enough itself."""
    [first] = calls("cus_utc", "2026-02-10T00:00:00")
    credit = record(
        8, customer="cus_utc", kind="credit", corrects=first["id"], time=at("2026-03-20T00:00:00"), conversation=None
    )
    booked(ledger, [record(0, customer="cus_berlin", time=first["time"]), first, credit], MONTHS, None)
    append(ledger, [record(9, customer="cus_utc", time=NOW, settled=NOW)])
    Sealer(ledger, lambda: NOW).turn(all_of_it=True)
    Rollup(ledger).bring_up_to_date(NOW)
    assert retain(ledger, now=NOW) == 1
    assert "2026-02" not in dropped(ledger)["cus_utc"]

    retain(ledger, now=at("2026-06-20T00:00:00"))

    assert {"2026-02", "2026-03"} <= set(dropped(ledger)["cus_utc"])


def test_the_newest_seal_and_what_is_not_added_up_keep_their_rows(ledger: Database) -> None:
    append(ledger, calls("cus_utc", "2026-01-10T00:00:00", "2026-01-11T00:00:00"))
    for month in MONTHS[:3]:
        close_all(ledger, month)
    Rollup(ledger).bring_up_to_date(NOW)
    assert retain(ledger) == 0
    Sealer(ledger, lambda: NOW).turn(all_of_it=True)
    assert retain(ledger) == 0
    append(ledger, [record(9, customer="cus_utc", time=NOW, settled=NOW)])
    Sealer(ledger, lambda: NOW).turn(all_of_it=True)
    with ledger.write() as connection:
        connection.execute(delete(rollup_read))
    assert retain(ledger) == 0

    Rollup(ledger).bring_up_to_date(NOW)

    assert retain(ledger) == 2
    assert append(ledger, [record(10, customer="cus_utc", time=NOW + 1, settled=NOW + 1)])
    assert verify_chain(ledger).is_sound


def test_a_changed_row_is_not_dropped(ledger: Database) -> None:
    booked(ledger, history(4))
    with ledger.write() as connection:
        oldest = select(func.min(usage_records.c.seq)).scalar_subquery()
        connection.execute(update(usage_records).where(usage_records.c.seq == oldest).values(charge_nanousd=1))

    with pytest.raises(RowChanged):
        retain(ledger)

    assert not verify_chain(ledger).is_sound


def test_a_record_of_a_dropped_time_comes_no_second_time(ledger: Database) -> None:
    """Whether the book had it nobody can know; its place is told, so that a person decides."""
    records = history(5)
    booked(ledger, records)
    retain(ledger)
    kept = {one["id"] for one in usage_records_in(ledger, Span())}
    gone = [one for one in records if one["id"] not in kept]

    with ledger.write() as connection:
        again = book(connection, gone)

    assert (again.appended, again.dropped) == ([], list(range(len(gone))))


def test_erasing_takes_the_words_of_kept_totals(ledger: Database) -> None:
    booked(ledger, history(6))
    retain(ledger)
    before = totals_by(ledger, "customer", Span(), Month(ledger, "2026-01"))

    with ledger.write() as connection:
        erase_kept_words(connection, "cus_utc")
    erase_records(ledger, "cus_utc", b"secret", NOW)

    assert totals_by(ledger, "customer", Span(), Month(ledger, "2026-01")) == before
    with ledger.read() as connection:
        users = select(dropped_totals.c.end_user).where(dropped_totals.c.customer == "cus_utc").distinct()
        assert connection.execute(users).scalars().all() == [None]
    assert verify_chain(ledger).is_sound


def test_a_window_or_paid_period_keeps_its_month(ledger: Database) -> None:
    """A customer whose paid period began in a month keeps it while that runs, or waits to be settled."""
    booked(ledger, history(7))
    running = {"subscription_start": at("2026-02-10T00:00:00"), "subscription_until": NOW + 3 * DAY_MS}
    with ledger.write() as connection:
        connection.execute(update(customers).where(customers.c.id == "cus_utc").values(**running))
        connection.execute(update(customers).where(customers.c.id == "cus_samoa").values(ended="{}"))

    retain(ledger)

    assert dropped(ledger) == {"cus_berlin": ["2026-01", "2026-02"], "cus_utc": ["2026-01"]}


def test_months_are_looked_for_once_an_hour(ledger: Database) -> None:
    clock = [NOW]
    retention = Retention(ledger, lambda: clock[0], 62)
    assert retention.turn() == 0
    booked(ledger, history(8))
    assert retention.turn() == 0

    clock[0] += LOOK_MS

    assert retention.turn() > 0


def test_a_day_lies_between_a_mark_and_the_first_deletion(ledger: Database) -> None:
    booked(ledger, history(11))
    assert Retention(ledger, lambda: NOW, 62).turn() > 0

    assert Retention(ledger, lambda: NOW + DAY_MS - 1, None).turn() == 0
    assert Retention(ledger, lambda: NOW + DAY_MS, None).turn() > 0


def test_the_head_is_never_moved(ledger: Database) -> None:
    booked(ledger, history(9))
    with ledger.read() as connection:
        before = connection.execute(select(chains)).all()

    retain(ledger)

    with ledger.read() as connection:
        assert connection.execute(select(chains)).all() == before


def test_windows_and_open_conversations_are_rebuilt_as_before(ledger: Database) -> None:
    """Also where the running sums are emptied after the drop and are made anew from the records that are kept."""
    now = [
        record(500 + number, customer=name, time=NOW - number * 60_000, settled=NOW)
        for number, name in enumerate([*ZONES] * 5)
    ]
    booked(ledger, [*history(10), *now], late_every=None)
    month = at("2026-05-01T00:00:00") - 14 * HOUR_MS

    def hot_state() -> Any:
        windows = {
            name: [one for one in sums if one[0][0] >= month] for name, sums in windows_in(ledger, sorted(ZONES))
        }
        return windows, sorted(conversations_in(ledger, sorted(ZONES), NOW), key=repr)

    before = hot_state()
    assert retain(ledger) > 0
    assert hot_state() == before
    with ledger.write() as connection:
        connection.execute(delete(rollup_read))

    Rollup(ledger).bring_up_to_date(NOW)

    assert hot_state() == before
    assert len(before[0]) == len(ZONES)
