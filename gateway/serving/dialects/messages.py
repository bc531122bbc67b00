"""Anthropic Messages and their token counts: how a request is read and forwarded, and how its answer is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from gateway.errors import BadRequest, EndUserQuotaReached, TokencapError, UpstreamError, UpstreamUnavailable
from gateway.serving.caller.json_body import Body, flag, named, positive
from gateway.serving.dialects.answers.message_blocks import TEXTS, Blocks, events_of
from gateway.serving.dialects.answers.stream import Reading, strings_in
from gateway.serving.dialects.answers.textless import PlainReading
from gateway.serving.dialects.answers.whole_answer import comes_whole, streamed
from gateway.serving.dialects.chat import TOOL_RESULTS_MOST, text_of
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.dialects.requests.identity import history_of, identity
from gateway.serving.dialects.requests.media import Measured
from gateway.serving.dialects.requests.prompt import Prompt, prompt_of
from gateway.serving.dialects.requests.thinking import bound_thought
from gateway.serving.fields.answer_fields import (
    BLOCK,
    BLOCK_DELTA,
    shown_usage,
    without_houses_own,
    without_unknown_texts,
)
from gateway.serving.fields.field_filter import Sieve
from gateway.serving.json_codec import dumps
from gateway.serving.meter import Usage, count, reported_output
from gateway.serving.sse import named_event
from gateway.serving.upstream.profiles import COUNT_TOKENS, MESSAGES, Profile

FRAME = {"id": "", "type": "message", "role": "assistant"}
ENDINGS = ("content", "stop_reason", "stop_sequence")

CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Counts of cached input tokens, which a usage reports beside its input tokens."""

