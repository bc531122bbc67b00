"""Months over REST: closed when nothing can come into them any more, and then the same bytes for ever."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from sqlalchemy import insert

from gateway.admin.api.routes import AdminServices
from gateway.billing.closing import AT_ONCE, CLOSING_S, Closing
from gateway.billing.invoices import Issuer
from gateway.holds.store import redis_keys
from gateway.ledger.book.appender import append, book
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.database import Database
from gateway.ledger.tables import customers, usage_dead_letters
from gateway.ledger.writer import Writer
from tests.gateway.admin.held import hold, release
from tests.gateway.admin.operator import Clock, Operator, fields_of
from tests.gateway.ledger.records import customer_row, record, settle, settled_call

DAY_MS = 86_400_000
OCTOBER_END = 1_793_491_200_000  # 2026-11-01T00:00:00Z
MIDDLE = OCTOBER_END - 15 * DAY_MS
PATIENCE_MS = 900_000 + 2 * 10_000


@pytest.fixture
def clock() -> Clock:
    """The first of October, from which customers are."""
    return Clock(OCTOBER_END - 31 * DAY_MS)


def booked(services: AdminServices, *records: Any) -> None:
    with services.database.write() as connection:
        Watermark(services.redis).rise(book(connection, records))


def call(number: int, customer: str, time: int = MIDDLE, **changes: Any) -> Any:
    return record(number, **{"customer": customer, "time": time, "settled": time + 500, **changes})


async def why(operator: Operator) -> list[str]:
    shown = await operator.post("/admin/periods/2026-10/close")
    return [waiting["why"] for waiting in shown["waiting_for"]]


async def export(operator: Operator, query: str) -> list[str]:
    response = await operator.send("GET", f"/admin/exports?{query}")
    assert response.status_code == 200, response.text
    return [json.loads(line)["id"] for line in response.text.splitlines()]


async def test_a_month_closes_once_no_call_of_it_can_run(operator: Operator, clock: Clock) -> None:
    """Its end, the longest call and two leases have passed."""
    await operator.customer()
    seen = []
    for now in (OCTOBER_END - 1, OCTOBER_END, OCTOBER_END + PATIENCE_MS - 1, OCTOBER_END + PATIENCE_MS):
        clock.ms = now
        before = await operator.get("/admin/periods/2026-10")
        after = await operator.post("/admin/periods/2026-10/close")
        seen.append((before["state"], after["state"], after["customers"], after["closed"]))

    assert seen == [
        ("open", "open", 1, 0),
        ("waiting", "waiting", 1, 0),
        ("waiting", "waiting", 1, 0),
        ("waiting", "closed", 1, 1),
    ]
    assert (await operator.get("/admin/periods/2026-10")) == {**after, "waiting_for": []}


async def test_it_says_what_it_waits_for(operator: Operator, clock: Clock) -> None:
    customer = await operator.customer()
    clock.ms = OCTOBER_END - 1
    first = (await operator.get("/admin/periods/2026-10"))["waiting_for"]
    clock.ms = OCTOBER_END
    second = (await operator.get("/admin/periods/2026-10"))["waiting_for"]
    clock.ms = OCTOBER_END + PATIENCE_MS
    third = (await operator.get("/admin/periods/2026-10"))["waiting_for"]

    assert first == [{"customer": customer, "why": "It ends at 2026-11-01T00:00:00.000Z."}]
    assert second == [{"customer": customer, "why": "Calls of it may run until 2026-11-01T00:15:20.000Z."}]
    assert third == [{"customer": customer, "why": "It can be closed."}]


async def test_a_month_without_customers_is_open(operator: Operator, clock: Clock) -> None:
    """Nothing of it is closed, and a customer that is created later may be in it."""
    clock.ms = OCTOBER_END + DAY_MS
    shown = await operator.post("/admin/periods/2026-10/close")

    assert (shown["state"], shown["customers"], shown["closed"]) == ("open", 0, 0)


async def test_each_customers_month_closes_in_its_own_zone(operator: Operator, clock: Clock) -> None:
    tokyo, berlin = await operator.customer(timezone="Asia/Tokyo"), await operator.customer(timezone="Europe/Berlin")
    clock.ms = OCTOBER_END - 9 * 3_600_000 + PATIENCE_MS
    shown = await operator.post("/admin/periods/2026-10/close")

    assert (shown["state"], shown["closed"]) == ("waiting", 1)
    assert [waiting["customer"] for waiting in shown["waiting_for"]] == [berlin]
    assert (await operator.get(f"/admin/totals?by=day&period=2026-10&customer={tokyo}"))["closed"] is True
    assert (await operator.get("/admin/totals?by=day&period=2026-10"))["closed"] is False


async def test_a_hold_of_the_month_keeps_it_open(operator: Operator, services: AdminServices, clock: Clock) -> None:
    """However long that is over; a hold of the month after does not."""
    customer = await operator.customer()
    clock.ms = OCTOBER_END + DAY_MS
    held = hold(services.redis, customer, OCTOBER_END - 5)
    while_held = await why(operator)
    release(services.redis, held)
    hold(services.redis, customer, OCTOBER_END + 5)

    assert while_held == ["A call of it still holds tokens."]
    assert await why(operator) == []


async def test_the_oldest_of_a_customers_calls_counts(
    operator: Operator, services: AdminServices, clock: Clock
) -> None:
    """Calls of the month after, before and behind it in Redis, do not hide a call of the month."""
    customer = await operator.customer()
    clock.ms = OCTOBER_END + DAY_MS
    for name, admitted in (("req_1", OCTOBER_END + 5), ("req_2", OCTOBER_END - 5), ("req_3", OCTOBER_END + 9)):
        hold(services.redis, customer, admitted, name)

    assert await why(operator) == ["A call of it still holds tokens."]


async def test_records_on_their_way_keep_it_open(operator: Operator, services: AdminServices, clock: Clock) -> None:
    customer = await operator.customer()
    clock.ms = OCTOBER_END + DAY_MS
    settle(services.redis, settled_call(1, customer=customer, time=MIDDLE))
    on_their_way = await why(operator)
    Writer(services.redis, services.database).turn()

    assert on_their_way == ["Records are not in the ledger yet."]
    assert await why(operator) == []
    assert await export(operator, "period=2026-10") == ["call-000001"]


async def test_records_set_aside_keep_it_open(operator: Operator, services: AdminServices, clock: Clock) -> None:
    customer = await operator.customer()
    clock.ms = OCTOBER_END + DAY_MS
    row = {
        "stream": redis_keys.usage(redis_keys.bucket_of(customer)),
        "entry": "1-0",
        "reason": "charge is none",
        "body": "{}",
    }
    with services.database.write() as connection:
        connection.execute(insert(usage_dead_letters), [row])

    assert (await why(operator))[0].startswith("Records are set aside")


async def test_a_redis_behind_the_ledger_keeps_it_open(operator: Operator, database: Database, clock: Clock) -> None:
    """What it would tell of holds is of the past."""
    customer = await operator.customer()
    clock.ms = OCTOBER_END + DAY_MS
    append(database, [call(1, customer)])

    assert await why(operator) == ["Redis is behind the ledger and is being rebuilt."]


async def test_months_close_one_after_another(operator: Operator, services: AdminServices, clock: Clock) -> None:
    customer = await operator.customer()
    booked(services, call(1, customer, MIDDLE - 40 * DAY_MS))
    clock.ms = OCTOBER_END + DAY_MS
    refused = await why(operator)
    await operator.post("/admin/periods/2026-09/close")

    assert refused == ["2026-09 is open and has records."]
    assert (await operator.post("/admin/periods/2026-10/close"))["state"] == "waiting"


async def test_a_closed_month_is_the_same_bytes_for_ever(
    operator: Operator, services: AdminServices, clock: Clock
) -> None:
    """Whatever comes later, of a call of that month or by hand: it is in the month in which it is written."""
    customer = await operator.customer()
    booked(services, call(1, customer), call(2, customer, OCTOBER_END - 1))
    clock.ms = OCTOBER_END + PATIENCE_MS
    await operator.post("/admin/periods/2026-10/close")
    paths = [f"/admin/totals?by={by}&period=2026-10" for by in ("day", "customer", "tier", "kind", "end_user")]
    paths += [f"/admin/exports?format={form}&period=2026-10" for form in ("jsonl", "csv")]
    paths += [f"/admin/exports?to={OCTOBER_END}", f"/admin/totals?by=key&to={OCTOBER_END}"]
    before = [await operator.send("GET", path) for path in paths]

    booked(services, call(3, customer), call(4, customer, OCTOBER_END - 1, kind="correction", corrects="call-000002"))
    await operator.post(
        f"/admin/customers/{customer}/credits", {"amount_nanousd": 5, "reason": "x", "record": "call-000001"}
    )
    await operator.patch(f"/admin/customers/{customer}", {"timezone": "Asia/Tokyo"})
    after = [await operator.send("GET", path) for path in paths]

    assert [answer.status_code for answer in before] == [200] * len(paths)
    assert [answer.content for answer in after] == [answer.content for answer in before]
    assert {answer.headers.get("x-tokencap-closed") for answer in after} == {"true", None}
    kinds = (await operator.get("/admin/totals?by=kind&period=2026-11"))["data"]
    assert [(one["kind"], one["calls"], one["charge_nanousd"]) for one in kinds] == [
        *(("correction", 0, 5_000), ("credit", 0, -5), ("usage", 1, 5_000)),
    ]


async def test_what_is_open_is_exported_only_where_that_is_said(operator: Operator, services: AdminServices) -> None:
    customer = await operator.customer()
    booked(services, call(1, customer))
    for query in ("period=2026-10", "from=2026-10-01&to=2026-11-01", "to=2100-01-01", "from=2026-10-01", ""):
        refusal = await operator.refused("GET", f"/admin/exports?{query}")
        answer = await operator.send("GET", f"/admin/exports?{query}&open=true")

        assert (refusal["status"], refusal["code"]) == (409, "period_open")
        assert (answer.status_code, answer.headers["x-tokencap-closed"]) == (200, "false")
        assert len(answer.text.splitlines()) == 1


async def test_an_export_has_only_what_is_asked_for(operator: Operator, services: AdminServices) -> None:
    acme, other = await operator.customer(), await operator.customer()
    booked(
        services,
        *(call(1, acme), call(2, other, tier="t9"), call(3, acme, key_id="key_2"), call(4, acme, end_user="bob")),
        call(5, acme, kind="correction", corrects="call-000001"),
    )
    found = {
        query: await export(operator, f"period=2026-10&open=true&{query}")
        for query in (f"customer={other}", "tier=t9", "key=key_2", "end_user=bob", "kind=correction", "kind=fee")
    }

    assert [[one[-1] for one in ids] for ids in found.values()] == [["2"], ["2"], ["3"], ["4"], ["5"], []]


async def test_closing_is_in_the_audit(operator: Operator, clock: Clock) -> None:
    await operator.customer()
    clock.ms = OCTOBER_END + PATIENCE_MS
    for _ in range(2):
        await operator.post("/admin/periods/2026-10/close")

    rows = (await operator.get("/admin/audit?action=period.close"))["data"]
    assert [(row["target"], row["before"], row["after"]) for row in rows] == [("2026-10", {"closed": 0}, {"closed": 1})]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        *(("/admin/periods/2026-13", "period"), ("/admin/totals?by=colour", "by"), ("/admin/totals", "by")),
        *(("/admin/totals?by=day&period=October", "period"), ("/admin/exports?period=2026-10&to=2026-11-01", "period")),
        *(("/admin/exports?kind=gift", "kind"), ("/admin/exports?open=perhaps", "open")),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(operator: Operator, path: str, field: str) -> None:
    assert fields_of(await operator.refused("GET", path)) == {field}


async def test_nothing_is_closed_without_redis(operator_without_redis: Operator) -> None:
    await operator_without_redis.send("POST", "/admin/customers", {"name": "Acme"})

    assert (await operator_without_redis.refused("POST", "/admin/periods/2026-10/close"))["code"] == (
        "metering_unavailable"
    )


def test_closing_ends_in_time(services: AdminServices, clock: Clock) -> None:
    """One call closes for some seconds at most; the next one goes on."""
    rows = [customer_row(f"cus_{number:04d}") for number in range(AT_ONCE * 3 // 2)]
    with services.database.write() as connection:
        connection.execute(insert(customers), rows)
    clock.ms = OCTOBER_END + PATIENCE_MS
    calls = count()
    closing = Closing(
        services.database,
        services.redis,
        Issuer((), (), "", "USD"),
        patience_ms=PATIENCE_MS,
        now_ms=clock,
        monotonic=lambda: next(calls) * 2 * CLOSING_S / AT_ONCE,
    )

    states = [closing.close("2026-10")]
    while states[-1].name != "closed":
        states.append(closing.close("2026-10"))

    assert [state.name for state in states] == [*["waiting"] * (len(states) - 1), "closed"]
    assert 3 <= len(states) < 9
    assert [state.closed for state in states] == sorted({state.closed for state in states})
    assert {waiting.why for waiting in states[0].waiting_for} <= {"It can be closed.", "Its invoice is not final."}
