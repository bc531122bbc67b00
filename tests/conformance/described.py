"""Sends an API requests that its own OpenAPI allows; only this file loads schemathesis, which takes seconds."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
EXAMPLES = 12
"""Requests to each operation."""


def answered_otherwise(url: str, authority: dict[str, str]) -> tuple[int, list[str]]:
    """Return how many operations are described, and the answers that differ from the description."""
    described = schemathesis.openapi.from_url(url, headers=authority)
    operations = [found.ok() for found in described.get_all_operations()]
    wrong: list[str] = []
    for operation in operations:
        try:
            _ask_anything(operation, authority)
        except FailureGroup as failures:
            wrong += [f"{operation.label}: {failure}" for failure in failures.exceptions]
    return len(operations), wrong


def _is_refused_by_the_server(answer: Any) -> bool:
    """Return whether the server refused the request as invalid HTTP, as with a control character in its path."""
    return answer.status_code == 400 and answer.json().get("error", {}).get("code") == "invalid_http"


def _ask_anything(operation: Any, authority: dict[str, str]) -> None:
    @given(case=operation.as_strategy())
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True)
    def check(case: Any) -> None:
        answer = case.call(headers=authority, timeout=30)
        if not _is_refused_by_the_server(answer):
            case.validate_response(answer, checks=CHECKS)

    check()