REASONS = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class MessagesReading(Reading):
    """Reads named events: a message, its blocks one after another, and at the end the stop reason and the usage."""

    def __init__(self, request: Parameters, grant: int) -> None:
        super().__init__(request, grant)
        self._message: dict[str, Any] = {}
        self._blocks = Blocks()
        self._is_begun = False
        self._ending: dict[str, Any] = {}  # stop_reason, stop_sequence and the other fields of the last delta
        self._beside: dict[str, Any] = {}  # other fields of ``message_delta`` events, without the usage

    def _take(self, event: dict[str, Any]) -> bytes:
        kind = str(event.get("type"))
        without_houses_own(event)
        if kind == "message_start":
            return self._show(self._begin(event))
        if kind == "content_block_start":
            block = _known(event, "content_block", BLOCK)
            if not self._counted(block):
                return self._show(self._blocks.closing())
            return self._show(self._taken(self._blocks.begin(event)))
        if kind == "content_block_delta":
            if not self._counted(_known(event, "delta", BLOCK_DELTA)):
                return self._show(self._blocks.closing())
            return self._show(self._taken(self._blocks.grow(event)))
        if kind == "content_block_stop":
            return self._show(self._blocks.close(event))
        if kind == "message_delta":
            self._end(event)
        elif kind == "message_stop":
            self.ended_by_itself = not self._was_cut
            return self._show(self._blocks.closing())
        return self._show([event] if kind == "ping" else [])

    def close(self) -> bytes:
        shown = super().close()
        return shown + self._show(self._blocks.closing()) if self.is_over() else shown

    def _show(self, events: Iterable[dict[str, Any]]) -> bytes:
        """Return events for a streaming caller; the first is the event that begins the message, as clients expect."""
        self.tool_calls = self._blocks.tool_calls
        shown = []
        for event in events:
            if not self._is_begun and event["type"] not in ("message_start", "ping"):
                shown += self._begin({"message": {}})
            shown.append(event)
        if not self._request.stream:
            return b""
        return b"".join(named_event(event["type"], dumps(event)) for event in shown)

    def _begin(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Take a message's beginning; return the events to show: none where the message has already begun."""
        message = event.get("message")
        if not isinstance(message, dict):
            return []
        without_houses_own(message)
        reported = message.get("usage")
        if isinstance(reported, dict):
            reported = shown_usage(reported)
            self._reported_usage = _later(self._reported_usage, reported)
            self.usage = replace(self.usage, **_input(self._reported_usage))  # the reported output lacks the text
        if self._is_begun:
            return []
        self._is_begun = True
        begun = {"stop_reason": None, "stop_sequence": None, **message, "model": self._request.model, "content": []}
        usage = {"input_tokens": self._request.input_estimate, "output_tokens": 0}
        usage |= {
            name: value for name, value in (reported if isinstance(reported, dict) else {}).items() if value is not None
        }
        self._message = {**FRAME, **begun, "usage": usage}
        return [{"type": "message_start", "message": self._message}]

    def _counted(self, piece: Any) -> bool:
        """Count the model's text in a block or a delta; return whether it is within the grant."""
        if not isinstance(piece, dict) or not any(isinstance(text := piece.get(name), str) and text for name in TEXTS):
            return True
        self._note_text()
        if not self._counts(0):
            return False
        self._remember(0, piece.get("text"))
        return True

    def _taken(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Note the new texts in events, and return the events."""
        for event in events:
            piece = event["content_block"] if "content_block" in event else event["delta"]
            self._wrote(0, [piece.get(name) for name in TEXTS])
        return events

    def _end(self, event: dict[str, Any]) -> None:
        """Take the message's end and its usage."""
        delta, reported = event.get("delta"), event.get("usage")
        if isinstance(reported, dict):
            latest = _later(self._reported_usage, reported)
            thought = _thought(reported)
            output, is_disputed = reported_output(count(reported.get("output_tokens")), thought, None, None)
            self._note_usage(latest, Usage(output, **_input(latest), reasoning_tokens=thought, is_disputed=is_disputed))
        others = ((name, value) for name, value in event.items() if name not in ("type", "delta", "usage"))
        self._beside |= {name: value for name, value in others if value is not None}
        if isinstance(delta, dict) and isinstance(reason := delta.get("stop_reason"), str) and reason:
            self._ending = {**self._ending, **{name: value for name, value in delta.items() if value is not None}}
            self._ended[0] = REASONS.get(reason, "stop")

    def feed_whole(self, answer: Any) -> bytes:
        if not isinstance(answer, dict) or not isinstance(answer.get("content"), list):
            raise UpstreamUnavailable("The upstream's answer is not a message.")
        blocks = [dict(without_unknown_texts(block, BLOCK)) for block in answer["content"] if isinstance(block, dict)]
        begun = self._begin({"message": {name: value for name, value in answer.items() if name not in ENDINGS}})
        ending = {"stop_reason": answer.get("stop_reason") or "end_turn", "stop_sequence": answer.get("stop_sequence")}
        self._end({"delta": ending, "usage": answer.get("usage")})
        texts = [block.get(name) for block in blocks for name in ("text", "thinking", "input") if block.get(name)]
        made = self._made(texts)
        if made > self._granted:
            self._was_cut, self._ended[0] = True, "length"
            blocks = [
                {**block, name: self._part(text, made)}
                for block in blocks
                for name in ("text", "thinking")
                if isinstance(text := block.get(name), str)
            ]
        self._keep(0, strings_in(blocks))
        self._blocks.take_whole(blocks)
        self._remember(0, "".join(text for block in blocks if isinstance(text := block.get("text"), str)))
        self.ended_by_itself = True
        return self._show([*begun, *events_of(blocks)])

    def ending(self, billed: int, charge_nanousd: int | None, conversation_left: int | None) -> bytes:
        tokencap = {"charge_nanousd": charge_nanousd, "conversation_tokens_left": conversation_left}
        delta = {"stop_reason": "end_turn", "stop_sequence": None, **self._stop()}
        last = {"type": "message_delta", **self._beside, "delta": delta, "usage": self._shown_usage(billed)}
        last["tokencap"] = tokencap
        begun = b"" if self._is_begun else self._show(self._begin({"message": {}}))
        return (
            begun + named_event("message_delta", dumps(last)) + named_event("message_stop", b'{"type":"message_stop"}')
        )

    def whole(self, billed: int) -> Any:
        ended = {"stop_reason": "end_turn", "stop_sequence": None, **self._stop()}
        blocks = self._blocks.all
        return {
            **FRAME,
            "model": self._request.model,
            **self._message,
            **self._beside,
            "content": blocks,
            **ended,
            "usage": self._shown_usage(billed),
        }

    def _stop(self) -> dict[str, Any]:
        return {"stop_reason": "max_tokens", "stop_sequence": None} if self._was_cut else self._ending

    def _shown_usage(self, billed: int) -> dict[str, Any]:
        """Return the upstream's usage with the billed counts."""
        is_reported = self.input_tokens is None and self.usage.input_tokens is not None
        cached = sum(count(self._reported_usage.get(name)) or 0 for name in CACHED)
        own_input = {} if is_reported else {"input_tokens": max(self._input - cached, 0)}
        return {**self._reported_usage, **own_input, "output_tokens": billed}


def _known(event: dict[str, Any], name: str, known: frozenset[str]) -> Any:
    """Return an event's value under a name without uncounted texts; the event has the same value from now on."""
    if isinstance(value := event.get(name), dict):
        value = event[name] = without_unknown_texts(value, known)
    return value


def _later(before: dict[str, Any], latest: dict[str, Any]) -> dict[str, Any]:
    """Return a usage updated by a later usage.

    A value that is absent or null in the later usage keeps its earlier value, as does an input count that is zero or
    invalid there.
    """
    known = {
        name for name in latest if latest[name] is None or (name.endswith("input_tokens") and not count(latest[name]))
    }
    return {**before, **{name: value for name, value in latest.items() if name not in known or name not in before}}


def _input(usage: dict[str, Any]) -> dict[str, Any]:
    """Return the input tokens and how many of them were cached; Anthropic's own input count leaves cached parts out."""
    fresh, cached = count(usage.get("input_tokens")), count(usage.get("cache_read_input_tokens")) or 0
    cache_written = count(usage.get("cache_creation_input_tokens")) or 0
    return {"input_tokens": None if fresh is None else fresh + cached + cache_written, "cached_tokens": cached}


def _thought(usage: dict[str, Any]) -> int:
    details = usage.get("output_tokens_details")
    return count(details.get("thinking_tokens") if isinstance(details, dict) else None) or 0


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
    """The parts that Anthropic's two routes share."""

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
        details = {"type": kind, "message": error.message, "code": error.code, "param": param}
        return {"type": "error", "error": details, "request_id": request_id}

    def broken_off(self, error: TokencapError, request_id: str) -> bytes:
        return named_event("error", dumps(self.refusal(error, request_id)))


class Messages(Anthropic):
    """``POST /v1/messages``."""

    endpoint = MESSAGES
    path = "/messages"

    def read(self, body: Body, size: int) -> Parameters:
        model, messages = named(body, "model"), _messages(body)
        limit = positive(body, "max_tokens")
        if limit is None:
            raise BadRequest("max_tokens is required.", code="missing_required_parameter", param="max_tokens")
        user, results = identity(body), _tool_results(messages)
        measured = Measured(size, self._profile.media).take(messages)
        return Parameters(
            model=model,
            requested_tokens=limit,
            choices=1,
            stream=flag(body, "stream"),
            shows_usage=True,
            tool_results=results,
            resent_answer=_last_answer(messages),
            input_bound=measured.bound,
            input_estimate=measured.estimate,
            dropped=self._sieve.dropped(body),
            history=history_of(messages) if results or body.get("tools") else "",
            resent_history=history_of(messages[:-1]) if results else "",
            end_user=user.end_user,
            conversation=user.session,
            comes_whole=comes_whole(self._profile, body),
        )

    def prompt(self, body: Body) -> Prompt | None:
        return prompt_of((body.get("system"), body["messages"]), body.get("tools"))

    def forward(self, body: Body, request: Parameters, *, grant: int, model: str) -> bytes:
        passed = self._sieve.passed(body, grant)
        request.dropped += bound_thought(passed, grant)
        own_fields = {"model": model, "max_tokens": grant, **streamed(body, request)}
        return dumps({**passed, **own_fields})

    def reading(self, request: Parameters, *, grant: int) -> MessagesReading:
        return MessagesReading(request, grant)


class CountTokens(Anthropic):
    """``POST /v1/messages/count_tokens``: nothing is generated and nothing is billed."""

    endpoint = COUNT_TOKENS
    path = "/messages/count_tokens"

    def read(self, body: Body, size: int) -> Parameters:
        model = named(body, "model")
        _messages(body)
        return Parameters(
            model=model,
            requested_tokens=None,
            choices=1,
            stream=False,
            shows_usage=False,
            tool_results=(),
            resent_answer=None,
            input_bound=0,
            input_estimate=0,
            dropped=self._sieve.dropped(body),
            end_user=identity(body).end_user,
            generates=False,
        )

    def prompt(self, body: Body) -> Prompt | None:
        return None

    def forward(self, body: Body, request: Parameters, *, grant: int, model: str) -> bytes:
        return dumps({**self._sieve.passed(body), "model": model})

    def reading(self, request: Parameters, *, grant: int) -> PlainReading:
        return PlainReading(request, grant)


def _messages(body: Body) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise BadRequest("messages is a list of at least one object.", code="invalid_type", param="messages")
    return messages


def _tool_results(messages: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the ids of the tool calls that the last message answers, newest first."""
    content = messages[-1].get("content")
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    calls = [block.get("tool_use_id") for block in reversed(blocks) if block.get("type") == "tool_result"]
    return tuple(call for call in calls if isinstance(call, str))[:TOOL_RESULTS_MOST]


def _last_answer(messages: list[dict[str, Any]]) -> str | None:
    last = next((message for message in reversed(messages) if message.get("role") == "assistant"), None)
    return text_of(last.get("content")) if last else None
