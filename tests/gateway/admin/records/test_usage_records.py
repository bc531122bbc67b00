"""Usage over REST: what happened before the question is in the answer, page by page, and as a file."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from gateway.admin.api.routes import AdminServices
from gateway.admin.records.usage_records import UsageShown
from gateway.ledger.book.appender import append
from gateway.ledger.book.chain import link
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span, usage_records_in
from gateway.ledger.read.read_your_writes import wait_until_booked
from gateway.ledger.writer import Writer
from pricing.usage import FIELDS
from tests.gateway.admin.operator import Operator, fields_of
from tests.gateway.ledger.records import NOON, record, settle, settled_call


@pytest.fixture
def booked(database: Database) -> list[Any]:
    """Five calls a millisecond apart, the last one of another customer."""
    calls = [record(number, prepaid_nanousd=0) for number in range(1, 5)]
    return append(database, [*calls, record(5, customer="cus_other", prepaid_nanousd=0)])


@pytest.fixture
def writing(services: AdminServices) -> Iterator[None]:
    """A bookkeeper at work."""
    stop = threading.Event()
    writer = Writer(services.redis, services.database)

    def work() -> None:
        while not stop.wait(0.02):
            writer.turn()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


async def test_a_record_is_shown_as_the_book_has_it(operator: Operator, booked: list[Any]) -> None:
    page = await operator.get("/admin/usage")

    assert page == {"data": booked, "next_cursor": None}
    assert list(page["data"][0]) == list(FIELDS) == list(UsageShown.model_fields)


async def test_records_come_page_by_page(operator: Operator, booked: list[Any]) -> None:
    first = await operator.get("/admin/usage?limit=3")
    second = await operator.get(f"/admin/usage?limit=3&cursor={first['next_cursor']}")

    assert first["data"] + second["data"] == booked
    assert len(first["data"]) == 3
    assert second["next_cursor"] is None


@pytest.mark.usefixtures("booked")
async def test_records_are_chosen_by_customer_and_time(operator: Operator) -> None:
    async def numbers(query: str) -> list[int]:
        return [row["time"] - NOON for row in (await operator.get(f"/admin/usage?{query}"))["data"]]

    assert await numbers("customer=cus_other") == [5]
    assert await numbers("customer=cus_nobody") == []
    assert await numbers(f"from={NOON + 2}&to={NOON + 4}") == [2, 3]
    assert await numbers("from=2026-01-01T12:00:00.004Z") == [4, 5]
    assert await numbers("to=2026-01-01T13:00:00.002%2B01:00&customer=cus_acme") == [1]


async def test_records_are_chosen_by_end_user(operator: Operator, database: Database) -> None:
    """A record that names one says so, and has the hash of just what is shown; the others do not have the field."""
    ann, bob, nobody = append(database, [record(1), record(2, end_user="bob o'c + 1"), record(3, end_user=None)])

    assert (await operator.get("/admin/usage?end_user=ann"))["data"] == [ann]
    assert (await operator.get("/admin/usage?end_user=bob%20o'c%20%2B%201"))["data"] == [bob]
    assert (await operator.get("/admin/usage?end_user=ann&customer=cus_other"))["data"] == []
    assert (await operator.get("/admin/usage"))["data"] == [ann, bob, nobody]
    assert "end_user" not in nobody
    assert all(link(shown["prev_hash"], shown) == shown for shown in (ann, bob, nobody))


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *(("limit=1001", "limit"), ("limit=0", "limit"), ("from=yesterday", "from"), ("to=-1", "to")),
        *(("cursor=nonsense", "cursor"), ("cursor=W10", "cursor"), ("customer=%00", "customer")),
        *(("end_user=%00", "end_user"), ("end_user=", "end_user"), (f"end_user={'x' * 257}", "end_user")),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(operator: Operator, query: str, field: str) -> None:
    assert fields_of(await operator.refused("GET", f"/admin/usage?{query}")) == {field}


@pytest.mark.usefixtures("writing")
@pytest.mark.parametrize("query", ["", "?customer=cus_acme"])
async def test_what_was_settled_before_the_question_is_in_the_answer(
    operator: Operator, services: AdminServices, query: str
) -> None:
    for number in range(1, 20):
        settle(services.redis, settled_call(number))

        page = await operator.get(f"/admin/usage{query}")

        assert page["data"][-1]["id"] == settled_call(number)["id"]


async def test_usage_without_redis_is_refused(operator_without_redis: Operator) -> None:
    for path in ("/admin/usage", "/admin/exports?open=true"):
        assert (await operator_without_redis.refused("GET", path))["code"] == "metering_unavailable"


async def test_an_export_is_a_file_of_the_records(operator: Operator, booked: list[Any]) -> None:
    response = await operator.send("GET", "/admin/exports?open=true&format=jsonl&from=2026-01-01&to=2026-02-01")

    assert [json.loads(line) for line in response.text.splitlines()] == booked
    assert response.headers["content-type"] == "application/jsonl"
    expected = 'attachment; filename="usage_20260101T000000000Z_20260201T000000000Z.jsonl"'
    assert response.headers["content-disposition"] == expected


async def test_an_export_may_be_csv(operator: Operator, booked: list[Any]) -> None:
    response = await operator.send("GET", f"/admin/exports?open=true&format=csv&to={NOON + 3}")

    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["id"] for row in rows] == [each["id"] for each in booked[:2]]
    assert response.headers["content-type"].startswith("text/csv")
    assert "usage_start_20260101T120000003Z.csv" in response.headers["content-disposition"]


async def test_an_export_of_nothing_is_an_empty_file(operator: Operator) -> None:
    response = await operator.send("GET", "/admin/exports?open=true")

    assert (response.status_code, response.content) == (200, b"")


async def test_an_unknown_format_is_refused_naming_those_there_are(operator: Operator) -> None:
    refusal = await operator.refused("GET", "/admin/exports?format=xlsx")

    assert fields_of(refusal) == {"format"}
    assert "jsonl" in refusal["detail"]


@pytest.mark.usefixtures("writing")
async def test_an_export_holds_what_was_settled_before_it(operator: Operator, services: AdminServices) -> None:
    settle(services.redis, settled_call(1))

    response = await operator.send("GET", "/admin/exports?open=true")

    exported = [json.loads(line) for line in response.text.splitlines()]
    assert exported == list(usage_records_in(services.database, Span()))
    assert len(exported) == 1


def test_an_answer_waits_for_the_last_record_on_its_way(valkey: redis.Redis) -> None:
    """Not only for the first: it is booked, the one behind it is not."""
    stream = settle(valkey, settled_call(1))
    first = valkey.xrevrange(stream, count=1)[0][0]
    settle(valkey, settled_call(2))
    seconds = iter(range(10))

    was_booked = wait_until_booked(
        valkey, within_s=3, clock=lambda: next(seconds), pause=lambda _: valkey.xdel(stream, first)
    )

    assert was_booked is False
