"""A limit that is longer than the upstream's model: where nobody sent it, it is asked for again, as long as it may be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from gateway.errors import UpstreamRefused
from gateway.serving.fields.guarded_fields import LIMITS
from gateway.serving.json_codec import dumps, loads

LENGTH = re.compile(
    r"maximum context length (?:is|of) (\d+)|max_model_len=(\d+)|(\d+) maximum context length"
    r"|`max_new_tokens` must be <= (\d+)|length limit of (\d+)",
    re.IGNORECASE,
)
"""How long the model is, as vLLM, SGLang, OpenAI, Mistral and TGI say it."""

INPUT = re.compile(
    r"(\d+) (?:tokens )?(?:in|from) (?:the|your) (?:messages|prompt|input)|(\d+) input tokens|Given: (\d+) `inputs`",
    re.IGNORECASE,
)
"""How many tokens of it the prompt has."""

NAMES = frozenset(LIMITS.split())


def as_long_as_it_may_be(error: UpstreamRefused, forwarded: bytes) -> bytes | None:
    """Return a body with the longest limit that the model has room for, or None where that was not what was wrong."""
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
    found = pattern.search(message)
    return None if found is None else int(_first(found.groups())[:15])


def _first(groups: Iterable[str | None]) -> str:
    return next(group for group in groups if group)
