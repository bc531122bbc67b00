"""What the admin API says when the answer is no: ``application/problem+json`` (RFC 9457), and when it says it.

AdminProblem
├── Unauthorized        401  no admin token, or a retired one
├── TooManyWrongTokens  429  wrong tokens come faster than they are refused
├── NotAllowed          403  the role of who asks is not enough
├── NotFound            404  nothing is there under that name
├── Conflict            409  it is there, but not in a state for this
│   └── AlreadyExists        the name is taken
├── Invalid             422  a field is not what it has to be; ``errors`` says which
└── SavedOnly           503  the change is in the ledger and waits for Redis
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from gateway.errors import MeteringUnavailable, TokencapError

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="Where: names and positions joined by dots; empty for the body as a whole.")
    message: str


class Problem(BaseModel):
    """Why a request was refused."""

    type: str = Field(description="A name for the kind of problem, `urn:tokencap:` and the code.")
    title: str = Field(description="The kind of problem in a few words.")
    status: int
    detail: str = Field(description="One sentence about this very case.")
    code: str = Field(description="Stable, for programs.")
    errors: list[FieldProblem] | None = Field(default=None, description="The fields, where the status is 422.")
    tiers: dict[str, Any] | None = Field(
        default=None, description="With `tier_in_use`: how many customers have each tier, and the first of them."
    )
    violation: str | None = Field(default=None, description="With `certificate_violated`: the worst place in the menu.")
    saved: dict[str, Any] | None = Field(
        default=None, description="With 503: what the answer would have been. A new key's text is here and only here."
    )


class AdminProblem(TokencapError):
    """A refusal of the admin API; ``more`` are the members beyond the standard ones."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, headers=headers)
        self.more = dict(more or {})


class Unauthorized(AdminProblem):
    status = 401
    code = "invalid_admin_token"

    def __init__(self) -> None:
        super().__init__(
            "Send the admin token as `Authorization: Bearer …`; this one is missing, unknown or retired.",
            headers={"www-authenticate": 'Bearer realm="tokencap admin"'},
        )


class TooManyWrongTokens(AdminProblem):
    """So many wrong tokens come that not even their refusals wait their turn; the right one is let in all the same."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self) -> None:
        super().__init__("Too many wrong tokens come in just now.", headers={"retry-after": "5"})


class NotAllowed(AdminProblem):
    status = 403
    code = "not_allowed"


class NotFound(AdminProblem):
    status = 404
    code = "not_found"


class MethodNotAllowed(AdminProblem):
    status = 405
    code = "method_not_allowed"


class Conflict(AdminProblem):
    status = 409
    code = "conflict"


class AlreadyExists(Conflict):
    code = "already_exists"


class Invalid(AdminProblem):
    status = 422
    code = "invalid_request"

    @classmethod
    def fields(cls, errors: Sequence[tuple[str, str]], code: str | None = None) -> Invalid:
        """Return the problem of several fields, each with what is wrong with it."""
        first, message = errors[0]
        return cls(
            f"{first}: {message}" if first else message,
            code=code,
            more={"errors": [{"field": field, "message": message} for field, message in errors]},
        )

    @classmethod
    def field(cls, field: str, message: str, code: str | None = None) -> Invalid:
        """Return the problem of one field."""
        return cls.fields([(field, message)], code)


class SavedOnly(AdminProblem):
    """The change is committed and Redis does not have it yet."""

    status = 503
    code = "metering_unavailable"

    def __init__(self, saved: BaseModel | None) -> None:
        more = {} if saved is None else {"saved": saved.model_dump(mode="json")}
        super().__init__(
            "The change is saved and takes effect when Redis is back; there is no need to repeat it.",
            headers={"retry-after": "1"},
            more=more,
        )


@contextmanager
def saved_only(saved: BaseModel | None = None) -> Iterator[None]:
    """Say of a failure to reach Redis inside the block that the change is kept; ``saved`` is what it would answer."""
    try:
        yield
    except MeteringUnavailable as error:
        raise SavedOnly(saved) from error


def response_to(error: TokencapError) -> JSONResponse:
    """Return the answer that an error comes to."""
    code = error.code or "internal_error"
    detail, more = error.message, error.more if isinstance(error, AdminProblem) else {}
    if isinstance(error, MeteringUnavailable):
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
    """Return FastAPI's own complaint as ours. What was sent is not repeated: it may be a secret."""
    return Invalid.fields([(_place(each), _message(each)) for each in error.errors()])


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
        return "This is to be a JSON object (and the request's Content-Type application/json)."
    return f"{error['msg']}."


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of the refusals with these statuses."""
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
    """Return what OpenAPI's components have to say of a problem. FastAPI would call it application/json."""
    schema = Problem.model_json_schema(ref_template=COMPONENT)
    return {**schema.pop("$defs"), "Problem": schema}


COMPONENT = "#/components/schemas/{model}"
REFERENCE = {"$ref": COMPONENT.format(model="Problem")}

_EXAMPLES: dict[int, tuple[str, str, str]] = {
    400: ("The head says something twice", "invalid_request", "Authorization comes twice."),
    401: ("No admin token, or a retired one", "invalid_admin_token", str(Unauthorized().message)),
    403: (
        "The role of the token is not enough",
        "not_allowed",
        "The role billing may put at most 5000000000 nano-units on a bill at once.",
    ),
    404: ("Nothing is there under that name", "not_found", "There is no customer cus_7f3a."),
    409: (
        "It exists already, or is not in a state for this",
        "already_exists",
        "Another customer has this external_id.",
    ),
    413: ("The body is too large", "request_too_large", "A request body is at most 16,777,216 bytes."),
    422: ("A field is not what it has to be", "invalid_request", "tier: The menu in force has no tier 'gold'."),
    503: ("The ledger or Redis cannot be reached", "metering_unavailable", SavedOnly(None).message),
}
