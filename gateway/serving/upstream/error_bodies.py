"""An upstream's errors as their callers may see them: status, and the upstream's words, code and type wherever these
reveal nothing of the operator."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from gateway.errors import UpstreamError, UpstreamOverloaded, UpstreamRefused, UpstreamUnavailable
from gateway.serving.upstream.error_redaction import House, discreet, discreet_name

CALLERS = frozenset({400, 404, 408, 409, 410, 413, 415, 422, 424, 451})
"""Statuses of refusals that the caller can act on or has to know."""

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
"""Statuses of errors that come without a status, in the middle of an answer, by their code or type."""

MODERATION = re.compile(
    r"flagged|moderat|content[ _]policy|content[ _]filter|content management policy|guardrail", re.I
)
OF_THE_HOUSE = re.compile(
    r"\b(?:organi[sz]ation|account|billing|plan|credits?|quota|balance|api[ _-]?key|deployment|subscription|tier|project"
    r"|[TR]P[MD]|(?:tokens|requests) per (?:min|day|minute))\b|\blimit:? \d",
    re.I,
)
"""Words of an overload that reveal the operator's standing with the upstream."""

OWED = re.compile(
    r"\bcredit balance|\bplans? (?:&|and) billing|\bbilling (?:details|hard limit|soft limit)|\byour (?:current )?quota"
    r"|\b(?:your|this) (?:organi[sz]ation|account) (?:is|has been|was|must be)\b",
    re.I,
)
"""Words of a refusal, whatever its status, about what the operator owes the upstream."""

TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,63}")
"""The type of an error, as OpenAI and engines write it."""

AGAIN = re.compile(r"try again in (\d+(?:\.\d+)?) ?(ms|s)\b", re.I)
RETRY_MOST_S = 24 * 3600

VIOLATIONS_MOST = 10
WORDLESS = "The upstream refused the request"
OVERLOADED = "The upstream is overloaded."
BROKEN_OFF = "The upstream failed in the middle of its answer."


def is_error(said: dict[str, Any]) -> bool:
    """Return whether JSON in the place of an answer, or of an event of one, is an error."""
    if said.get("error") or said.get("object") == "error":
        return True
    if "choices" in said or "type" in said or "object" in said or "output" in said:
        return False
    return isinstance(said.get("detail"), str | list) or isinstance(said.get("message"), str)


def refused(body: Any, status: int, house: House) -> UpstreamRefused:
    """Return an upstream's refusal as the caller may see it: words, code, type and field, and nothing of the operator's."""
    said = _error_in(body)
    message = _message(said)
    names = {name: discreet_name(said[name], house) for name in ("code", "param") if isinstance(said.get(name), str)}
    error = UpstreamRefused(
        f"{WORDLESS} with {status}." if message is None else discreet(message, house),
        status,
        names.get("code"),
        names.get("param"),
    )
    error.type = _type(said, house) or error.type
    return error


def failure(body: Any, status: int, headers: Mapping[str, str], house: House, now: float) -> UpstreamError:
    """Return the error of an answer with an error's status; ``headers`` has the headers that matter."""
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
    """Return the error for an error in the middle of an answer, or in place of one."""
    said = _error_in(body)
    status = _status(said)
    if _is_callers(status, body):
        return refused(body, status, house)
    if status in OVERLOADS:
        error: UpstreamError = UpstreamOverloaded(_overload(said, house))
        error.headers = {"retry-after": str(_again_s(said) or 1)}
    else:
        error = UpstreamUnavailable(BROKEN_OFF)
        if status < 500:
            return error  # the matter is between the operator and the upstream
    error.type = _type(said, house) or error.type
    code = said.get("code")
    if isinstance(code, str) and (code := discreet_name(code, house)):
        error.code = code
    return error


def _is_callers(status: int, body: Any) -> bool:
    """Return whether a refusal is about what the caller sent, not about the operator's account or debts."""
    said = _error_in(body)
    names, message = (said.get("code"), said.get("type")), _message(said) or ""
    if any(isinstance(name, str) and OF_CODES.get(name) == OWES for name in names) or OWED.search(message):
        return False
    told = (*names, message)
    is_moderation = any(isinstance(one, str) and MODERATION.search(one) for one in told)
    return status in CALLERS or (status == FORBIDDEN and is_moderation)


def retry_after_s(headers: Mapping[str, str], now: float) -> int | None:
    """Return the seconds that an upstream asks to wait, whole and at least one. It may write milliseconds, or a date."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        said = headers.get(name)
        if not said:
            continue
        try:
            return _bounded(float(said) * unit_s)
        except ValueError:
            pass
        try:
            return _bounded(parsedate_to_datetime(said).timestamp() - now)
        except (ValueError, OverflowError):
            continue
    return None


def _bounded(seconds: float) -> int:
    if math.isnan(seconds):
        raise ValueError(seconds)
    return max(1, math.ceil(min(seconds, RETRY_MOST_S)))


def _again_s(said: dict[str, Any]) -> int | None:
    found = AGAIN.search(_message(said) or "")
    return None if found is None else _bounded(float(found[1]) * (0.001 if found[2].lower() == "ms" else 1.0))


def _overload(said: dict[str, Any], house: House) -> str:
    """Return the message of an overload: the upstream's words, where they reveal nothing else."""
    message = _message(said)
    if message is not None and not OF_THE_HOUSE.search(message) and discreet(message, house) == message:
        return message
    wait_s = _again_s(said)
    return OVERLOADED if wait_s is None else f"{OVERLOADED} Please try again in {wait_s}s."


def _error_in(body: Any) -> dict[str, Any]:
    """Return the object that describes the error, wherever the upstream's format has it."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]  # as Gemini writes them
    if not isinstance(body, dict):
        return {}
    error = body.get("error")
    if isinstance(error, str) and error:
        return {"message": error, **{name: value for name, value in body.items() if name != "error" and value}}
    return error if isinstance(error, dict) else body


def _status(said: dict[str, Any]) -> int:
    """Return the status of an error that came without a status."""
    names = [said.get("code"), said.get("type"), said.get("status")]
    known = [OF_CODES[name] for name in names if isinstance(name, str) and name in OF_CODES]
    if OWES in known:
        return OWES
    for number in (said.get("status_code"), said.get("status"), said.get("code")):
        if isinstance(number, str) and re.fullmatch(r"[45]\d\d", number):
            number = int(number)
        if type(number) is int and 400 <= number < 600:
            return number
    return known[0] if known else 500


def _type(said: dict[str, Any], house: House) -> str | None:
    for name in ("type", "error_type"):
        if isinstance(kind := said.get(name), str) and TYPE.fullmatch(kind) and discreet_name(kind, house):
            return kind
    return None


def _message(error: dict[str, Any]) -> str | None:
    """Return an error's words, wherever the upstream's format has them."""
    for name in ("message", "detail", "error_description", "msg", "title", "error"):
        said = error.get(name)
        if isinstance(said, dict):
            said = _message(said)
        if isinstance(said, str) and said:
            return said
        if isinstance(said, list) and said:
            return "; ".join(map(_violation, said[:VIOLATIONS_MOST]))
    return None


def _violation(one: Any) -> str:
    """Return one of several violations, as FastAPI lists them: what is wrong and where. What was sent is not repeated."""
    if not isinstance(one, dict):
        return str(one)
    place = one.get("loc")
    where = ".".join(map(str, place)) if isinstance(place, list) else ""
    return ": ".join(part for part in (where, _message(one) or "") if part)
