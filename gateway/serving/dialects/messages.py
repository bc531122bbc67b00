"""Anthropic Messages, and their count: which field is the limit, which may pass, how an error looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import BadRequest, EndUserQuotaReached, TokencapError, UpstreamError
from gateway.serving.caller.json_body import Body, flag, named, positive
from gateway.serving.dialects.answers.messages_answer import MessagesReading
from gateway.serving.dialects.answers.textless import PlainReading
from gateway.serving.dialects.answers.whole import comes_whole, streamed
from gateway.serving.dialects.chat import TOOL_RESULTS_MOST, text_of
from gateway.serving.dialects.parameters import Wanted
from gateway.serving.dialects.requests.history import history_of
from gateway.serving.dialects.requests.media import Measured
from gateway.serving.dialects.requests.prompt import Prompt, prompt_of
from gateway.serving.dialects.requests.thinking import bound_thought
from gateway.serving.dialects.requests.user_id import identity
from gateway.serving.fields.field_filter import Sieve
from gateway.serving.json_codec import dumps
from gateway.serving.sse import named_event
from gateway.serving.upstream.profiles import COUNT_TOKENS, MESSAGES, Profile

END_USER = "metadata.user_id"

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
OVERLOADS = frozenset({"overloaded_error", "rate_limit_error"})


class Anthropic:
    """What the two routes share."""

    id_headers: tuple[bytes, ...] = (b"x-request-id", b"request-id")
    headers: Mapping[str, str] = {"anthropic-version": "2023-06-01"}
    keep_alive = named_event("ping", b'{"type":"ping"}')

    endpoint: str

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._sieve = Sieve(self.endpoint, profile)

    def refusal(self, error: TokencapError, request_id: str) -> Any:
        kind = ERROR_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        if isinstance(error, UpstreamError) and error.type in OVERLOADS:
            kind = error.type
        param = END_USER if isinstance(error, EndUserQuotaReached) else error.param
        told = {"type": kind, "message": error.message, "code": error.code, "param": param}
        return {"type": "error", "error": told, "request_id": request_id}

    def broken_off(self, error: TokencapError, request_id: str) -> bytes:
        return named_event("error", dumps(self.refusal(error, request_id)))


class Messages(Anthropic):
    """``POST /v1/messages``."""

    endpoint = MESSAGES
    path = "/messages"

    def read(self, body: Body, size: int) -> Wanted:
        model, messages = named(body, "model"), _messages(body)
        limit = positive(body, "max_tokens")
        if limit is None:
            raise BadRequest("max_tokens is required.", code="missing_required_parameter", param="max_tokens")
        who, results = identity(body), _tool_results(messages)
        measured = Measured(size, self._profile.media).take(messages)
        return Wanted(
            model=model,
            requested_tokens=limit,
            choices=1,
            stream=flag(body, "stream"),
            shows_usage=True,
            tool_results=results,
            brought_back=_last_answer(messages),
            input_bound=measured.bound,
            input_estimate=measured.estimate,
            dropped=self._sieve.dropped(body),
            history=history_of(messages) if results or body.get("tools") else "",
            brought_history=history_of(messages[:-1]) if results else "",
            end_user=who.end_user,
            conversation=who.session,
            comes_whole=comes_whole(self._profile, body),
        )

    def prompt(self, body: Body) -> Prompt | None:
        return prompt_of((body.get("system"), body["messages"]), body.get("tools"))

    def forward(self, body: Body, wanted: Wanted, *, grant: int, model: str) -> bytes:
        passed = self._sieve.passed(body, grant)
        wanted.dropped += bound_thought(passed, grant)
        asked = {"model": model, "max_tokens": grant, **streamed(body, wanted)}
        return dumps({**passed, **asked})

    def reading(self, wanted: Wanted, *, grant: int) -> MessagesReading:
        return MessagesReading(wanted, grant)


class CountTokens(Anthropic):
    """``POST /v1/messages/count_tokens``: nothing is generated, and nothing of it is billed."""

    endpoint = COUNT_TOKENS
    path = "/messages/count_tokens"

    def read(self, body: Body, size: int) -> Wanted:
        model = named(body, "model")
        _messages(body)
        return Wanted(
            model=model,
            requested_tokens=None,
            choices=1,
            stream=False,
            shows_usage=False,
            tool_results=(),
            brought_back=None,
            input_bound=0,
            input_estimate=0,
            dropped=self._sieve.dropped(body),
            end_user=identity(body).end_user,
            generates=False,
        )

    def prompt(self, body: Body) -> Prompt | None:
        return None

    def forward(self, body: Body, wanted: Wanted, *, grant: int, model: str) -> bytes:
        return dumps({**self._sieve.passed(body), "model": model})

    def reading(self, wanted: Wanted, *, grant: int) -> PlainReading:
        return PlainReading(wanted, grant)


def _messages(body: Body) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise BadRequest("messages is a list of at least one object.", code="invalid_type", param="messages")
    return messages


def _tool_results(messages: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the tool calls answered in the last message, newest first."""
    content = messages[-1].get("content")
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    calls = [block.get("tool_use_id") for block in reversed(blocks) if block.get("type") == "tool_result"]
    return tuple(call for call in calls if isinstance(call, str))[:TOOL_RESULTS_MOST]


def _last_answer(messages: list[dict[str, Any]]) -> str | None:
    last = next((message for message in reversed(messages) if message.get("role") == "assistant"), None)
    return text_of(last.get("content")) if last else None
