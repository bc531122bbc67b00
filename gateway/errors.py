"""All errors, as a tree by the party that can act on them; no other file gives an error its status and its code.

TokencapError
├── CallerError        the caller can act on it
├── UpstreamError      the model's endpoint failed
└── HouseError         this gateway, its Redis or its ledger failed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Reached:
    """The limit that refused a call: its name and size, how much is used and held, and how much the call requested."""

    limit: str
    max: int | None
    used: int | None = None
    held: int | None = None
    requested: int | None = None
    period: tuple[int, int] | None = None
    """Start and end, in ms, of a period in which no in-flight call can make room any more; None otherwise."""


class TokencapError(Exception):
    """A refusal with one sentence that helps. The contract fixes ``status`` and ``code``, per class or per instance."""

    status = 500
    code: str | None = "internal_error"
    type = "server_error"
    reached: Reached | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers or {}
        if code is not None:
            self.code = code

    def body(self) -> dict[str, Any]:
        """Return the refusal in the OpenAI shape."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class CallerError(TokencapError):
    status = 400
    code = "invalid_request"
    type = "invalid_request_error"


class BadRequest(CallerError):
    """The route does not accept the body or a header; ``param`` names the field."""


class InvalidKey(CallerError):
    status = 401
    code = "invalid_api_key"

    def __init__(self, message: str = "This API key is missing, unknown, revoked or expired.") -> None:
        super().__init__(message, headers={"www-authenticate": "Bearer", "x-should-retry": "false"})


class CustomerBlocked(CallerError):
    status = 403
    code = "customer_blocked"


class NoTier(CallerError):
    status = 403
    code = "no_tier"


class TierChangeNotAllowed(CallerError):
    status = 403
    code = "tier_change_not_allowed"


class TierNotFound(CallerError):
    status = 404
    code = "tier_not_found"


class ModelNotFound(CallerError):
    status = 404
    code = "model_not_found"


class RouteNotFound(CallerError):
    status = 404
    code = "not_found"


class IdempotencyKeyReused(CallerError):
    status = 422
    code = "idempotency_key_reused"


class IdempotencyInProgress(CallerError):
    status = 409
    code = "idempotency_in_progress"


class NotSealedYet(CallerError):
    """The record is in the book, and the next seal will cover it."""

    status = 409
    code = "not_sealed_yet"

    def __init__(self) -> None:
        super().__init__("This record is not sealed yet; a minute later it is.", headers={"retry-after": "60"})


class RecordsDropped(CallerError):
    """Retention has dropped records of this span."""

    status = 409
    code = "records_dropped"

    def __init__(self) -> None:
        super().__init__(
            "Records of this time are dropped, as TOKENCAP_RETENTION_DAYS says; totals of whole months and invoices are kept."
        )


class UnknownParameter(CallerError):
    """A parameter of the query that the route does not know; ``param`` names it."""

    status = 422
    code = "unknown_parameter"


class RequestTooLarge(CallerError):
    status = 413
    code = "request_too_large"


class NotHttp(CallerError):
    """The bytes are not a request, or are a request that another server may read differently."""

    code = "invalid_http"


class UrlTooLong(CallerError):
    status = 414
    code = "url_too_long"


class HeadersTooLarge(CallerError):
    status = 431
    code = "headers_too_large"


class RequestTimeout(CallerError):
    """The request comes too slowly."""

    status = 408
    code = "request_timeout"


class CallerGone(CallerError):
    """The caller hung up, or read nothing for too long, so no answer can be sent to it."""

    status = 499
    code = "caller_gone"


class QuotaRefusal(CallerError):
    """A quota or a cap is used up; trying again does not help."""

    status = 429
    type = "insufficient_quota"

    def __init__(self, message: str, headers: dict[str, str] | None = None, *, param: str | None = None) -> None:
        super().__init__(message, param=param, headers={"x-should-retry": "false", **(headers or {})})


class InsufficientQuota(QuotaRefusal):
    code = "insufficient_quota"


class EndUserQuotaReached(QuotaRefusal):
    """This end user has used up its part of the customer's quota; other end users may go on."""

    code = "end_user_quota_reached"


class ConversationCapReached(QuotaRefusal):
    code = "conversation_cap_reached"


class RateLimitExceeded(CallerError):
    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message, headers={"retry-after": str(max(1, retry_after_s))})


class UpstreamError(TokencapError):
    status = 502
    code: str | None = "upstream_unavailable"
    type = "upstream_error"


class UpstreamRefused(UpstreamError):
    """The upstream refused the request itself: the caller sees the upstream's status, message and code."""

    type = "invalid_request_error"

    def __init__(self, message: str, status: int, code: str | None, param: str | None) -> None:
        super().__init__(message, param=param)
        self.status = status
        self.code = code


class UpstreamSilent(UpstreamRefused):
    """The upstream began an answer and ended it without a word, as some engines do if the prompt is too long."""

    status = 400
    code = "no_answer"

    def __init__(self) -> None:
        message = "The upstream ended its answer without a word: it does not take this request. Is the prompt too long?"
        super().__init__(message, self.status, self.code, None)


class UpstreamUnavailable(UpstreamError):
    """The connection was refused or reset, or the error concerns only the operator and the upstream."""


class UpstreamErrorEvent(UpstreamUnavailable):
    """The upstream wrote an error into its answer; ``event`` is the error's JSON, which may reveal the operator's data."""

    def __init__(self, error: Any) -> None:
        super().__init__("The upstream failed in the middle of its answer.")
        self.event = error


class UpstreamOverloaded(UpstreamError):
    status = 503
    code = "upstream_overloaded"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"


class HouseError(TokencapError):
    status = 500
    code = "internal_error"


class MeteringUnavailable(HouseError):
    """Redis or the ledger is unavailable, so nothing is served."""

    status = 503
    code = "metering_unavailable"

    def __init__(self, message: str = "Metering is unavailable for a moment; nothing was charged.") -> None:
        super().__init__(message, headers={"retry-after": "1"})


class CallsUnbooked(MeteringUnavailable):
    """Calls that were settled before a request for records are known not to be in the ledger yet."""


class AccountInconsistent(HouseError):
    """A customer's used and held amounts do not add up: only this customer is refused, until they do."""

    status = 503
    code = "account_inconsistent"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"retry-after": "60"})


class TooMuchAtOnce(HouseError):
    """This worker already keeps as many bytes of bodies as it may."""

    status = 503
    code = "overloaded"

    def __init__(self) -> None:
        super().__init__("Too many large requests are being read; try again.", headers={"retry-after": "1"})


class ShuttingDown(HouseError):
    """This worker ends before the answer does; another worker serves the next call."""

    status = 503
    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("This gateway is shutting down and stopped the answer.", headers={"retry-after": "1"})


class TooManyConnections(HouseError):
    status = 503
    code = "too_many_connections"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"retry-after": "1"})


class StartupError(TokencapError):
    """A command cannot do its work. ``exit_code`` is 1 if the answer is no, 2 for wrong use, and 3 if a dependency or a
    port is unavailable."""

    def __init__(self, message: str, exit_code: int = 3) -> None:
        super().__init__(message)
        self.exit_code = exit_code
