"""An error in the middle of a stream ends it in the format's own way, and the last event names the error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import UpstreamErrorEvent, UpstreamOverloaded
from gateway.serving.caller.json_body import Body
from gateway.serving.dialects.registry import dialects
from gateway.serving.upstream.error_bodies import failure_within
from gateway.serving.upstream.error_redaction import House
from gateway.serving.upstream.profiles import ANY, CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tests.wire.sdk_models import strict_json

DIALECTS = {dialect.endpoint: dialect for dialect in dialects(ANY)}
HELLO = [{"role": "user", "content": "Hello"}]
ASKED: dict[str, Body] = {
    CHAT: {"messages": HELLO},
    COMPLETIONS: {"prompt": "Hello"},
    MESSAGES: {"messages": HELLO, "max_tokens": 100},
    RESPONSES: {"input": "Hello"},
}


def last_event(endpoint: str, events: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the last event, parsed, that a caller is sent for a stream of these events, which ends in an error."""
    dialect = DIALECTS[endpoint]
    body = {"model": "aligned-1", "stream": True, **ASKED[endpoint]}
    reading = dialect.reading(dialect.read(body, 100), grant=100)
    reading.feed(b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events))
    assert isinstance(reading.failure, UpstreamErrorEvent)
    error = failure_within(reading.failure.event, House())
    last = (reading.failed(error) or dialect.broken_off(error, "req_1")).decode()
    name, _, data = last.removesuffix("\n\n").rpartition("data: ")
    event: dict[str, Any] = strict_json(data)
    assert name in ("", f"event: {event.get('type')}\n")
    return event


SLOW = {"message": "Slow down.", "type": "rate_limit_error", "code": "rate_limit_exceeded"}


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("choices", [{}, {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}])
def test_a_completion_says_so_beside_nothing_else(endpoint: str, choices: dict[str, Any]) -> None:
    assert last_event(endpoint, [{"error": SLOW, **choices}]) == {"error": {**SLOW, "param": None}}


@pytest.mark.parametrize("kind", ["overloaded_error", "rate_limit_error"])
def test_a_message_says_so_in_an_event_of_that_name(kind: str) -> None:
    begun = {"type": "message_start", "message": {"id": "msg_1", "role": "assistant", "content": []}}
    event = last_event(MESSAGES, [begun, {"type": "error", "error": {"type": kind, "message": "Overloaded"}}])

    assert event["type"] == "error"
    assert {name: event["error"][name] for name in ("type", "message")} == {"type": kind, "message": "Overloaded"}


CONTEXT = {"code": "context_length_exceeded", "message": "Your input exceeds the context window."}


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1", "status": "in_progress", "output": []}},
         {"type": "response.failed", "sequence_number": 1, "response": {"id": "resp_1", "status": "failed", "error": CONTEXT, "output": []}}],
        [{"type": "response.failed", "sequence_number": 0, "response": {"id": "resp_1", "status": "failed", "error": CONTEXT}}],
        [{"type": "error", "sequence_number": 0, **CONTEXT, "param": None}],
        [{"error": CONTEXT}],
    ],
    ids=["failed", "failed at once", "error", "error of a completion"],
)  # fmt: skip
def test_a_response_fails_with_its_code(events: list[dict[str, Any]]) -> None:
    """Codex repeats a call whose error has no code."""
    event = last_event(RESPONSES, events)

    assert event["type"] == "response.failed"
    assert event["response"]["status"] == "failed"
    assert event["response"]["error"] == CONTEXT
    assert event["response"]["model"] == "aligned-1"
    assert event["error"]["code"] == CONTEXT["code"]
    assert event["sequence_number"] == len(events) - 1


@pytest.mark.parametrize("kind", ["response.failed", "response.cancelled"])
@pytest.mark.parametrize("response", [{"id": "resp_1"}, {"id": "resp_1", "status": "in_progress"}, None])
def test_an_event_of_a_failure_is_one_whatever_its_response_says(kind: str, response: dict[str, Any] | None) -> None:
    """The event's name is enough: a failed answer is not sold as a complete answer."""
    begun = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}}

    event = last_event(RESPONSES, [begun, {"type": kind, "response": response}])

    assert (event["type"], event["response"]["status"]) == ("response.failed", "failed")
    assert event["error"]["message"]


@pytest.mark.parametrize(
    ("details", "reason"),
    [({"reason": "content_filter"}, "content_filter"), ({"reason": "max_output_tokens"}, "length"), (None, "length")],
)
def test_an_incomplete_response_was_filtered_or_cut(details: dict[str, str] | None, reason: str) -> None:
    dialect = DIALECTS[RESPONSES]
    reading = dialect.reading(dialect.read({"model": "aligned-1", "stream": True, **ASKED[RESPONSES]}, 100), grant=100)
    response = {"id": "resp_1", "status": "incomplete", "incomplete_details": details, "output": []}

    reading.feed(b"data: %b\n\n" % json.dumps({"type": "response.incomplete", "response": response}).encode())

    assert reading.reasons == [reason]


def test_an_overload_of_the_house_s_own_is_told_alike() -> None:
    event = DIALECTS[MESSAGES].broken_off(UpstreamOverloaded("Too many at once."), "req_1")

    assert b'"type":"overloaded_error"' in event
