"""Old months are dropped while calls run, and the hot state is rebuilt afterwards: no cap, quota, included call or fee changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from gateway.billing.invoices import finalised
from gateway.billing.retention import DAY_MS, Retention
from gateway.clock import now_ms
from gateway.holds.store.clients import connect
from gateway.ledger.billing.closings import close, month_at, month_before, months_of
from gateway.ledger.billing.final_invoices import Terms
from gateway.ledger.book.appender import book
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.database import Database
from gateway.ledger.tables import usage_records
from tests.buckets import records_waiting
from tests.gateway.admin.billing.test_invoices import ISSUER, call
from tests.gateway.cli.commands import tokencap
from tests.loop.rig import Rig, Sold, rig
from tests.waiting import until

OLD = 1_300
"""Records of the old month: more than the bookkeeper deletes in one turn."""
RETENTION_DAYS = 62
TIER = {
    **{"conversation_tokens_max": 300, "period_tokens_max": 100_000, "price_nanousd": 7, "spend_nanousd_max": 10**9},
    **{"period_price_nanousd": 100, "included_conversations": 3},
}


@pytest.fixture
def loop(valkey_url: str, ledger_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(valkey_url, ledger_url, tmp_path / "data", retention_days=RETENTION_DAYS) as running:
        running.tier("monthly", **TIER)
        yield running


def say(loop: Rig, who: Sold, conversation: str, **limits: int) -> httpx.Response:
    body = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], **limits}
    headers = {**who.headers, "x-conversation-id": conversation}
    answer = httpx.post(f"{loop.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def with_old_months(loop: Rig, database: Database, who: Sold) -> None:
    """Book records of an old month, and close and invoice that month and the months after it."""
    now = now_ms()
    names = [month_before(month_at(now, "UTC"))]
    for _ in range(4):
        names.append(month_before(names[-1]))
    [old] = months_of(database, names[-1], who.id)
    with database.write() as connection, connect(loop.settings.redis_url) as client:
        records = [call(n, who.id, "m1", time=old.start + n, settled=old.start + n + 9) for n in range(OLD)]
        Watermark(client).rise(book(connection, records))
    seal(database)
    for name in reversed(names):
        with database.write() as connection:
            close(connection, list(months_of(database, name, who.id)), now)
        [closed] = months_of(database, name, who.id)
        finalised(database, closed, ISSUER, Terms(database), now_ms)


def seal(database: Database) -> None:
    while Sealer(database, now_ms).turn(all_of_it=True):
        pass


def old_rows(database: Database, who: Sold) -> int:
    book = usage_records.c
    late = select(func.count()).where(book.customer == who.id, book.time < now_ms() - 90 * DAY_MS)
    with database.read() as connection:
        return connection.execute(late).scalar_one()


def standing(loop: Rig, who: Sold) -> dict[str, Any]:
    """Return what a customer has used of everything that is limited or paid."""
    until(lambda: not _waiting(loop))
    fees = loop.admin.get("/admin/totals", params={"by": "kind", "customer": who.id}).json()["data"]
    return {"account": loop.account(who), "totals": fees}


def _waiting(loop: Rig) -> int:
    loop.until_nothing_is_held()
    with connect(loop.settings.redis_url) as client:
        return records_waiting(client)


def test_months_are_dropped_while_calls_run_and_a_rebuild_changes_nothing(loop: Rig, tmp_path: Path) -> None:
    who, calls = loop.customer("monthly"), []
    with closing(Database(loop.settings.ledger_url)) as database:
        calls.append(say(loop, who, "one", max_tokens=20))
        with_old_months(loop, database, who)
        calls.append(say(loop, who, "two", max_tokens=20))
        until(lambda: not _waiting(loop))
        seal(database)
        until(lambda: Retention(database, lambda: now_ms() - 2 * DAY_MS, RETENTION_DAYS).turn())
        while old_rows(database, who):
            calls.append(say(loop, who, f"talk-{len(calls) % 7}", max_tokens=1))
        calls.append(say(loop, who, "one", max_tokens=20))

        before = standing(loop, who)
        ids = {answer.headers["x-request-id"] for answer in calls}
        assert {one["id"] for one in loop.usage(who) if one["kind"] == "usage"} == ids
        settings = {"redis_url": loop.settings.redis_url, "database_url": loop.settings.ledger_url}
        for words in (("verify",), ("recover",), ("verify",)):
            done = tokencap(tmp_path / "data", "ledger", *words, **settings)
            assert done.returncode == 0, done.stdout + done.stderr
        after = standing(loop, who)

    assert after == before
    assert f"{OLD} " in done.stdout
    assert "dropped" in done.stdout
    used = sum(one["billed_output_tokens"] for one in loop.usage(who) if one["conversation"] == "one")
    cap = say(loop, who, "one").headers["x-tokencap-cap"]
    assert int(cap) == TIER["conversation_tokens_max"] - used
