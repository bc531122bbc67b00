"""Whatever is wrong with a request, the answer is a problem that says what, and never repeats what was sent."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI

from gateway.admin.api.routes import AdminServices
from gateway.admin.router import build_admin
from gateway.ledger.database import Database
from tests.gateway.admin.operator import Operator, fields_of, problem

TYPED = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "This is required."),
        (b"{", "at character 1"),
        (b'{"name": }', "not JSON"),
        (b"\xff{", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "a JSON object"),
        (b"null", "a JSON object"),
        (b'"name"', "a JSON object"),
    ],
)
async def test_a_body_that_is_not_an_object_is_refused(operator: Operator, content: bytes, says: str) -> None:
    refusal = problem(await operator.client.post("/admin/customers", content=content, headers=TYPED))

    assert (refusal["status"], refusal["code"]) == (422, "invalid_request")
    assert fields_of(refusal) == {""}
    assert says in refusal["detail"]


async def test_a_body_that_is_not_declared_as_json_is_refused_saying_so(operator: Operator) -> None:
    refusal = problem(await operator.client.post("/admin/customers", content=b'{"name": "Acme"}'))

    assert "Content-Type application/json" in refusal["detail"]


async def test_every_wrong_field_is_named_at_once(operator: Operator) -> None:
    body = {"status": "no", "overrides": {"concurrency_max": 0, "x": 1}, "y": 1}

    refusal = await operator.refused("POST", "/admin/customers", body)

    assert fields_of(refusal) == {"name", "status", "overrides.concurrency_max", "overrides.x", "y"}
    assert all(error["message"].endswith(".") for error in refusal["errors"])


async def test_what_was_sent_is_not_repeated(operator: Operator) -> None:
    secret = "tc-00-somebody-pasted-a-key-here"

    response = await operator.send("POST", "/admin/customers", {"name": "Acme", "period": secret, "tier": secret * 3})

    assert response.status_code == 422
    assert secret not in response.text


async def test_an_unknown_path_and_a_wrong_method_are_problems_too(operator: Operator) -> None:
    nowhere = await operator.refused("GET", "/admin/nowhere")
    response = await operator.send("DELETE", "/admin/audit")

    assert (nowhere["status"], nowhere["code"]) == (404, "not_found")
    assert problem(response)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "GET"


async def test_a_ledger_that_is_not_to_be_had_is_503(services: AdminServices, operator: Operator) -> None:
    """The token was looked up a moment ago; what it wants to do cannot be done."""
    app = FastAPI(openapi_url=None)
    build_admin(app, replace(services, database=Database("sqlite:////nowhere/ledger.sqlite")))
    headers = dict(operator.client.headers)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", headers=headers) as client:
        response = await client.post("/admin/customers", json={"name": "Acme"})

    refusal = problem(response)
    assert (refusal["status"], refusal["code"]) == (503, "metering_unavailable")
    assert "saved" not in refusal
    assert response.headers["retry-after"] == "1"


async def test_our_own_mistake_is_a_problem_without_its_details(services: AdminServices, operator: Operator) -> None:
    def broken() -> int:
        raise ZeroDivisionError("the inside of the house")

    app = FastAPI(openapi_url=None)
    build_admin(app, replace(services, now_ms=broken))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async with httpx.AsyncClient(
        transport=transport, base_url="http://x", headers=dict(operator.client.headers)
    ) as client:
        response = await client.post("/admin/customers", json={"name": "Acme"})

    assert problem(response)["code"] == "internal_error"
    assert "inside" not in response.text
