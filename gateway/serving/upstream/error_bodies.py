"""Translates an upstream's errors for callers: the status, and the message, code and type wherever these reveal nothing
of the operator."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from gateway.errors import UpstreamError, UpstreamOverloaded, UpstreamRefused, UpstreamUnavailable
from gateway.serving.upstream.error_redaction import House, discreet, discreet_name

CALLERS = frozenset({400, 404, 408, 409, 410, 413, 415, 422, 424, 451})
"""Statuses of refusals that the caller can act on or has to know about."""

OVERLOADS = frozenset({429, 503, 529})
OWES, FORBIDDEN = 402, 403

OF_CODES = {
    **dict.fromkeys(
        ("context_length_exceeded", "exceed_context_size_error", "invalid_prompt", "INVALID_ARGUMENT"), 400
    ),
    **dict.fromkeys(("content_filter", "content_policy_violation", "moderation_blocked", "cyber_policy"), 400),
    **dict.fromkeys(("invalid_api_key", "UNAUTHENTICATED", "authentication_error"), 401),
    **dict.fromkeys(("insufficient_quota", "usage_not_included", "billing_error", "billing_hard_limit_reached"), 402),
    **dict.fromkeys(("permission_error", "PERMISSION_DENIED"), 403),
    **dict.fromkeys(("rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"), 429),
    **dict.fromkeys(("overloaded_error", "server_is_overloaded", "slow_down", "overloaded", "UNAVAILABLE"), 503),
    **dict.fromkeys(("invalid_request_error", "BadRequestError"), 400),
    **dict.fromkeys(("not_found_error", "NotFoundError", "NOT_FOUND"), 404),
    **dict.fromkeys(("request_too_large",), 413),
}
"""The statuses, by code or type, of errors that come without a status in the middle of an answer."""

MODERATION = re.compile(
    r"flagged|moderat|content[ _]policy|content[ _]filter|content management policy|guardrail", re.I
)
OF_THE_HOUSE = re.compile(
    r"\b(?:organi[sz]ation|account|billing|plan|credits?|quota|balance|api[ _-]?key|deployment|subscription|tier|project"
    r"|[TR]P[MD]|(?:tokens|requests) per (?:min|day|minute))\b|\blimit:? \d",
    re.I,
)
"""Words in the message of an overload that reveal the operator's standing with the upstream."""

OWED = re.compile(
    r"\bcredit balance|\bplans? (?:&|and) billing|\bbilling (?:details|hard limit|soft limit)|\byour (?:current )?quota"
    r"|\b(?:your|this) (?:organi[sz]ation|account) (?:is|has been|was|must be)\b",
    re.I,
)
"""Words in the message of a refusal, whatever its status, that are about the operator's debts to the upstream."""

TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,63}")
"""The type of an error, as OpenAI and engines write it."""

AGAIN = re.compile(r"try again in (\d+(?:\.\d+)?) ?(ms|s)\b", re.I)
RETRY_MOST_S = 24 * 3600

VIOLATIONS_MOST = 10
WORDLESS = "The upstream refused the request"
OVERLOADED = "The upstream is overloaded."
BROKEN_OFF = "The upstream failed in the middle of its answer."


def is_error(body: dict[str, Any]) -> bool:
    """Return whether the JSON of an answer, or of an event of an answer, is an error."""
    if body.get("error") or body.get("object") == "error":
        return True
    if "choices" in body or "type" in body or "object" in body or "output" in body:
        return False
    return isinstance(body.get("detail"), str | list) or isinstance(body.get("message"), str)


def refused(body: Any, status: int, house: House) -> UpstreamRefused:
    """Return an upstream's refusal for the caller: message, code, type and field, without the operator's own data."""
    details = _error_in(body)
    message = _message(details)
    names = {
        name: discreet_name(details[name], house) for name in ("code", "param") if isinstance(details.get(name), str)
    }
    error = UpstreamRefused(
        f"{WORDLESS} with {status}." if message is None else discreet(message, house),
        status,
        names.get("code"),
        names.get("param"),
    )
    error.type = _type(details, house) or error.type
    return error


def failure(body: Any, status: int, headers: Mapping[str, str], house: House, now: float) -> UpstreamError:
    """Return the error for an answer with an error's status; ``headers`` are those that tell when to retry."""
    if _is_callers(status, body):
        error: UpstreamError = refused(body, status, house)
    elif status in OVERLOADS:
        error = UpstreamOverloaded(_overload(_error_in(body), house))
    else:
        return UpstreamUnavailable("The upstream failed to answer.")
    wait_s = retry_after_s(headers, now)
    if wait_s is None and status in OVERLOADS:
        wait_s = 1
    if wait_s is not None:
        error.headers = {"retry-after": str(wait_s)}
    return error


