"""API keys: shown once, kept as a hash, let in and shut out at once."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import select

from gateway.admin.api.routes import AdminServices
from gateway.catalog.projector import project_pending
from gateway.clock import written
from gateway.holds.store import redis_keys
from gateway.ledger.database import Database
from gateway.ledger.tables import metadata
from tests.gateway.admin.operator import NOON, Clock, Hot, Operator, fields_of

HOUR_MS = 3_600_000


@pytest.fixture
async def customer(operator: Operator) -> str:
    return await operator.customer()


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


async def test_a_key_is_let_in_at_once(operator: Operator, customer: str, hot: Hot) -> None:
    created = await operator.post(f"/admin/customers/{customer}/keys", {"name": "production"})

    assert created["key"].startswith(f"tc-{redis_keys.bucket_of(customer)}-")
    assert created["prefix"] == created["key"][:12]
    assert (created["name"], created["created"], created["expires"]) == ("production", "2026-11-01T12:00:00.000Z", None)
    assert hot.key(digest_of(created["key"])) == {"customer": customer, "key_id": created["key_id"], "expires": ""}


async def test_a_keys_text_is_shown_once_and_stored_nowhere(
    operator: Operator, customer: str, hot: Hot, database: Database
) -> None:
    created = await operator.post(f"/admin/customers/{customer}/keys", Idempotency_Key="once")
    rotated = await operator.post(f"/admin/keys/{created['key_id']}/rotate", Idempotency_Key="once")

    listed = await operator.get(f"/admin/customers/{customer}/keys")
    audited = await operator.get("/admin/audit")
    with database.read() as connection:
        stored = repr([connection.execute(select(table)).all() for table in metadata.sorted_tables])
    in_redis = repr([(name, hot.redis.hgetall(name)) for name in hot.redis.scan_iter(match="*:key:*", count=1000)])
    for key in (created["key"], rotated["key"]):
        assert digest_of(key) in stored
        for place in (repr(listed), repr(audited), stored, in_redis):
            assert key not in place


async def test_keys_are_listed_in_the_order_they_were_made(operator: Operator, customer: str, clock: Clock) -> None:
    created = []
    for _ in range(3):
        created.append((await operator.post(f"/admin/customers/{customer}/keys"))["key_id"])
        clock.ms += 1

    first = await operator.get(f"/admin/customers/{customer}/keys?limit=2")
    second = await operator.get(f"/admin/customers/{customer}/keys?limit=2&cursor={first['next_cursor']}")

    assert [key["key_id"] for key in first["data"] + second["data"]] == created
    assert second["next_cursor"] is None
    assert "key" not in first["data"][0]


@pytest.mark.parametrize("expires", ["2026-11-01T13:00:00Z", NOON + HOUR_MS])
async def test_a_key_may_expire(operator: Operator, customer: str, hot: Hot, expires: str | int) -> None:
    created = await operator.post(f"/admin/customers/{customer}/keys", {"expires": expires})

    found = hot.key(digest_of(created["key"]))
    assert created["expires"] == "2026-11-01T13:00:00.000Z"
    assert found is not None
    assert found["expires"] == str(NOON + HOUR_MS)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"expires": "2026-11-01T12:00:00Z"}, "expires"),
        ({"expires": "tomorrow"}, "expires"),
        ({"expires": 1.5}, "expires"),
        ({"name": ""}, "name"),
        ({"key": "tc-00-mine"}, "key"),
    ],
)
async def test_a_key_refuses_what_it_does_not_understand(
    operator: Operator, customer: str, body: dict[str, object], field: str
) -> None:
    refusal = await operator.refused("POST", f"/admin/customers/{customer}/keys", body)

    assert fields_of(refusal) == {field}
    assert "mine" not in repr(refusal)


async def test_a_revoked_key_is_shut_out_at_once(operator: Operator, customer: str, hot: Hot) -> None:
    created = await operator.post(f"/admin/customers/{customer}/keys")

    await operator.delete(f"/admin/keys/{created['key_id']}")
    await operator.delete(f"/admin/keys/{created['key_id']}")

    listed = (await operator.get(f"/admin/customers/{customer}/keys"))["data"]
    audited = (await operator.get(f"/admin/audit?target={created['key_id']}"))["data"]
    assert hot.key(digest_of(created["key"])) is None
    assert [key["revoked"] for key in listed] == ["2026-11-01T12:00:00.000Z"]
    assert [row["action"] for row in audited] == ["key.revoke", "key.create"]


async def test_rotating_makes_a_new_key_and_shuts_out_the_old_one(operator: Operator, customer: str, hot: Hot) -> None:
    old = await operator.post(f"/admin/customers/{customer}/keys", {"name": "production"})

    new = await operator.post(f"/admin/keys/{old['key_id']}/rotate")

    assert hot.key(digest_of(old["key"])) is None
    assert hot.key(digest_of(new["key"])) is not None
    assert (new["name"], new["replaces"], new["expires"]) == ("production", old["key_id"], None)
    assert new["key_id"] != old["key_id"]


async def test_a_rotated_key_may_work_a_while_longer(operator: Operator, customer: str, hot: Hot) -> None:
    old = await operator.post(f"/admin/customers/{customer}/keys")

    await operator.post(f"/admin/keys/{old['key_id']}/rotate", {"overlap_s": 60})

    found = hot.key(digest_of(old["key"]))
    listed = (await operator.get(f"/admin/customers/{customer}/keys"))["data"]
    shown = next(key for key in listed if key["key_id"] == old["key_id"])
    assert found is not None
    assert found["expires"] == str(NOON + 60_000)
    assert (shown["expires"], shown["revoked"]) == (written(NOON + 60_000), None)


async def test_an_overlap_never_lets_a_key_outlive_its_own_expiry(operator: Operator, customer: str, hot: Hot) -> None:
    old = await operator.post(f"/admin/customers/{customer}/keys", {"expires": NOON + 10_000})

    await operator.post(f"/admin/keys/{old['key_id']}/rotate", {"overlap_s": 60})

    found = hot.key(digest_of(old["key"]))
    assert found is not None
    assert found["expires"] == str(NOON + 10_000)


async def test_a_rotated_key_lives_as_long_again(operator: Operator, customer: str, clock: Clock) -> None:
    old = await operator.post(f"/admin/customers/{customer}/keys", {"expires": NOON + HOUR_MS})
    clock.ms = NOON + HOUR_MS - 1

    new = await operator.post(f"/admin/keys/{old['key_id']}/rotate")

    assert new["expires"] == written(clock.ms + HOUR_MS)


async def test_a_revoked_key_cannot_be_rotated(operator: Operator, customer: str) -> None:
    created = await operator.post(f"/admin/customers/{customer}/keys")
    await operator.delete(f"/admin/keys/{created['key_id']}")

    refusal = await operator.refused("POST", f"/admin/keys/{created['key_id']}/rotate")

    assert (refusal["status"], refusal["code"]) == (409, "key_revoked")


@pytest.mark.parametrize("overlap_s", [-1, 1.5, "60", 10**9])
async def test_an_overlap_is_a_whole_number_of_seconds_up_to_a_month(
    operator: Operator, customer: str, overlap_s: object
) -> None:
    created = await operator.post(f"/admin/customers/{customer}/keys")

    refusal = await operator.refused("POST", f"/admin/keys/{created['key_id']}/rotate", {"overlap_s": overlap_s})

    assert fields_of(refusal) == {"overlap_s"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/admin/keys/key_none"),
        ("DELETE", "/admin/keys/%00"),
        ("POST", "/admin/keys/key_none/rotate"),
        ("POST", "/admin/customers/cus_none/keys"),
        ("GET", "/admin/customers/cus_none/keys"),
    ],
)
async def test_what_does_not_exist_is_not_found(operator: Operator, method: str, path: str) -> None:
    assert (await operator.refused(method, path))["code"] == "not_found"


async def test_a_customer_that_is_deleted_loses_its_own_keys_alone(operator: Operator, customer: str, hot: Hot) -> None:
    """And its list has no key of another customer."""
    other = await operator.customer()
    created = {name: await operator.post(f"/admin/customers/{name}/keys") for name in (customer, other)}
    listed = {name: (await operator.get(f"/admin/customers/{name}/keys"))["data"] for name in created}
    await operator.delete(f"/admin/customers/{customer}")

    assert {name: [key["key_id"] for key in keys] for name, keys in listed.items()} == {
        name: [key["key_id"]] for name, key in created.items()
    }
    assert hot.key(digest_of(created[customer]["key"])) is None
    assert hot.key(digest_of(created[other]["key"])) is not None


@pytest.mark.parametrize("ended", ["key", "customer"])
async def test_a_key_that_ends_without_redis_is_shut_out_once_it_is_back(
    operator: Operator, operator_without_redis: Operator, services: AdminServices, customer: str, hot: Hot, ended: str
) -> None:
    """The sweep of the bookkeeper finds what Redis has not heard."""
    created = await operator.post(f"/admin/customers/{customer}/keys")
    path = f"/admin/keys/{created['key_id']}" if ended == "key" else f"/admin/customers/{customer}"
    await operator_without_redis.send("DELETE", path)
    before = hot.key(digest_of(created["key"]))

    project_pending(services.database, services.projection)

    assert before is not None
    assert hot.key(digest_of(created["key"])) is None
