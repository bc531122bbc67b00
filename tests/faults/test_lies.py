"""There is one decision for each usage that an upstream may report: gateway/serving/README.md has the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.serving.dialects.answers.chat_answer import ChatReading
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.meter import count_output
from tests.faults.calls import CAP, Faulty
from tests.faults.truth import Script

MADE = 10

LIES: dict[str, tuple[Script, int, int, str]] = {
    # the reported usage: the script, output tokens counted, tokens billed, source of the count
    "honest": (Script(), MADE, MADE, "upstream"),
    "missing": (Script(usage="missing"), MADE, MADE, "counted"),
    "null": (Script(usage="null"), MADE, MADE, "counted"),
    "zero": (Script(usage="zero"), MADE, MADE, "counted"),
    "zero for nothing": (Script(usage="zero", tokens=0), 0, 0, "upstream"),
    "negative": (Script(usage="negative"), MADE, MADE, "counted"),
    "text": (Script(usage="text"), MADE, MADE, "counted"),
    "huge": (Script(usage="huge"), MADE, MADE, "counted"),
    "twice": (Script(usage="twice"), MADE, MADE, "upstream"),
    "cumulative": (Script(usage="cumulative"), MADE, MADE, "upstream"),
    "per chunk": (Script(usage="per chunk"), MADE, MADE, "counted"),
    "middle": (Script(usage="middle"), MADE, MADE, "counted"),
    "above": (Script(usage="above"), MADE + 1_000, CAP, "upstream"),
    "wrong total": (Script(usage="wrong total"), MADE, MADE, "upstream"),
    "several tokens in a chunk": (Script(per_chunk=3), MADE, MADE, "upstream"),
    "several tokens in a chunk, missing": (Script(per_chunk=5, padding=1, usage="missing"), 9, 9, "estimate"),
    "several tokens in a chunk, broken off": (Script(per_chunk=5, padding=1, fault="cut", at=5), 4, 4, "estimate"),
    "several tokens in a chunk, cumulative, broken off": (
        Script(per_chunk=3, usage="cumulative", fault="error event", at=6),
        6,
        6,
        "continuous",
    ),
    "several tokens in a chunk, cumulative, no end": (
        Script(per_chunk=3, usage="cumulative", tokens=10**6, obeys=False),
        18,
        18,
        "continuous",
    ),
    "no end": (Script(tokens=10**6, obeys=False), CAP, CAP, "counted"),
    "no end, in a tool call": (Script(tokens=10**6, obeys=False, tool_call=True), CAP, CAP, "counted"),
    "torn into bytes": (Script(torn=1), MADE, MADE, "upstream"),
}

WHOLES: dict[str, tuple[Script, int, int, str]] = {
    "honest": (Script(whole=True), MADE, MADE, "upstream"),
    "missing": (Script(whole=True, usage="missing"), MADE, MADE, "estimate"),
    "zero": (Script(whole=True, usage="zero"), MADE, MADE, "estimate"),
    "above": (Script(whole=True, usage="above"), MADE + 1_000, CAP, "upstream"),
    "no end": (Script(whole=True, tokens=10**4, obeys=False), 10**4, CAP, "upstream"),
    "no end, missing": (Script(whole=True, usage="missing", tokens=10**4, obeys=False), CAP, CAP, "estimate"),
}


def outcome(record: dict[str, Any]) -> tuple[int, int, str]:
    return record["output_tokens"], record["billed_output_tokens"], record["usage_source"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_of_the_upstream_changes_no_bill(faulty: Faulty, lie: str, stream: bool) -> None:
    script, *expected = LIES[lie]
    who = faulty.loop.customer("small")
    faulty.post(who, script, stream=stream)
    faulty.until_over(who)

    (record,) = faulty.loop.usage(who)
    if script.fault and not stream:
        expected[1] = 0  # no caller received any of it
    assert outcome(record) == tuple(expected)
    assert record["billed_output_tokens"] <= faulty.upstream_call(record).tokens or lie == "above"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("lie", WHOLES)
def test_an_answer_that_comes_whole_is_taken_at_its_usage_or_estimated(faulty: Faulty, lie: str, stream: bool) -> None:
    script, *expected = WHOLES[lie]
    who = faulty.loop.customer("small")
    answer = faulty.post(who, script, stream=stream)
    faulty.until_over(who)

    assert answer.status_code == 200
    (record,) = faulty.loop.usage(who)
    assert outcome(record) == tuple(expected)
    assert len(answer.text) < 2_000, "text beyond the grant is not relayed"


def test_a_character_torn_between_two_packets_reaches_the_caller_whole(faulty: Faulty) -> None:
    who = faulty.loop.customer("small")
    answer = faulty.post(who, Script(torn=1))

    assert answer.json()["choices"][0]["message"]["content"] == "".join(f"ü{number} " for number in range(MADE))


def test_the_usage_that_a_caller_is_shown_is_the_one_that_is_billed(faulty: Faulty) -> None:
    who = faulty.loop.customer("small")
    answer = faulty.post(who, Script(usage="above"))

    usage = answer.json()["usage"]
    assert (usage["completion_tokens"], usage["total_tokens"]) == (CAP, usage["prompt_tokens"] + CAP)


def test_each_lie_has_its_line_in_the_table() -> None:
    readme = (Path(__file__).parents[2] / "gateway" / "serving" / "README.md").read_text("utf-8")
    lies = [*LIES, *(f"whole, {name}" for name in WHOLES)]
    missing = [lie for lie in lies if f"| {lie} |" not in readme]
    assert missing == []


SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
ANYTHING = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
NAMES = st.sampled_from(
    ["index", "delta", "finish_reason", "content", "tool_calls", "function_call", "role", "id", "message", "type"]
)
MANGLED = st.recursive(
    ANYTHING, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
USAGE = st.dictionaries(
    st.sampled_from(["completion_tokens", "prompt_tokens", "prompt_tokens_details", "completion_tokens_details"]),
    MANGLED | st.integers(0, 99),
)
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 3) | MANGLED,
        "delta": st.fixed_dictionaries({}, optional={"content": st.text() | MANGLED, "tool_calls": MANGLED}) | MANGLED,
        "message": st.fixed_dictionaries({}, optional={"content": st.text() | MANGLED}) | MANGLED,
        "finish_reason": st.sampled_from(["stop", "length", None]) | MANGLED,
    },
)
CHUNK = st.fixed_dictionaries(
    {}, optional={"choices": st.lists(CHOICE | MANGLED, max_size=4) | MANGLED, "usage": USAGE | MANGLED, "id": MANGLED}
)


def wanted(choices: int, *, stream: bool) -> Parameters:
    return Parameters("m", None, choices, stream, True, (), None, 100, 25)


@given(st.lists(CHUNK | MANGLED, max_size=8), st.integers(1, 3), st.booleans(), st.integers(1, 4))
@settings(max_examples=100)
def test_no_stream_whatever_it_holds_breaks_the_count(
    chunks: list[Any], choices: int, stream: bool, grant: int
) -> None:
    reading = ChatReading(wanted(choices, stream=stream), grant)
    for event in [json.dumps(chunk).encode() for chunk in chunks] + [b"[DONE]"]:
        reading.feed(b"data: " + event + b"\n\n")
        if reading.failure is not None or reading.is_over():
            break
    reading.close()
    counted = count_output(reading.observed, grant * choices)

    assert 0 <= counted.billed_output_tokens <= grant * choices
    assert json.dumps(reading.whole(counted.billed_output_tokens))
    assert reading.ending(counted.billed_output_tokens, 0, 0)
    assert all(isinstance(text, str) for text in [*reading.tails, *reading.tool_calls, *reading.reasons])


@given(CHUNK | MANGLED, st.integers(1, 3), st.booleans(), st.integers(1, 4))
@settings(max_examples=100)
def test_no_whole_answer_whatever_it_holds_breaks_the_count(
    answer: Any, choices: int, stream: bool, grant: int
) -> None:
    reading = ChatReading(wanted(choices, stream=stream), grant)
    try:
        reading.feed_whole(answer)
    except UpstreamError:
        reading.close()
    counted = count_output(reading.observed, grant * choices)

    assert 0 <= counted.billed_output_tokens <= grant * choices
    assert json.dumps(reading.whole(counted.billed_output_tokens))
