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
    rows = [{"name": f"Customer {place}", "keys": [{"name": "production"}, {}]} for place in range(3)]
    created = (await operator.post(BULK, {"customers": rows}))["data"]

    assert [one["customer"]["name"] for one in created] == ["Customer 0", "Customer 1", "Customer 2"]
    keys = [key["key"] for one in created for key in one["keys"]]
    assert len(set(keys)) == 6
    assert all(key.startswith("tc-") for key in keys)
    listed = await operator.get(f"/admin/customers/{created[0]['customer']['id']}/keys")
    assert {key["name"] for key in listed["data"]} == {"production", None}


async def test_one_that_cannot_be_leaves_none_behind(operator: Operator) -> None:
    rows = [{"name": "First", "external_id": "crm-1"}, {"name": "Second", "external_id": "crm-1"}]
    refused = await operator.refused("POST", BULK, {"customers": rows})
    unsold = await operator.refused("POST", BULK, {"customers": [{"name": "Third"}, {"name": "x", "tier": "gold"}]})

    assert (refused["status"], refused["code"]) == (409, "already_exists")
    assert refused["detail"].startswith("customers.1: ")
    assert fields_of(unsold) == {"customers.1"}
    assert await names(operator) == []


async def test_repeating_it_makes_nothing_twice_and_shows_no_key_again(operator: Operator) -> None:
    rows: dict[str, Any] = {"customers": [{"name": "Acme", "keys": [{}]}]}
    first = await operator.post(BULK, rows, Idempotency_Key="once")
    again = await operator.post(BULK, rows, Idempotency_Key="once")

    assert again["data"][0]["customer"] == first["data"][0]["customer"]
    assert first["data"][0]["keys"][0]["key"] is not None
    assert again["data"][0]["keys"][0]["key"] is None
    assert await names(operator) == ["Acme"]


async def test_what_was_erased_is_in_no_kept_answer_either(operator: Operator) -> None:
    rows = {"customers": [{"name": "Acme"}, {"name": "Other"}]}
    first = await operator.post(BULK, rows, Idempotency_Key="once")
    await operator.delete(f"/admin/customers/{first['data'][0]['customer']['id']}?erase=true")
    again = await operator.post(BULK, rows, Idempotency_Key="once")

    assert [one["customer"]["name"] for one in again["data"]] == ["", "Other"]


async def test_a_key_from_elsewhere_is_taken_over_by_its_hash(operator: Operator) -> None:
    key = {"name": "old", "sha256": digest(ELSEWHERE), "prefix": "sk-live-4f1b"}
    [created] = (await operator.post(BULK, {"customers": [{"name": "Acme", "keys": [key]}]}))["data"]
    twice = await operator.refused("POST", BULK, {"customers": [{"name": "Other", "keys": [key]}]})

    assert (created["keys"][0]["prefix"], created["keys"][0]["key"]) == ("sk-live-4f1b", None)
    assert (twice["status"], twice["code"]) == (409, "already_exists")
    audited = (await operator.get("/admin/audit?action=key.import"))["data"]
    assert [row["target"] for row in audited] == [created["keys"][0]["key_id"]]


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


def upsert(*customers: dict[str, Any]) -> dict[str, Any]:
    return {"upsert": True, "customers": list(customers)}


async def test_who_is_there_is_changed_in_what_is_said_and_gets_the_keys_that_it_lacks(operator: Operator) -> None:
    """By its external_id; what is not said stays, and a key is the customer's by its name and how many there are of it."""
    first = {"name": "Acme", "external_id": "crm-1", "timezone": "Europe/Berlin", "keys": [{"name": "production"}, {}]}
    [created] = (await operator.post(BULK, upsert(first)))["data"]
    later = {"name": "Acme Ltd", "external_id": "crm-1", "keys": [{"name": "production"}, {}, {"name": "test"}]}
    [changed] = (await operator.post(BULK, upsert(later)))["data"]
    [again] = (await operator.post(BULK, upsert(later)))["data"]

    assert [one["state"] for one in (created, changed, again)] == ["created", "changed", "unchanged"]
    assert changed["customer"] == created["customer"] | {"name": "Acme Ltd"} == again["customer"]
    assert [key["key"] is not None for key in changed["keys"]] == [False, False, True]
    assert [key["key_id"] for key in changed["keys"][:2]] == [key["key_id"] for key in created["keys"]]
    assert again["keys"] == [key | {"key": None} for key in changed["keys"]]
    assert len((await operator.get(f"/admin/customers/{created['customer']['id']}/keys"))["data"]) == 3
    changes = (await operator.get("/admin/audit?action=customer.change"))["data"]
    assert [row["after"] for row in changes] == [{"name": "Acme Ltd"}]


async def test_who_has_no_id_is_known_by_its_row(operator: Operator) -> None:
    one = {"name": "Acme", "row": "line 1", "keys": [{}]}
    [created] = (await operator.post(BULK, upsert(one)))["data"]
    again = (await operator.post(BULK, upsert(one, {"name": "Beta", "row": "line 2"})))["data"]
    twice = await operator.refused("POST", BULK, upsert(one, one))

    assert [each["state"] for each in again] == ["unchanged", "created"]
    assert again[0]["customer"] == created["customer"]
    assert again[0]["keys"][0] == created["keys"][0] | {"key": None}
    assert twice["detail"] == "customers.1: The row 'line 1' is there twice."
    assert sorted(await names(operator)) == ["Acme", "Beta"]


async def test_who_was_deleted_stays_so_and_gets_no_key(operator: Operator) -> None:
    one = {"name": "Acme", "external_id": "crm-1"}
    [created] = (await operator.post(BULK, upsert(one)))["data"]
    await operator.delete(f"/admin/customers/{created['customer']['id']}")
    [again] = (await operator.post(BULK, upsert({**one, "name": "Other", "keys": [{}]})))["data"]

    assert again["state"] == "unchanged"
    assert again["customer"] == created["customer"] | {"status": "deleted"}
    assert again["keys"] == []


async def test_a_key_from_elsewhere_is_its_customers_the_second_time_and_nobody_elses(operator: Operator) -> None:
    key = {"sha256": digest(ELSEWHERE), "prefix": "sk-live-4f1b"}
    one = {"name": "Acme", "external_id": "crm-1", "keys": [key]}
    [created], [again] = [(await operator.post(BULK, upsert(one)))["data"] for _ in range(2)]
    refused = await operator.refused("POST", BULK, upsert({"name": "Other", "external_id": "crm-2", "keys": [key]}))

    assert again == created | {"state": "unchanged"}
    assert (refused["status"], refused["code"]) == (409, "already_exists")


async def test_what_cannot_be_changes_nobody(operator: Operator) -> None:
    await operator.post(BULK, upsert({"name": "Acme", "external_id": "crm-1"}))
    wrong = upsert({"name": "New name", "external_id": "crm-1"}, {"name": "x", "external_id": "crm-2", "tier": "gold"})
    refused = await operator.refused("POST", BULK, wrong)

    assert fields_of(refused) == {"customers.1"}
    assert await names(operator) == ["Acme"]
