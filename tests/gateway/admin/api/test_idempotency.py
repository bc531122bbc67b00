"""A repeated POST changes nothing, whatever became of the first one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Response
from pydantic import BaseModel
from sqlalchemy import func, select

from gateway.admin.api.idempotency import Keep, Posted, Replies
from gateway.catalog.kept_replies import CLAIM_MS
from gateway.catalog.problems import Conflict, Invalid
from gateway.ledger.database import Database
from gateway.ledger.tables import customers
from tests.gateway.admin.operator import Clock, Operator


class Asked(BaseModel):
    name: str = "Acme"


class Answered(BaseModel):
    number: int


def posted() -> Posted:
    return Posted("token:0", "/admin/customers", "once", Response())


def count(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(customers)).scalar_one()


async def test_a_repeated_request_gives_the_first_answer_again(operator: Operator, database: Database) -> None:
    first = await operator.send("POST", "/admin/customers", {"name": "Acme"}, Idempotency_Key="once")
    customer = first.json()["id"]
    await operator.patch(f"/admin/customers/{customer}", {"name": "Acme Ltd"})

    second = await operator.send("POST", "/admin/customers", {"name": "Acme"}, Idempotency_Key="once")

    assert (second.status_code, second.json()) == (201, first.json())
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert count(database) == 1
    assert len((await operator.get(f"/admin/audit?target={customer}"))["data"]) == 2


async def test_a_repeated_request_does_not_show_a_key_again(operator: Operator) -> None:
    customer = await operator.customer()
    path = f"/admin/customers/{customer}/keys"
    first = await operator.post(path, {"name": "production"}, Idempotency_Key="once")

    second = await operator.post(path, {"name": "production"}, Idempotency_Key="once")

    assert first["key"].startswith("tc-")
    assert second == first | {"key": None}
    assert len((await operator.get(path))["data"]) == 1


async def test_rotating_again_with_the_same_key_rotates_once(operator: Operator) -> None:
    customer = await operator.customer()
    old = await operator.post(f"/admin/customers/{customer}/keys")
    path = f"/admin/keys/{old['key_id']}/rotate"
    first = await operator.post(path, {}, Idempotency_Key="once")

    second = await operator.post(path, Idempotency_Key="once")

    assert second == first | {"key": None}
    assert len((await operator.get(f"/admin/customers/{customer}/keys"))["data"]) == 2


async def test_without_a_key_each_request_is_its_own(operator: Operator, database: Database) -> None:
    for _ in range(2):
        await operator.post("/admin/customers", {"name": "Acme"})

    assert count(database) == 2


async def test_another_body_under_the_same_key_is_refused(operator: Operator, database: Database) -> None:
    await operator.post("/admin/customers", {"name": "Acme"}, Idempotency_Key="once")

    refusal = await operator.refused("POST", "/admin/customers", {"name": "Other"}, Idempotency_Key="once")

    assert (refusal["status"], refusal["code"]) == (422, "idempotency_key_reused")
    assert count(database) == 1


async def test_the_same_key_on_another_route_is_another_request(operator: Operator) -> None:
    one, two = await operator.customer(), await operator.customer()

    first = await operator.post(f"/admin/customers/{one}/keys", Idempotency_Key="once")
    second = await operator.post(f"/admin/customers/{two}/keys", Idempotency_Key="once")

    assert (first["customer"], second["customer"]) == (one, two)


async def test_a_refused_request_frees_its_key(operator: Operator) -> None:
    body = {"name": "Acme", "tier": "basic"}
    await operator.refused("POST", "/admin/customers", body, Idempotency_Key="once")
    await operator.put("/admin/tiers/basic", {})

    created = await operator.post("/admin/customers", body, Idempotency_Key="once")

    assert created["tier"] == "basic"


async def test_identical_requests_at_the_same_moment_make_one_customer(operator: Operator, database: Database) -> None:
    responses: list[Any] = await asyncio.gather(
        *(operator.send("POST", "/admin/customers", {"name": "Acme"}, Idempotency_Key="once") for _ in range(10))
    )

    assert count(database) == 1
    assert {response.status_code for response in responses} <= {201, 409}
    answers = [response.json() for response in responses if response.status_code == 201]
    assert answers
    assert all(answer == answers[0] for answer in answers)
    codes = {response.json()["code"] for response in responses if response.status_code == 409}
    assert codes <= {"idempotency_in_progress"}


def test_a_request_that_is_still_carried_out_is_not_begun_again(database: Database, clock: Clock) -> None:
    replies = Replies(database, clock)

    def change(keep: Keep) -> Answered:
        with pytest.raises(Conflict) as refused:
            replies.once(posted(), Asked(), Answered, lambda _: Answered(number=2))
        assert (refused.value.status, refused.value.code) == (409, "idempotency_in_progress")
        with database.write() as connection:
            keep(connection, Answered(number=1))
        return Answered(number=1)

    assert replies.once(posted(), Asked(), Answered, change) == Answered(number=1)
    assert replies.once(posted(), Asked(), Answered, change) == Answered(number=1)


def test_a_request_whose_gateway_died_can_be_repeated_after_a_minute(database: Database, clock: Clock) -> None:
    """And should that gateway live after all, its transaction changes nothing."""
    replies = Replies(database, clock)

    def repeated(keep: Keep) -> Answered:
        with database.write() as connection:
            keep(connection, Answered(number=2))
        return Answered(number=2)

    def long_gone(keep: Keep) -> Answered:
        clock.ms += CLAIM_MS
        assert replies.once(posted(), Asked(), Answered, repeated) == Answered(number=2)
        with database.write() as connection:
            keep(connection, Answered(number=1))
        raise AssertionError("it was let commit")

    with pytest.raises(Conflict):
        replies.once(posted(), Asked(), Answered, long_gone)

    assert replies.once(posted(), Asked(), Answered, long_gone) == Answered(number=2)


def test_a_change_that_failed_leaves_nothing_kept(database: Database, clock: Clock) -> None:
    replies = Replies(database, clock)

    def failing(keep: Keep) -> Answered:
        with database.write() as connection:
            keep(connection, Answered(number=1))
            raise Invalid("no")

    with pytest.raises(Invalid):
        replies.once(posted(), Asked(), Answered, failing)

    assert replies.once(posted(), Asked(), Answered, lambda _: Answered(number=2)) == Answered(number=2)


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_is_up_to_255_characters(operator: Operator, key: str) -> None:
    refusal = await operator.refused("POST", "/admin/customers", {"name": "Acme"}, Idempotency_Key=key)

    assert {error["field"] for error in refusal["errors"]} == {"Idempotency-Key"}
