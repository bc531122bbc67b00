"""A route of the admin API refuses whatever of a query it would not look at, and names in the path that nothing has."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from gateway.admin.api.routes import AdminServices
from gateway.admin.router import admin_routes
from tests.gateway.admin.conftest import admin_app
from tests.gateway.admin.operator import Operator, fields_of, problem


async def test_every_route_refuses_a_parameter_that_it_does_not_know(
    operator: Operator, services: AdminServices
) -> None:
    """Found from its own declaration, so that a new route refuses too."""
    routes = [route.made for route in admin_routes(services)]
    refused = {
        (method, route.path): fields_of(problem(await operator.send(method, f"{route.path}?custmer=x", {})))
        for route in routes
        for method in route.methods
    }

    assert len(refused) >= 25
    assert all(fields == {"custmer"} for fields in refused.values())


async def test_a_route_is_made_when_a_request_first_comes_to_it(services: AdminServices) -> None:
    """Until then it costs a worker's start nothing; a description has all of them."""
    app = admin_app(services)

    before = made_in(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as client:
        await client.get("/admin/customers")
        after = made_in(app)
        described = (await client.get("/openapi.json")).json()["paths"]

    assert before == []
    assert after == [("/admin/customers", {"GET"})]
    assert {path for path, _ in made_in(app)} == described.keys()


def made_in(app: FastAPI) -> list[tuple[str, set[str]]]:
    """Return the routes of the admin API that FastAPI has made."""
    made = [vars(route).get("made", route) for route in app.routes]
    return [(route.path, route.methods) for route in made if isinstance(route, APIRoute)]


@pytest.mark.parametrize(
    "path",
    ["/admin/usage?limit=1&limit=2", "/admin/customers?status=active&status=blocked", "/admin/audit?limit=1&limit=1"],
)
async def test_a_parameter_that_comes_twice_is_refused(operator: Operator, path: str) -> None:
    """Nobody can tell which of the two was meant."""
    assert len(fields_of(await operator.refused("GET", path))) == 1


@pytest.mark.parametrize("query", ["%ED%A0%80=1", "=1", "%00=1", "a" * 5_000 + "=1", "limit=1&%ff", "from=\u0661"])
async def test_a_query_of_any_bytes_is_refused(operator: Operator, query: str) -> None:
    assert (await operator.refused("GET", f"/admin/usage?{query}"))["status"] == 422


@pytest.mark.parametrize(
    "name", ["%00", "a%00b", "%ED%A0%80", "%ff", "a" * 5_000, "%0a", "%C2%85", "%F0%9F%98%80", "%20"]
)
@pytest.mark.parametrize(
    "path",
    [
        *("/admin/customers/{}", "/admin/customers/{}/keys", "/admin/tiers/{}", "/admin/menus/{}"),
        *("/admin/pricing/runs/{}", "/admin/customers/{}?"),
    ],
)
async def test_a_name_of_any_bytes_is_not_there(operator: Operator, path: str, name: str) -> None:
    """404, or 422 where a name has to look like one, whatever the database thinks of such a text."""
    assert (await operator.refused("GET", path.format(name)))["status"] in (404, 422)


async def test_an_export_has_only_the_customers_records(operator: Operator) -> None:
    """A filter that is written is one that holds."""
    answer = await operator.send("GET", "/admin/exports?customer=cus_nobody&open=true")

    assert answer.status_code == 200
    assert answer.text == ""
