"""Every format, streamed and not, however its answer ends: one record, right to the token, and nothing held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pricing.usage import FINISHES
from tests.faults.calls import CAP, Caller, Faulty
from tests.faults.dialects import Chat, Completions, Messages, Responses
from tests.faults.truth import Script
from tests.waiting import until

ALL = (Chat, Completions, Responses, Messages)
TALKING = (Chat, Responses, Messages)
ENDLESS = 10**6


@dataclass(frozen=True)
class Ending:
    """A script, and its record: how the answer ended, tokens billed, source of the count."""

    script: Script
    finish: str
    tokens: int
    source: str = "upstream"
    tier: str = "small"
    most: int | None = None
    formats: tuple[Any, ...] = ALL


WHOLE = {
    "complete": Ending(Script(), "complete", 10),
    "tool calls": Ending(Script(tool_call=True, ending="tool_calls"), "tool_calls", 10, formats=TALKING),
    "cap kept": Ending(Script(tokens=50), "cap", CAP),
    "cap ignored": Ending(Script(tokens=ENDLESS, obeys=False), "cap", CAP, "counted"),
    "cap ignored in a tool call": Ending(
        Script(tokens=ENDLESS, obeys=False, tool_call=True), "cap", CAP, "counted", formats=TALKING
    ),
    "exactly the cap": Ending(Script(tokens=CAP), "complete", CAP),
    "caller's limit": Ending(Script(tokens=50), "caller_limit", 5, most=5),
    "filtered": Ending(Script(ending="content_filter"), "filtered", 10),
    "context": Ending(Script(ending="length"), "context", 10),
    "period": Ending(Script(tokens=50), "period", 17, tier="scarce"),
    "no token": Ending(Script(tokens=0), "complete", 0),
    "usage missing": Ending(Script(usage="missing"), "complete", 10, "counted"),
    "usage null": Ending(Script(usage="null"), "complete", 10, "counted"),
    "usage zero": Ending(Script(usage="zero"), "complete", 10, "counted"),
    "usage negative": Ending(Script(usage="negative"), "complete", 10, "counted"),
    "usage in words": Ending(Script(usage="text"), "complete", 10, "counted"),
    "usage huge": Ending(Script(usage="huge"), "complete", 10, "counted"),
    "usage above": Ending(Script(usage="above"), "complete", CAP),
    "several tokens in a chunk": Ending(Script(per_chunk=3), "complete", 10),
    "several in a chunk, usage missing": Ending(
        Script(per_chunk=5, padding=1, usage="missing"), "complete", 9, "estimate"
    ),
    "torn into bytes": Ending(Script(torn=1), "complete", 10),
    "not streamed": Ending(Script(whole=True), "complete", 10),
    "not streamed, above": Ending(Script(whole=True, tokens=50, obeys=False), "cap", CAP),
}
CASES = [(dialect, name) for name, ending in WHOLE.items() for dialect in ending.formats]


def record_of(faulty: Faulty, who: Any) -> dict[str, Any]:
    faulty.until_over(who)
    [record] = faulty.loop.usage(who)
    return record


def named(case: Any) -> str:
    return case if isinstance(case, str) else str(case.__name__)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("dialect", "name"), CASES, ids=named)
def test_an_answer_that_comes_to_its_end(faulty: Faulty, dialect: Any, name: str, stream: bool) -> None:
    ending = WHOLE[name]
    who = faulty.loop.customer(ending.tier)
    limit = {} if ending.most is None else dialect.limit(ending.most)
    answer = faulty.say(dialect, who, ending.script, stream=stream, **limit)

    assert answer.status_code == 200, answer.text
    assert dialect.ends_well(answer.text) == stream
    record = record_of(faulty, who)
    outcome = (record["finish"], record["billed_output_tokens"], record["usage_source"], record["endpoint"])
    assert outcome == (ending.finish, ending.tokens, ending.source, dialect.endpoint)


BROKEN = {
    "hang before the first token": (Script(fault="hang before token"), 504),
    "hang in the middle": (Script(fault="hang", at=5), 504),
    "error event before the first token": (Script(fault="error event"), 502),
    "error event in the middle": (Script(fault="error event", at=5), 502),
    "reset in the middle": (Script(fault="reset", at=5), 502),
    "cut without its end": (Script(fault="cut", at=5), 502),
    "not json": (Script(fault="not json", at=5), 502),
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("dialect", ALL, ids=named)
def test_an_answer_that_breaks_off(faulty: Faulty, dialect: Any, name: str, stream: bool) -> None:
    script, status = BROKEN[name]
    who = faulty.loop.customer("small")
    answer = faulty.say(dialect, who, script, stream=stream)

    assert answer.status_code == (200 if stream else status)
    assert '"error":' in answer.text
    assert not dialect.ends_well(answer.text)
    record = record_of(faulty, who)
    outcome = (record["finish"], record["output_tokens"], record["billed_output_tokens"])
    assert outcome == ("upstream_error", script.at, script.at if stream else 0)


@pytest.mark.parametrize("dialect", ALL, ids=named)
def test_a_stream_of_several_tokens_in_a_piece_that_breaks_off_is_guessed_by_its_length(
    faulty: Faulty, dialect: Any
) -> None:
    """Five tokens of four characters in one piece count as one, and a quarter of the characters beyond six."""
    who = faulty.loop.customer("small")
    faulty.say(dialect, who, Script(per_chunk=5, padding=1, fault="error event", at=5), stream=True)

    record = record_of(faulty, who)
    assert (record["billed_output_tokens"], record["usage_source"]) == (4, "estimate")
    assert faulty.upstream_call(record).tokens == 5


LAST_EVENT = {
    # in most formats the events before the last one show that the answer is whole
    Chat: "complete",
    Completions: "complete",
    Messages: "complete",
    Responses: "upstream_error",
}


@pytest.mark.parametrize("fault", ["no done", "hang before done"])
@pytest.mark.parametrize("dialect", ALL, ids=named)
def test_an_answer_without_its_last_event(faulty: Faulty, dialect: Any, fault: str) -> None:
    who = faulty.loop.customer("small")
    faulty.say(dialect, who, Script(fault=fault), stream=True)

    record = record_of(faulty, who)
    assert (record["finish"], record["billed_output_tokens"]) == (LAST_EVENT[dialect], 10)


UNANSWERED = {
    "an error": (Script(fault="status", status=500), 502, "upstream_unavailable"),
    "no authority": (Script(fault="status", status=401), 502, "upstream_unavailable"),
    "overload": (Script(fault="status", status=529), 503, "upstream_overloaded"),
    "a refusal": (Script(fault="status", status=422), 422, "because"),
    "a hang before the head": (Script(fault="hang before head"), 504, "upstream_timeout"),
    "no such method": (Script(fault="status", status=405), 404, "not_found"),
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", UNANSWERED)
@pytest.mark.parametrize("dialect", ALL, ids=named)
def test_a_call_that_the_upstream_did_not_answer(faulty: Faulty, dialect: Any, name: str, stream: bool) -> None:
    script, status, code = UNANSWERED[name]
    who = faulty.loop.customer("small")
    answer = faulty.say(dialect, who, script, stream=stream)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert (answer.json().get("type") == "error") == (dialect is Messages)
    faulty.until_over(who)
    assert faulty.loop.usage(who) == []


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("dialect", ALL, ids=named)
def test_a_caller_who_hangs_up_pays_for_what_was_made(faulty: Faulty, dialect: Any, stream: bool) -> None:
    who = faulty.loop.customer("small")
    before = len(faulty.truth.calls)
    caller = Caller(faulty, who, Script(tokens=10, tokens_per_s=20), dialect=dialect, stream=stream)
    until(lambda: len(faulty.truth.calls) > before and list(faulty.truth.calls.values())[-1].tokens >= 4)
    caller.hang_up()

    record = record_of(faulty, who)
    assert record["finish"] == "disconnect"
    assert 3 <= record["billed_output_tokens"] <= faulty.upstream_call(record).tokens < 10


ELSEWHERE = {"shutdown", "recovered"}
"""Endings caused by workers; ``test_workers.py`` has them in every format."""


@pytest.mark.parametrize("dialect", ALL, ids=named)
def test_every_ending_that_a_record_can_have_is_tried_in_every_format(dialect: Any) -> None:
    whole = {ending.finish for ending in WHOLE.values() if dialect in ending.formats}
    without = set() if dialect in TALKING else {"tool_calls"}

    assert whole | {"upstream_error", "disconnect"} | ELSEWHERE | without == set(FINISHES)
    assert not whole & without
