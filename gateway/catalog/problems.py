"""The refusals of the admin API, raised by the catalogue and by routes.

AdminProblem
├── Unauthorized        401  no admin token, or a retired one
├── TooManyWrongTokens  429  too many refusals of wrong tokens wait to be sent
├── NotAllowed          403  the caller's role does not allow the request
├── NotFound            404  nothing has that name
├── MethodNotAllowed    405  the resource has no such method
├── Conflict            409  the state of the resource does not allow the request
│   └── AlreadyExists        the name is taken
├── Invalid             422  a field is invalid; ``errors`` says which
└── SavedOnly           503  the change is in the ledger and waits for Redis
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.errors import TokencapError


class AdminProblem(TokencapError):
    """A refusal of the admin API; ``more`` has the members of the problem beyond the standard members."""

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
    """So many refusals of wrong tokens wait to be sent that no more are delayed; the right token is still admitted."""

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
        """Return the problem of several fields, each with a message about what is wrong."""
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
    """The change is committed and Redis does not have it yet; ``saved`` is the answer that Redis prevented."""

    status = 503
    code = "metering_unavailable"

    def __init__(self, saved: Mapping[str, Any] | None) -> None:
        super().__init__(
            "The change is saved and takes effect when Redis is back; there is no need to repeat it.",
            headers={"retry-after": "1"},
            more={} if saved is None else {"saved": dict(saved)},
        )
