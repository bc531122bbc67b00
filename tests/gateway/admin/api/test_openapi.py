"""What /openapi.json says is enough to write a client from, and true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.admin.api.problem_json import Problem
from gateway.admin.customers.api_keys import NewKey, Rotation
from gateway.admin.customers.shapes import CustomerChange, NewCustomer, TierChoice
from gateway.admin.menus.tiers import TierInput
from tests.gateway.admin.operator import Operator

PROBLEM = {"$ref": "#/components/schemas/Problem"}


@pytest.fixture
async def described(operator: Operator) -> dict[str, Any]:
    found: dict[str, Any] = (await operator.client.get("/openapi.json", headers={"authorization": ""})).json()
    return found


def operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for methods in described["paths"].values():
        yield from methods.items()


def test_every_operation_has_a_name_a_kind_and_a_sentence(described: dict[str, Any]) -> None:
    kinds = {tag["name"] for tag in described["tags"]}
    names = [operation["operationId"] for _, operation in operations(described)]

    assert len(names) == len(set(names))
    for _, operation in operations(described):
        assert operation["summary"]
        assert operation["description"].endswith(".")
        assert set(operation["tags"]) <= kinds


def test_every_operation_wants_the_admin_token(described: dict[str, Any]) -> None:
    assert described["components"]["securitySchemes"]["adminToken"]["scheme"] == "bearer"
    assert all(operation["security"] == [{"adminToken": []}] for _, operation in operations(described))


def test_every_refusal_is_a_documented_problem(described: dict[str, Any]) -> None:
    statuses = {"post": "201", "get": "200", "put": "200", "patch": "200", "delete": "204"}
    for method, operation in operations(described):
        responses = dict(operation["responses"])
        assert responses.pop(statuses[method])
        assert {"401", "422", "503"} <= responses.keys()
        for status, response in responses.items():
            (media_type,) = response["content"]
            documented = response["content"][media_type]
            assert media_type == "application/problem+json"
            assert documented["schema"] == PROBLEM
            assert Problem.model_validate(documented["example"]).status == int(status)


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from ([node["$ref"]] if isinstance(node.get("$ref"), str) else [])
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    known = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    assert PROBLEM["$ref"] in known
    assert set(references(described)) <= known


def test_every_post_may_be_repeated(described: dict[str, Any]) -> None:
    posts = [operation for method, operation in operations(described) if method == "post"]

    assert len(posts) >= 3
    for operation in posts:
        assert "Idempotency-Key" in {parameter["name"] for parameter in operation["parameters"]}


@pytest.mark.parametrize("model", [NewCustomer, CustomerChange, TierChoice, NewKey, Rotation, TierInput])
def test_every_example_of_a_request_is_one(described: dict[str, Any], model: Any) -> None:
    schema = described["components"]["schemas"][model.__name__]

    assert schema["additionalProperties"] is False
    assert schema["examples"]
    for example in schema["examples"]:
        model.model_validate(example)


def test_what_a_field_is_for_is_said(described: dict[str, Any]) -> None:
    for name in ("NewCustomer", "CustomerChange", "TierInput", "NewKey", "Rotation", "TierChoice"):
        for field, field_schema in described["components"]["schemas"][name]["properties"].items():
            assert field_schema.get("description") or field_schema.get("examples"), (name, field)
