"""How a call is counted and billed, whatever the upstream reports; and events found however their bytes are cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serving.meter import (
    Count,
    Input,
    Observed,
    Usage,
    count,
    count_input,
    count_output,
    finish_of,
    outcome,
    reported_input,
    reported_output,
    sum_of,
)
from gateway.serving.sse import Events, is_comment


@pytest.mark.parametrize(
    ("reported", "seen", "is_final", "is_whole", "expected"),
    [
        (30, 28, True, True, Count(30, 30, "upstream")),
        (None, 28, False, True, Count(28, 28, "counted")),
        (0, 28, True, True, Count(28, 28, "counted")),
        (0, 0, True, True, Count(0, 0, "upstream")),
        (130, 100, True, True, Count(130, 100, "upstream")),
        (20, 28, True, True, Count(20, 20, "upstream")),
        (20, 28, False, True, Count(28, 28, "counted")),
        (40, 28, False, True, Count(40, 40, "continuous")),
        (None, 28, False, False, Count(28, 28, "counted")),
        (40, 28, False, False, Count(40, 40, "continuous")),
        (40, 28, True, False, Count(40, 40, "continuous")),
        (28, 28, False, False, Count(28, 28, "continuous")),
        (20, 28, False, False, Count(28, 28, "counted")),
        (130, 28, False, False, Count(130, 100, "continuous")),
        (0, 0, False, False, Count(0, 0, "counted")),
    ],
)
def test_one_decision_for_each_way_of_saying_it(
    reported: int | None, seen: int, is_final: bool, is_whole: bool, expected: Count
) -> None:
    assert count_output(Observed(Usage(reported), seen, is_final, is_whole), 100) == expected


@pytest.mark.parametrize(
    ("reported", "expected", "is_belied"),
    [
        (301, Count(301, 301, "upstream"), False),
        (150, Count(150, 150, "upstream"), False),
        (149, Count(300, 300, "counted"), True),
        (1, Count(300, 300, "counted"), True),
        (0, Count(300, 300, "counted"), True),
        (900, Count(900, 500, "upstream"), False),
    ],
)
def test_a_figure_that_is_too_small_for_its_text_is_none(reported: int, expected: Count, is_belied: bool) -> None:
    """300 pieces that are at least 150 tokens, under a grant of 500."""
    observed = Observed(Usage(reported), 300, True, True, least=150)
    assert (count_output(observed, 500), observed.is_belied()) == (expected, is_belied)


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (90, Count(90, 90, "continuous")),
        (60, Count(60, 60, "continuous")),
        (59, Count(110, 110, "estimate")),
        (None, Count(110, 110, "estimate")),
    ],
)
def test_a_running_figure_stands_beside_a_guess_unless_more_went_by_for_sure(
    reported: int | None, expected: Count
) -> None:
    observed = Observed(Usage(reported), 110, False, False, is_estimate=True, surely=60)
    assert count_output(observed, 500) == expected


@pytest.mark.parametrize(
    ("reported", "reasoning", "given", "total", "expected"),
    [
        (30, 10, 7, 37, (30, False)),
        (30, 10, 7, 1, (30, False)),
        (30, 10, None, None, (30, False)),
        (30, 10, 7, 47, (40, True)),
        (1, 300, 32, 333, (301, True)),
        (1, 300, None, None, (301, True)),
        (0, 60, 21, 81, (60, True)),
        (198, 0, 20, 623, (603, True)),
        (None, 60, 21, 81, (None, False)),
    ],
)
def test_of_figures_that_contradict_one_another_the_most_is_taken(
    reported: int | None, reasoning: int, given: int | None, total: int | None, expected: tuple[int | None, bool]
) -> None:
    assert reported_output(reported, reasoning, given, total) == expected


@pytest.mark.parametrize("reported", [None, -1, 1.0, "7", True, 2**53, [7], {}])
def test_what_is_no_count_is_as_good_as_unsaid(reported: Any) -> None:
    assert count(reported) is None


def test_a_call_ended_as_its_worst_choice_did() -> None:
    assert finish_of(["stop", "length"], uses_whole_grant=True, bound_by="cap") == "cap"
    assert finish_of(["stop", "length"], uses_whole_grant=False, bound_by="cap") == "context"
    assert finish_of(["stop", "tool_calls"], uses_whole_grant=False, bound_by="cap") == "tool_calls"
    assert finish_of(["content_filter", "tool_calls"], uses_whole_grant=False, bound_by="cap") == "filtered"
    assert finish_of(["content_filter", "length"], uses_whole_grant=True, bound_by="period") == "period"
    assert finish_of(["stop", "stop"], uses_whole_grant=True, bound_by="cap") == "complete"


@pytest.mark.parametrize(
    ("reported", "recounted", "expected"),
    [
        (7, 9, Input(7, "upstream")),
        (700, 9, Input(700, "upstream")),
        (0, 9, Input(0, "upstream")),
        (None, 9, Input(9, "tokenizer")),
        (None, 90, Input(50, "tokenizer")),
        (None, None, Input(20, "estimate")),
    ],
)
def test_input_is_what_the_upstream_says_and_else_never_more_than_was_held(
    reported: int | None, recounted: int | None, expected: Input
) -> None:
    assert count_input(reported, recounted, estimate=20, bound=50) == expected


@pytest.mark.parametrize(("reported", "figure"), [(None, None), (0, None), (1, 1), (10**8, 10**8), (10**8 + 1, None)])
def test_an_input_of_nothing_or_of_more_than_any_model_reads_is_no_figure(
    reported: int | None, figure: int | None
) -> None:
    assert reported_input(reported) == figure


def test_an_estimate_of_more_than_was_held_is_what_was_held_and_where_nothing_can_be_billed_it_is_nothing() -> None:
    assert count_input(None, None, estimate=60, bound=50) == Input(50, "estimate")
    assert count_input(7, 9, estimate=0, bound=0) == Input(0, None)


def test_a_figure_that_leaves_out_choices_is_the_least_beside_a_tokenizers_count() -> None:
    def observed(recounted: int | None, reported: int = 40) -> Observed:
        return Observed(Usage(reported), 28, False, False, recounted=recounted, is_partial=True)

    assert count_output(observed(30), 100) == Count(40, 40, "tokenizer")
    assert count_output(observed(50), 100) == Count(50, 50, "tokenizer")
    assert count_output(observed(None), 100) == Count(28, 28, "counted")
    assert count_output(Observed(Usage(20), 28, False, False, recounted=10), 100) == Count(10, 10, "tokenizer")


@pytest.mark.parametrize(
    ("usage", "least", "expected"),
    [
        (Usage(9, 5, cached_tokens=8, reasoning_tokens=20), 0, (5, 9, None)),
        (Usage(9, 5, cached_tokens=3, reasoning_tokens=4, is_disputed=True), 0, (3, 4, "itself")),
        (Usage(9, 5, is_disputed=True), 10, (0, 0, "text")),
    ],
)
def test_a_part_is_never_more_than_the_whole_and_a_dispute_is_told(
    usage: Usage, least: int, expected: tuple[int, int, str | None]
) -> None:
    observed = Observed(usage, 9, True, True, least=least)
    came_to = outcome(
        observed, Input(5, "upstream"), granted=100, finish="complete", ttft_ms=None, duration_ms=1, threads=()
    )

    assert (came_to.cached_tokens, came_to.reasoning_tokens, came_to.usage_dispute) == expected


def test_the_usage_of_choices_that_are_counted_apart_is_their_sum() -> None:
    reported = Usage(3, 7, reasoning_tokens=1)

    assert sum_of(reported, [Usage(5, 7, reasoning_tokens=2), Usage(None), reported]) == Usage(8, 7, reasoning_tokens=3)


DATA = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20).map(str.encode)


OTHER = st.sampled_from((b"", b": ping", b"event: message"))
EVENT = st.tuples(OTHER, st.lists(DATA, min_size=1, max_size=3))


@given(st.lists(EVENT, max_size=6), st.sampled_from((b"\n", b"\r\n", b"\r")), st.data())
def test_events_are_found_however_their_bytes_are_cut(
    events: list[tuple[bytes, list[bytes]]], line: bytes, cuts: st.DataObject
) -> None:
    """With any line ending, several data lines, with and without comments and other fields, cut at any place."""
    raw = b"".join(
        (other + line if other else b"") + b"".join(b"data: " + data + line for data in event) + line
        for other, event in events
    )
    places = sorted(cuts.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    reader, found = Events(), []
    for start, end in zip([0, *places], [*places, len(raw)], strict=True):
        found += reader.feed(raw[start:end])
    found += reader.close()

    wanted = [([other] if is_comment(other) else []) + [b"\n".join(event)] for other, event in events]
    assert found == [piece for part in wanted for piece in part]
