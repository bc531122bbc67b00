"""The admin API does what its own OpenAPI says, whatever is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.loop.rig import Rig, rig

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
EXAMPLES = 12
"""Requests to each operation."""


@pytest.fixture
def loop(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    """A gateway of its own: what is asked here changes tiers and menus."""
    with rig(valkey_url, sqlite_url, tmp_path) as running:
        yield running


def test_it_answers_as_it_is_described(loop: Rig) -> None:
    """Nothing that the description allows, and nothing near it, is a 500 or answered otherwise than it says."""
    authority = {"authorization": str(loop.admin.headers["authorization"])}
    described = schemathesis.openapi.from_url(f"{loop.url}/openapi.json", headers=authority)
    operations = [found.ok() for found in described.get_all_operations()]
    wrong: list[str] = []
    for operation in operations:
        try:
            _ask_anything(operation, authority)
        except FailureGroup as failures:
            wrong += [f"{operation.label}: {failure}" for failure in failures.exceptions]

    assert len(operations) > 20
    assert wrong == []


def _is_refused_by_the_server(answer: Any) -> bool:
    """Whether the request is no HTTP that is read here, such as one with a control character in its path: no route sees it."""
    return answer.status_code == 400 and answer.json().get("error", {}).get("code") == "invalid_http"


def _ask_anything(operation: Any, authority: dict[str, str]) -> None:
    @given(case=operation.as_strategy())
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True)
    def check(case: Any) -> None:
        answer = case.call(headers=authority, timeout=30)
        if not _is_refused_by_the_server(answer):
            case.validate_response(answer, checks=CHECKS)

    check()
