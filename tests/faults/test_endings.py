"""However a call ends, it has exactly one record, right to the token, holds nothing, and has closed the upstream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.faults.calls import CAP, Faulty
from tests.faults.truth import Script


@dataclass(frozen=True)
class Ending:
    """A script, and its expected record: how the answer ended, tokens counted, source of the count, and the status."""

    script: Script
    finish: str
    tokens: int
    source: str = "upstream"
    tier: str = "small"
    more: dict[str, Any] = field(default_factory=dict)
    status: int = 200


WHOLE = {
    "complete": Ending(Script(), "complete", 10),
    "tool calls": Ending(Script(tool_call=True, ending="tool_calls"), "tool_calls", 10),
    "function call": Ending(Script(ending="function_call"), "tool_calls", 10),
    "cap kept": Ending(Script(tokens=50), "cap", CAP),
    "cap ignored": Ending(Script(tokens=100_000, obeys=False), "cap", CAP, "counted"),
    "exactly the cap": Ending(Script(tokens=CAP), "complete", CAP),
    "caller's limit": Ending(Script(tokens=50), "caller_limit", 5, more={"max_tokens": 5}),
    "filtered": Ending(Script(ending="content_filter"), "filtered", 10),
    "context": Ending(Script(ending="length"), "context", 10),
    "period": Ending(Script(tokens=50), "period", 17, tier="scarce"),
    "a reason nobody knows": Ending(Script(ending="eos"), "complete", 10),
    "no reason": Ending(Script(ending=None), "complete", 10),
    "no token": Ending(Script(tokens=0), "complete", 0),
    "three choices": Ending(Script(tokens=4), "complete", 12, more={"n": 3}),
    "three choices cut": Ending(Script(tokens=10**6, obeys=False), "cap", 18, "counted", more={"n": 3}),
    "no done": Ending(Script(fault="no done"), "complete", 10),
    "hang before done": Ending(Script(fault="hang before done"), "complete", 10),
    "hang before done, no usage": Ending(Script(fault="hang before done", usage="missing"), "complete", 10, "counted"),
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_that_comes_to_its_end_is_recorded_as_it_ended(faulty: Faulty, name: str, stream: bool) -> None:
    ending = WHOLE[name]
    who = faulty.loop.customer(ending.tier)
    answer = faulty.post(who, ending.script, stream=stream, **ending.more)

    assert answer.status_code == 200, answer.text
    assert answer.text.endswith("data: [DONE]\n\n") == stream
    faulty.until_over(who)
    (record,) = faulty.loop.usage(who)
    outcome = (record["finish"], record["output_tokens"], record["billed_output_tokens"], record["usage_source"])
    assert outcome == (ending.finish, ending.tokens, ending.tokens, ending.source)
    assert record["id"] == answer.headers["x-request-id"]


BROKEN = {
    "hang before the first token": (Script(fault="hang before token"), 504),
    "hang in the middle": (Script(fault="hang", at=5), 504),
    "error event before the first token": (Script(fault="error event"), 502),
    "error event in the middle": (Script(fault="error event", at=5), 502),
    "reset in the middle": (Script(fault="reset", at=5), 502),
    "cut without its end": (Script(fault="cut", at=5), 502),
    "cut in a tool call": (Script(fault="cut", at=5, tool_call=True), 502),
    "not json": (Script(fault="not json", at=5), 502),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_that_breaks_off_is_billed_what_its_caller_was_sent(faulty: Faulty, name: str) -> None:
    script, _ = BROKEN[name]
    who = faulty.loop.customer("small")
    answer = faulty.post(who, script, stream=True)

    assert answer.status_code == 200
    assert '{"error":' in answer.text.replace('{"error": ', '{"error":')
    assert "[DONE]" not in answer.text
    faulty.until_over(who)
    (record,) = faulty.loop.usage(who)
    outcome = (record["finish"], record["output_tokens"], record["billed_output_tokens"], record["usage_source"])
    assert outcome == ("upstream_error", script.at, script.at, "counted")
    assert faulty.upstream_call(record).tokens == script.at


@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_that_breaks_off_before_its_caller_has_any_is_counted_not_billed(faulty: Faulty, name: str) -> None:
    script, status = BROKEN[name]
    who = faulty.loop.customer("small")
    answer = faulty.post(who, script)

    assert answer.status_code == status
    faulty.until_over(who)
    (record,) = faulty.loop.usage(who)
    outcome = (record["finish"], record["output_tokens"], record["billed_output_tokens"], record["charge_nanousd"])
    assert outcome == ("upstream_error", script.at, 0, 0)


UNANSWERED = {
    "an error": (Script(fault="status", status=500), 502, "upstream_unavailable"),
    "no authority": (Script(fault="status", status=401), 502, "upstream_unavailable"),
    "overload": (Script(fault="status", status=429), 503, "upstream_overloaded"),
    "a refusal": (Script(fault="status", status=422), 422, "because"),
    "a hang before the head": (Script(fault="hang before head"), 504, "upstream_timeout"),
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", UNANSWERED)
def test_a_call_that_the_upstream_did_not_answer_has_no_record(faulty: Faulty, name: str, stream: bool) -> None:
    script, status, code = UNANSWERED[name]
    who = faulty.loop.customer("small")
    answer = faulty.post(who, script, stream=stream)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    faulty.until_over(who)
    assert faulty.loop.usage(who) == []
    assert len(faulty.post(who, Script()).json()["choices"]) == 1, "the next call is admitted"
