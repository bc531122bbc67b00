"""The parts that OpenAI's dialects share: the format of errors, the names of limits, the stream fields of a body."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.errors import BadRequest, TokencapError
from gateway.serving.caller.json_body import Body, flag, positive
from gateway.serving.dialects.answers.whole_answer import streamed
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.dialects.requests.thinking import bound_thought
from gateway.serving.fields.field_filter import OBFUSCATION, Sieve
from gateway.serving.json_codec import dumps
from gateway.serving.sse import comment, event
from gateway.serving.upstream.profiles import Profile

ENGINE_LIMITS = ("n_predict", "num_predict", "max_new_tokens", "max_gen_tokens")
"""Engines' own names of the limit: a value in the body counts as a limit, and the upstream gets the grant instead."""


END_USER = ("safety_identifier", "user")
"""Fields that name the end user; the first is OpenAI's newer name for the second."""


class OpenAI:
    """Selects the fields for one upstream, and writes errors in OpenAI's format."""

    id_headers: tuple[bytes, ...] = (b"x-request-id",)
    headers: Mapping[str, str] = {}
    keep_alive = comment(b"keep-alive")

    endpoint: str

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._sieve = Sieve(self.endpoint, profile)

    def refusal(self, error: TokencapError, request_id: str) -> Any:
        return error.body()

    def broken_off(self, error: TokencapError, request_id: str) -> bytes:
        return event(dumps(error.body()))

    def _passed(self, body: Body, request: Parameters, grant: int) -> Body:
        """Return the fields of a body that reach the upstream, with thinking budgets below the grant."""
        passed = self._sieve.passed(body, grant)
        request.dropped += bound_thought(passed, grant)
        return passed

    def _limits(self, body: Body, own: Iterable[str], others: Iterable[str], grant: int) -> Body:
        """Return the grant in every field that the upstream may obey."""
        if self._profile.takes_engine_limits:
            own = (*own, *(name for name in others if body.get(name) is not None))
        return dict.fromkeys(own, grant)

    def _streamed(self, body: Body, request: Parameters) -> Body:
        """Return the fields that request a stream with its usage, or no stream."""
        if request.comes_whole or not self._profile.asks_usage:
            return streamed(body, request)
        requested = {"include_usage": True} | (
            {"continuous_usage_stats": True} if self._profile.continuous_usage else {}
        )
        options = body.get("stream_options") or {}
        if OBFUSCATION in options and self._sieve.heeds(OBFUSCATION):
            requested[OBFUSCATION] = options[OBFUSCATION]
        return {"stream": True, "stream_options": requested}


def shows_usage(body: Body) -> bool:
    """Return whether the body of a completion requests the usage of a stream.

    Raises:
        BadRequest: the usage is requested without a stream, or by a value that is not a boolean.
    """
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise BadRequest("stream_options is an object.", code="invalid_type", param="stream_options")
    if not flag(body, "stream"):
        raise BadRequest("stream_options is only for a stream.", param="stream_options")
    return flag(options, "include_usage")


def check_best_of(body: Body, choices: int) -> None:
    """Refuse a request for answers that are generated but shown to nobody.

    Raises:
        BadRequest: ``best_of`` requests more answers than ``choices``.
    """
    if "best_of" in body and (positive(body, "best_of") or 1) > choices:
        raise BadRequest("best_of is at most n: answers nobody sees are not sold.", param="best_of")
