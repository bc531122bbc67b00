"""Claims about what is asked of ``/v1/organization``: OpenAI's parameters, in each way that clients write them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.organization import COSTS, DAY_MS, USAGE, decimal, page, question
from gateway.errors import BadRequest, UnknownParameter
from gateway.ledger.billing.usage_buckets import BucketSum
from tests.late import Library

ORGANIZATION = Library("openai.types.admin.organization")

NOW = 20_500 * DAY_MS + 12 * 3_600_000
START = 20_490 * DAY_MS


def query_of(query: str, kind: Any = USAGE) -> Any:
    return question(kind, query, NOW)


def test_days_are_buckets_from_midnight_and_a_page_has_seven() -> None:
    found = query_of(f"start_time={START // 1000 + 60}")

    assert found.buckets == [START + number * DAY_MS for number in range(7)]
    assert (found.start, found.until) == (START + 60_000, START + 7 * DAY_MS)


def test_a_last_bucket_that_the_end_cuts_counts_nothing_after_the_end() -> None:
    found = query_of(f"start_time={START // 1000}&end_time={START // 1000 + 30 * 3_600}")

    assert found.buckets == [START, START + DAY_MS]
    assert found.until == START + 30 * 3_600_000


def test_a_page_of_an_earlier_request_does_not_go_back_before_the_start() -> None:
    earlier = page(query_of(f"start_time={START // 1000}&limit=1"), [], "cus_a", "USD")["next_page"]

    assert query_of(f"start_time={START // 1000 + 3 * 86_400}&page={earlier}").start == START + 3 * DAY_MS


def test_pages_follow_one_another_to_the_end() -> None:
    query, starts = f"start_time={START // 1000}&limit=4", []
    shown = page(query_of(query), [], "cus_a", "USD")
    starts += [bucket["start_time"] for bucket in shown["data"]]
    while shown["has_more"]:
        shown = page(query_of(f"{query}&page={shown['next_page']}"), [], "cus_a", "USD")
        starts += [bucket["start_time"] for bucket in shown["data"]]

    assert starts == [(START + number * DAY_MS) // 1000 for number in range(11)]
    assert shown["next_page"] is None


@pytest.mark.parametrize(
    "query",
    [
        "group_by=model&group_by=user_id",
        "group_by[]=model&group_by[]=user_id",
        "group_by=model,user_id",
        "group_by%5B%5D=model&group_by%5B%5D=user_id",
    ],
)
def test_lists_are_read_in_each_way_that_clients_write_them(query: str) -> None:
    assert query_of(f"start_time=1&{query}").group_by == ("model", "user_id")
    assert query_of(f"start_time=1&{query}").by == ("model", "end_user")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("", "start_time"),
        ("start_time=x", "start_time"),
        ("start_time=-1", "start_time"),
        ("start_time=99999999999999", "start_time"),
        ("start_time=999999999999", "start_time"),
        ("start_time=5&end_time=5", "end_time"),
        ("start_time=5&start_time=6", "start_time"),
        ("start_time=5&bucket_width=2d", "bucket_width"),
        ("start_time=5&limit=0", "limit"),
        ("start_time=5&limit=32", "limit"),
        ("start_time=5&bucket_width=1m&limit=1441", "limit"),
        ("start_time=5&group_by=line_item", "group_by"),
        ("start_time=5&batch=maybe", "batch"),
        ("start_time=5&page=x", "page"),
        ("start_time=5&" + "&".join(["models=m"] * 101), "models"),
    ],
)
def test_what_is_not_as_it_has_to_be_is_named(query: str, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        query_of(query)

    assert refused.value.param == param


def test_a_parameter_that_a_route_does_not_know_is_named() -> None:
    for query, kind in (("form=pdf", USAGE), ("batch=true", COSTS), ("models=m", COSTS)):
        with pytest.raises(UnknownParameter):
            query_of(f"start_time=5&{query}", kind)


def test_a_page_of_usage_is_one_of_openais() -> None:
    """Its model of the page, read strictly, takes it; what is not grouped by is null."""
    found = query_of(f"start_time={START // 1000}&limit=2&group_by=model,service_tier,project_id,batch")
    sums = [BucketSum(START, ("m1", "t1"), 3, 40, 5, 60, 7), BucketSum(START, ("m1", None), 1, 2, 0, 3, 4)]

    shown = orjson.loads(orjson.dumps(page(found, sums, "cus_a", "USD")))

    ORGANIZATION.UsageCompletionsResponse.model_validate(shown, strict=True)
    first, second = shown["data"]
    assert first["results"][0] == {
        **{"object": "organization.usage.completions.result", "num_model_requests": 3},
        **{"input_tokens": 40, "input_cached_tokens": 5, "output_tokens": 60},
        **{"input_audio_tokens": 0, "output_audio_tokens": 0},
        **{"project_id": "cus_a", "user_id": None, "api_key_id": None, "model": "m1", "batch": False},
        "service_tier": "t1",
    }
    assert second["results"] == []


def test_a_page_of_costs_is_one_of_openais_with_the_exact_amount() -> None:
    found = query_of(f"start_time={START // 1000}&limit=1&group_by=line_item", COSTS)
    sums = [
        BucketSum(START, ("t1", "usage"), 3, 0, 0, 0, 2_073_557),
        BucketSum(START, (None, "credit"), 0, 0, 0, 0, -(2**53)),
    ]

    written = orjson.dumps(page(found, sums, "cus_a", "EUR"))

    shown = orjson.loads(written)
    ORGANIZATION.UsageCostsResponse.model_validate(shown)
    assert [one["line_item"] for one in shown["data"][0]["results"]] == ["t1", "credit"]
    assert shown["data"][0]["results"][0]["amount"] == {"value": 0.002073557, "currency": "eur"}
    assert b'"value":-9007199.254740992' in written


@given(st.integers(-(2**70), 2**70))
def test_an_amount_is_written_exactly(nanousd: int) -> None:
    assert Decimal(decimal(nanousd)) * 10**9 == nanousd
    assert orjson.loads(decimal(nanousd)) is not None
