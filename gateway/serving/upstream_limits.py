"""The upstream's own limits on a grant: its minimum number of tokens, and the length of its model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from gateway.errors import ConversationCapReached, InsufficientQuota, TokencapError, UpstreamRefused
from gateway.holds.hold import Hold
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.fields.guarded_fields import LIMITS
from gateway.serving.json_codec import dumps, loads

LENGTH = re.compile(
    r"maximum context length (?:is|of) (\d+)|max_model_len=(\d+)|(\d+) maximum context length"
    r"|`max_new_tokens` must be <= (\d+)|length limit of (\d+)",
    re.IGNORECASE,
)
"""The model's length, as vLLM, SGLang, OpenAI, Mistral and TGI report it."""

INPUT = re.compile(
    r"(\d+) (?:tokens )?(?:in|from) (?:the|your) (?:messages|prompt|input)|(\d+) input tokens|Given: (\d+) `inputs`",
    re.IGNORECASE,
)
"""The number of the prompt's tokens, as the same upstreams report it."""

NAMES = frozenset(LIMITS.split())


def with_longest_limit(error: UpstreamRefused, forwarded: bytes) -> bytes | None:
    """Return the body with the longest limit that the model has room for, or None where the limit was not at fault."""
    length, prompt = _number(LENGTH, error.message), _number(INPUT, error.message)
    if length is None:
        return None
    body: dict[str, Any] = loads(forwarded)
    limits = NAMES.intersection(body)
    most = length - (prompt or 1)
    if most < 1 or not limits or all(body[name] <= most for name in limits):
        return None
    return dumps({**body, **dict.fromkeys(limits, most)})


def _number(pattern: re.Pattern[str], message: str) -> int | None:
    match = pattern.search(message)
    return None if match is None else int(_first(match.groups())[:15])


def _first(groups: Iterable[str | None]) -> str:
    return next(group for group in groups if group)


NAMED_LIMIT = re.compile(r"max_(?:completion_|output_)?tokens")
TOO_LITTLE = re.compile(
    r"below minimum|(?:>=|greater than(?: or equal to)?|at least|minimum(?: value)? (?:of|is))\s*\d", re.IGNORECASE
)


def cap_reached(error: UpstreamRefused, request: Parameters, hold: Hold) -> TokencapError:
    """Return the refusal for the caller: a reached cap, where the grant was too small for the upstream.

    Where the caller's own limit is too small, the upstream's refusal is returned unchanged.
    """
    names_limit = NAMED_LIMIT.fullmatch(error.param or "") or NAMED_LIMIT.search(error.message)
    is_too_little = error.code == "integer_below_min_value" or TOO_LITTLE.search(error.message)
    is_callers = request.requested_tokens is not None and request.requested_tokens <= hold.grant
    if not (names_limit and is_too_little) or is_callers:
        return error
    remaining = f"{hold.grant} tokens are left, which is less than the model's endpoint takes for an answer"
    if hold.bound_by == "period":
        return InsufficientQuota(f"Of the period's tokens {remaining}.")
    return ConversationCapReached(f"Of this conversation's tokens {remaining}; begin a new one.")