def failure_within(body: Any, house: House) -> UpstreamError:
    """Return the error for an upstream's error in the middle of an answer, or in place of an answer."""
    details = _error_in(body)
    status = _status(details)
    if _is_callers(status, body):
        return refused(body, status, house)
    if status in OVERLOADS:
        error: UpstreamError = UpstreamOverloaded(_overload(details, house))
        error.headers = {"retry-after": str(_again_s(details) or 1)}
    else:
        error = UpstreamUnavailable(BROKEN_OFF)
        if status < 500:
            return error  # the matter is between the operator and the upstream
    error.type = _type(details, house) or error.type
    code = details.get("code")
    if isinstance(code, str) and (code := discreet_name(code, house)):
        error.code = code
    return error


def _is_callers(status: int, body: Any) -> bool:
    """Return whether a refusal is about what the caller sent, not about the operator's account or debts."""
    details = _error_in(body)
    names, message = (details.get("code"), details.get("type")), _message(details) or ""
    if any(isinstance(name, str) and OF_CODES.get(name) == OWES for name in names) or OWED.search(message):
        return False
    texts = (*names, message)
    is_moderation = any(isinstance(text, str) and MODERATION.search(text) for text in texts)
    return status in CALLERS or (status == FORBIDDEN and is_moderation)


def retry_after_s(headers: Mapping[str, str], now: float) -> int | None:
    """Return how many whole seconds an upstream asks to wait, 1 to a day, from seconds, milliseconds or a date."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if not value:
            continue
        try:
            return _bounded(float(value) * unit_s)
        except ValueError:
            pass
        try:
            return _bounded(parsedate_to_datetime(value).timestamp() - now)
        except (ValueError, OverflowError):
            continue
    return None


def _bounded(seconds: float) -> int:
    if math.isnan(seconds):
        raise ValueError(seconds)
    return max(1, math.ceil(min(seconds, RETRY_MOST_S)))


def _again_s(details: dict[str, Any]) -> int | None:
    match = AGAIN.search(_message(details) or "")
    return None if match is None else _bounded(float(match[1]) * (0.001 if match[2].lower() == "ms" else 1.0))


def _overload(details: dict[str, Any], house: House) -> str:
    """Return the message of an overload: the upstream's, where it reveals nothing of the operator, else a general one."""
    message = _message(details)
    if message is not None and not OF_THE_HOUSE.search(message) and discreet(message, house) == message:
        return message
    wait_s = _again_s(details)
    return OVERLOADED if wait_s is None else f"{OVERLOADED} Please try again in {wait_s}s."


def _error_in(body: Any) -> dict[str, Any]:
    """Return the object that describes the error, wherever the upstream's format puts it."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]  # as Gemini writes them
    if not isinstance(body, dict):
        return {}
    error = body.get("error")
    if isinstance(error, str) and error:
        return {"message": error, **{name: value for name, value in body.items() if name != "error" and value}}
    return error if isinstance(error, dict) else body


def _status(details: dict[str, Any]) -> int:
    """Return the status of an error in the middle of an answer, by its fields; 500 where they do not tell."""
    names = [details.get("code"), details.get("type"), details.get("status")]
    known = [OF_CODES[name] for name in names if isinstance(name, str) and name in OF_CODES]
    if OWES in known:
        return OWES
    for number in (details.get("status_code"), details.get("status"), details.get("code")):
        if isinstance(number, str) and re.fullmatch(r"[45]\d\d", number):
            number = int(number)
        if type(number) is int and 400 <= number < 600:
            return number
    return known[0] if known else 500


def _type(details: dict[str, Any], house: House) -> str | None:
    for name in ("type", "error_type"):
        if isinstance(kind := details.get(name), str) and TYPE.fullmatch(kind) and discreet_name(kind, house):
            return kind
    return None


def _message(error: dict[str, Any]) -> str | None:
    """Return an error's message, wherever the upstream's format puts it, or None."""
    for name in ("message", "detail", "error_description", "msg", "title", "error"):
        value = error.get(name)
        if isinstance(value, dict):
            value = _message(value)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, list) and value:
            return "; ".join(map(_violation, value[:VIOLATIONS_MOST]))
    return None


def _violation(violation: Any) -> str:
    """Return one of the violations that FastAPI lists: where it is and what is wrong, without the value that was sent."""
    if not isinstance(violation, dict):
        return str(violation)
    place = violation.get("loc")
    field = ".".join(map(str, place)) if isinstance(place, list) else ""
    return ": ".join(part for part in (field, _message(violation) or "") if part)
