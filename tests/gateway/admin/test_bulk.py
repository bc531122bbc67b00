"""Many customers at once: all of them or none, with new keys and with keys that they have from elsewhere."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from tests.gateway.admin.operator import Operator, fields_of

BULK = "/admin/customers/bulk"
ELSEWHERE = "sk-live-4f1b9c77d2e0a853"


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


async def names(operator: Operator) -> list[str]:
    return [one["name"] for one in (await operator.get("/admin/customers"))["data"]]


async def test_customers_are_created_in_order_with_their_keys(operator: Operator) -> None:
    asked = [{"name": f"Customer {place}", "keys": [{"name": "production"}, {}]} for place in range(3)]
    made = (await operator.post(BULK, {"customers": asked}))["data"]

    assert [one["customer"]["name"] for one in made] == ["Customer 0", "Customer 1", "Customer 2"]
    keys = [key["key"] for one in made for key in one["keys"]]
    assert len(set(keys)) == 6
    assert all(key.startswith("tc-") for key in keys)
    listed = await operator.get(f"/admin/customers/{made[0]['customer']['id']}/keys")
    assert {key["name"] for key in listed["data"]} == {"production", None}


async def test_one_that_cannot_be_leaves_none_behind(operator: Operator) -> None:
    asked = [{"name": "First", "external_id": "crm-1"}, {"name": "Second", "external_id": "crm-1"}]
    refused = await operator.refused("POST", BULK, {"customers": asked})
    unsold = await operator.refused("POST", BULK, {"customers": [{"name": "Third"}, {"name": "x", "tier": "gold"}]})

    assert (refused["status"], refused["code"]) == (409, "already_exists")
    assert refused["detail"].startswith("customers.1: ")
    assert fields_of(unsold) == {"customers.1"}
    assert await names(operator) == []


async def test_repeating_it_makes_nothing_twice_and_shows_no_key_again(operator: Operator) -> None:
    asked: dict[str, Any] = {"customers": [{"name": "Acme", "keys": [{}]}]}
    first = await operator.post(BULK, asked, Idempotency_Key="once")
    again = await operator.post(BULK, asked, Idempotency_Key="once")

    assert again["data"][0]["customer"] == first["data"][0]["customer"]
    assert first["data"][0]["keys"][0]["key"] is not None
    assert again["data"][0]["keys"][0]["key"] is None
    assert await names(operator) == ["Acme"]


async def test_what_was_erased_is_in_no_kept_answer_either(operator: Operator) -> None:
    asked = {"customers": [{"name": "Acme"}, {"name": "Other"}]}
    first = await operator.post(BULK, asked, Idempotency_Key="once")
    await operator.delete(f"/admin/customers/{first['data'][0]['customer']['id']}?erase=true")
    again = await operator.post(BULK, asked, Idempotency_Key="once")

    assert [one["customer"]["name"] for one in again["data"]] == ["", "Other"]


async def test_a_key_from_elsewhere_is_taken_over_by_its_hash(operator: Operator) -> None:
    key = {"name": "old", "sha256": digest(ELSEWHERE), "prefix": "sk-live-4f1b"}
    [made] = (await operator.post(BULK, {"customers": [{"name": "Acme", "keys": [key]}]}))["data"]
    twice = await operator.refused("POST", BULK, {"customers": [{"name": "Other", "keys": [key]}]})

    assert (made["keys"][0]["prefix"], made["keys"][0]["key"]) == ("sk-live-4f1b", None)
    assert (twice["status"], twice["code"]) == (409, "already_exists")
    audited = (await operator.get("/admin/audit?action=key.import"))["data"]
    assert [row["target"] for row in audited] == [made["keys"][0]["key_id"]]


async def test_a_key_is_imported_whole_or_not_at_all(operator: Operator) -> None:
    wrong: list[dict[str, Any]] = [
        {"sha256": digest(ELSEWHERE)},
        {"prefix": "sk-live-4f1b"},
        {"sha256": "abc", "prefix": "sk-"},
        {"sha256": digest(ELSEWHERE).upper(), "prefix": "sk-"},
        {"sha256": digest(ELSEWHERE), "prefix": "tc-00-abc"},
    ]
    for key in wrong:
        refused = await operator.refused("POST", BULK, {"customers": [{"name": "Acme", "keys": [key]}]})
        assert refused["status"] == 422
    assert await names(operator) == []
