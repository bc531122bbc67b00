"""Writes refusals of the admin API as ``application/problem+json`` (RFC 9457), and describes them in OpenAPI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from gateway.catalog.problems import AdminProblem, Invalid, SavedOnly, Unauthorized
from gateway.errors import CallsUnbooked, MeteringUnavailable, TokencapError

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="The place: names and positions joined by dots; empty for the whole body.")
    message: str


class Problem(BaseModel):
    """Why a request was refused."""

    type: str = Field(description="A name for the kind of problem, `urn:tokencap:` and the code.")
    title: str = Field(description="The kind of problem in a few words.")
    status: int
    detail: str = Field(description="One sentence about this case.")
    code: str = Field(description="Stable, for programs.")
    errors: list[FieldProblem] | None = Field(default=None, description="The fields, where the status is 422.")
    tiers: dict[str, Any] | None = Field(
        default=None, description="With `tier_in_use`: how many customers have each tier, and the first of them."
    )
    violation: str | None = Field(default=None, description="With `certificate_violated`: the worst place in the menu.")
    saved: dict[str, Any] | None = Field(
        default=None,
        description="With 503: the answer that could not be sent because Redis is unavailable. A new key's text is "
        "here and nowhere else.",
    )


@contextmanager
def saved_only(saved: BaseModel | None = None) -> Iterator[None]:
    """Report a failure to reach Redis inside the block as a saved change, with the answer that could not be sent."""
    try:
        yield
    except MeteringUnavailable as error:
        raise SavedOnly(None if saved is None else saved.model_dump(mode="json")) from error


def response_to(error: TokencapError) -> JSONResponse:
    """Return the answer for an error."""
    code = error.code or "internal_error"
    detail, more = error.message, error.more if isinstance(error, AdminProblem) else {}
    if isinstance(error, MeteringUnavailable) and not isinstance(error, CallsUnbooked):
        detail = "The ledger or Redis cannot be reached just now, so this request was not carried out."
    body = {
        "type": f"urn:tokencap:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": error.status,
        "detail": detail,
        "code": code,
        **more,
    }
    return JSONResponse(body, error.status, error.headers, MEDIA_TYPE)


def translated(error: RequestValidationError) -> Invalid:
    """Return FastAPI's validation error as a problem. The input is not repeated in it: it may be a secret."""
    return Invalid.fields([(_place(field_error), _message(field_error)) for field_error in error.errors()])


def _place(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return ""
    return ".".join(str(part) for part in error["loc"][1:])


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"The body is not JSON: {error['ctx']['error']} at character {error['loc'][1]}."
    if error["type"] == "extra_forbidden":
        return "There is no such field."
    if error["type"] == "missing":
        return "This is required."
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] in {"model_attributes_type", "model_type", "dict_type"}:
        return "This must be a JSON object (and the request's Content-Type application/json)."
    return f"{error['msg']}."


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of the refusals with these statuses."""
    return {status: _documented(status) for status in statuses}


def _documented(status: int) -> dict[str, Any]:
    description, code, detail = _EXAMPLES[status]
    example = {
        "type": f"urn:tokencap:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
    }
    if status == Invalid.status:
        field, _, message = detail.partition(": ")
        example["errors"] = [{"field": field, "message": message}]
    return {"description": description, "content": {MEDIA_TYPE: {"schema": REFERENCE, "example": example}}}


def schemas() -> dict[str, Any]:
    """Return OpenAPI's components of a problem. FastAPI would describe a problem as application/json."""
    schema = Problem.model_json_schema(ref_template=COMPONENT)
    return {**schema.pop("$defs"), "Problem": schema}


COMPONENT = "#/components/schemas/{model}"
REFERENCE = {"$ref": COMPONENT.format(model="Problem")}

_EXAMPLES: dict[int, tuple[str, str, str]] = {
    400: ("A header comes twice", "invalid_request", "Authorization comes twice."),
    401: ("No admin token, or a retired one", "invalid_admin_token", str(Unauthorized().message)),
    403: (
        "The token's role does not allow this",
        "not_allowed",
        "The role billing may put at most 5000000000 nano-units on a bill at once.",
    ),
    404: ("Nothing has that name", "not_found", "There is no customer cus_7f3a."),
    409: (
        "It exists already, or its state does not allow this",
        "already_exists",
        "Another customer has this external_id.",
    ),
    413: ("The body is too large", "request_too_large", "A request body is at most 16,777,216 bytes."),
    422: ("A field is invalid", "invalid_request", "tier: The menu in force has no tier 'gold'."),
    503: ("The ledger or Redis cannot be reached", "metering_unavailable", SavedOnly(None).message),
}
