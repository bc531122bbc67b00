"""What is changed while Redis is away is kept, says so, and takes effect when Redis is back."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pytest
from sqlalchemy import text, update

from gateway.admin.api.routes import AdminServices
from gateway.catalog import api_key_rows, customer_rows, projector
from gateway.catalog.api_key_rows import KeyRow
from gateway.catalog.projector import CatalogProjector, project_customers, project_keys, project_pending
from gateway.clock import now_ms
from gateway.errors import MeteringUnavailable
from gateway.holds.store import redis_keys
from gateway.holds.store.projection import Admitted, Projection
from gateway.holds.terms import Customer
from gateway.ledger.database import Database
from gateway.ledger.tables import metadata, publications
from tests.gateway.admin.operator import NOON, Hot, Operator


@pytest.fixture
def projection(services: AdminServices) -> Projection:
    return services.projection


async def test_a_customer_created_without_redis_takes_effect_when_it_is_back(
    operator_without_redis: Operator, database: Database, projection: Projection, hot: Hot
) -> None:
    refusal = await operator_without_redis.refused("POST", "/admin/customers", {"name": "Acme"})
    customer = refusal["saved"]["id"]
    assert hot.customer(customer) is None

    carried = project_pending(database, projection)

    found = hot.customer(customer)
    assert (refusal["status"], refusal["code"]) == (503, "metering_unavailable")
    assert "saved" in refusal["detail"]
    assert carried == 1
    assert found is not None
    assert found.status == "active"
    assert (await operator_without_redis.get(f"/admin/customers/{customer}"))["name"] == "Acme"


async def test_a_refusal_without_redis_says_when_to_look_again(operator_without_redis: Operator) -> None:
    response = await operator_without_redis.send("POST", "/admin/customers", {"name": "Acme"})

    assert response.headers["retry-after"] == "1"


async def test_repeating_what_was_saved_without_redis_changes_nothing(operator_without_redis: Operator) -> None:
    once = {"Idempotency_Key": "once"}
    refusal = await operator_without_redis.refused("POST", "/admin/customers", {"name": "Acme"}, **once)

    repeated = await operator_without_redis.post("/admin/customers", {"name": "Acme"}, **once)

    assert repeated == refusal["saved"]


async def test_a_key_made_without_redis_is_shown_all_the_same(
    operator: Operator, operator_without_redis: Operator, database: Database, projection: Projection, hot: Hot
) -> None:
    customer = await operator.customer()

    refusal = await operator_without_redis.refused("POST", f"/admin/customers/{customer}/keys")
    project_pending(database, projection)

    digest = hashlib.sha256(refusal["saved"]["key"].encode()).hexdigest()
    found = hot.key(digest)
    assert found is not None
    assert found["customer"] == customer


async def test_every_kind_of_change_made_without_redis_takes_effect_when_it_is_back(
    operator: Operator, operator_without_redis: Operator, database: Database, projection: Projection, hot: Hot
) -> None:
    blocked, gone = await operator.customer(), await operator.customer()
    keys = [await operator.post(f"/admin/customers/{blocked}/keys") for _ in range(2)]
    changes = [
        ("PUT", "/admin/tiers/basic", {}),
        ("PUT", f"/admin/customers/{blocked}/tier", {"tier": "basic"}),
        ("PATCH", f"/admin/customers/{blocked}", {"status": "blocked"}),
        ("DELETE", f"/admin/customers/{gone}", None),
        ("DELETE", f"/admin/keys/{keys[0]['key_id']}", None),
        ("POST", f"/admin/keys/{keys[1]['key_id']}/rotate", {}),
    ]

    refusals = [await operator_without_redis.refused(*change) for change in changes]
    project_pending(database, projection)

    assert {refusal["status"] for refusal in refusals} == {503}
    was_blocked, was_deleted = hot.customer(blocked), hot.customer(gone)
    assert was_blocked is not None
    assert (was_blocked.tier, was_blocked.status) == ("basic", "blocked")
    assert was_deleted is not None
    assert was_deleted.status == "deleted"
    (publication,) = hot.timeline().publications
    assert [tier["name"] for tier in hot.menu(publication.version)["tiers"]] == ["basic"]
    for key in keys:
        assert hot.key(hashlib.sha256(key["key"].encode()).hexdigest()) is None
    assert hot.key(hashlib.sha256(refusals[-1]["saved"]["key"].encode()).hexdigest()) is not None


async def test_what_redis_has_is_not_carried_again(
    operator: Operator, database: Database, projection: Projection
) -> None:
    await operator.put("/admin/tiers/basic", {})
    customer = await operator.customer(tier="basic")
    await operator.post(f"/admin/customers/{customer}/keys")

    assert project_pending(database, projection) == 0


async def test_a_sweep_goes_through_more_rows_than_it_takes_at_once(
    database: Database, projection: Projection, hot: Hot
) -> None:
    ids = [f"cus_{number:04d}" for number in range(2 * projector.AT_ONCE + 1)]
    with database.write() as connection:
        for customer in ids:
            customer_rows.add(
                connection, customer_rows.CustomerRow(customer, customer, None, 0, "active", "month", "UTC", 0)
            )

    assert project_pending(database, projection, 1) == projector.AT_ONCE  # the rest waits for the next sweep
    assert project_pending(database, projection) == projector.AT_ONCE + 1
    assert project_pending(database, projection) == 0
    assert all(hot.customer(customer) for customer in ids)


async def test_a_redis_that_lost_everything_gets_everything_back(
    operator: Operator, database: Database, projection: Projection, hot: Hot
) -> None:
    await operator.put("/admin/tiers/basic", {})
    customer = await operator.customer(tier="basic")
    living, revoked = [await operator.post(f"/admin/customers/{customer}/keys") for _ in range(2)]
    await operator.delete(f"/admin/keys/{revoked['key_id']}")
    before = {"customer": hot.customer(customer), "timeline": hot.timeline()}
    hot.redis.flushall()

    everything = CatalogProjector(database, projection)
    everything.write_menus()
    everything.write_customers([customer])

    assert {"customer": hot.customer(customer), "timeline": hot.timeline()} == before
    assert hot.menu(hot.timeline().publications[-1].version)["tiers"]
    assert hot.key(hashlib.sha256(living["key"].encode()).hexdigest()) is not None
    assert hot.key(hashlib.sha256(revoked["key"].encode()).hexdigest()) is None


async def test_a_redis_that_lost_everything_tells_the_webhook_of_no_publication_again(
    operator: Operator, database: Database, projection: Projection, hot: Hot
) -> None:
    """But of one that came while Redis was away, which nobody was told of."""
    notices = redis_keys.notices(redis_keys.ALL_BUCKETS[0])
    await operator.put("/admin/tiers/basic", {})
    with database.write() as connection:
        connection.execute(update(publications).values(at=now_ms()))
    hot.redis.flushall()

    CatalogProjector(database, projection).write_menus()
    project_pending(database, projection)
    assert hot.redis.xlen(notices) == 0

    with database.write() as connection:
        connection.execute(update(publications).values(projected=False))
    CatalogProjector(database, projection).write_menus()
    project_pending(database, projection)
    assert hot.redis.xlen(notices) == 1


def test_without_redis_a_sweep_says_so_and_loses_nothing(
    database: Database, without_redis: AdminServices, projection: Projection
) -> None:
    row = customer_rows.CustomerRow("cus_1", "Acme", None, 0, "active", "month", "UTC", 0)
    with database.write() as connection:
        customer_rows.add(connection, row)

    with pytest.raises(MeteringUnavailable):
        project_pending(database, without_redis.projection)

    assert project_pending(database, projection) == 1


def test_a_sweep_reads_only_what_waits(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    database.migrate()
    with database.read() as connection:
        for table in ("customers", "api_keys"):
            column = next(iter(metadata.tables[table].primary_key)).name
            query = (
                f"EXPLAIN QUERY PLAN SELECT {column} FROM {table} WHERE {projector.WAITING} ORDER BY {column} LIMIT 100"
            )
            plan = repr(connection.execute(text(query)).all())
            assert f"ix_{table}_unprojected" in plan
    database.close()


class Interrupted(Projection):
    """A projection on whose way to Redis something else happens first."""

    def __init__(self, services: AdminServices, meanwhile: Callable[[], object]) -> None:
        super().__init__(services.redis)
        self._meanwhile = meanwhile

    def put_customers(self, customers: Sequence[Customer]) -> None:
        self._meanwhile()
        super().put_customers(customers)

    def put_keys(self, admitted: Iterable[Admitted], shut_out: Iterable[tuple[str, str]] = ()) -> None:
        self._meanwhile()
        super().put_keys(admitted, shut_out)


def test_a_change_made_while_an_earlier_one_is_carried_still_waits(
    database: Database, services: AdminServices, hot: Hot
) -> None:
    row = customer_rows.CustomerRow("cus_1", "Acme", None, 0, "active", "month", "UTC", 0)
    with database.write() as connection:
        customer_rows.add(connection, row)

    def block() -> None:
        with database.write() as connection:
            customer_rows.store(connection, replace(row, status="blocked"))

    project_customers(database, Interrupted(services, block), ["cus_1"])

    assert project_pending(database, services.projection) == 1
    found = hot.customer("cus_1")
    assert found is not None
    assert found.status == "blocked"


def test_a_key_revoked_while_it_is_on_its_way_stays_out(database: Database, services: AdminServices, hot: Hot) -> None:
    row = customer_rows.CustomerRow("cus_1", "Acme", None, 0, "active", "month", "UTC", 0)
    with database.write() as connection:
        customer_rows.add(connection, row)
        api_key_rows.add(
            connection, KeyRow("key_1", "cus_1", "tc-00-", None, 0, None), api_key_rows.digest_of("tc-00-secret")
        )

    def revoke() -> None:
        with database.write() as connection:
            api_key_rows.revoke_all(connection, "cus_1", NOON)
        project_keys(database, services.projection, ["key_1"])

    revoking = threading.Thread(target=revoke)

    def begin_to_revoke() -> None:
        revoking.start()
        revoking.join(0.3)  # either it is through by then, or it waits for the row

    project_keys(database, Interrupted(services, begin_to_revoke), ["key_1"])
    revoking.join()

    assert not list(hot.redis.scan_iter(match="*:key:*", count=1000))
