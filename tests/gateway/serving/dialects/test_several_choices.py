"""Several choices in one stream: which choices a running usage covers, and which choice has used its grant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.registry import dialects
from gateway.serving.meter import Count, count_output
from gateway.serving.upstream.profiles import ANY, CHAT, LLAMACPP, SGLANG, VLLM, Profile

GRANT = 10


def reading(profile: Profile, *chunks: tuple[int | None, str, str | None, int | None]) -> Reading:
    """Return the reading of two choices after chunks, each of a choice's index, text, ending and usage."""
    chat = next(dialect for dialect in dialects(profile) if dialect.endpoint == CHAT)
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "n": 2}
    found = chat.reading(chat.read({"model": "m", "stream": True, **body}, 100), grant=GRANT)
    for index, text, end, reported in chunks:
        choices = [] if index is None else [{"index": index, "delta": {"content": text}, "finish_reason": end}]
        usage = None if reported is None else {"prompt_tokens": 1, "completion_tokens": reported}
        found.feed(b"data: " + json.dumps({"id": "c", "choices": choices, "usage": usage}).encode() + b"\n\n")
    return found


HIDDEN = ((0, "a", None, 4), (1, "b", None, 3), (0, "c", None, 6))
"""Usages for each choice: two tokens of six of the first choice are visible, and one of three of the second."""


OF_ALL = ((0, "a", None, 4), (1, "b", None, 7), (0, "c", None, 9))
"""The same tokens from an upstream that counts all choices together."""

GROWN = ((0, "a", None, 4), (1, "b", None, 5))
"""The first figures of either kind of upstream; while they are ambiguous, each counts for all choices."""


@pytest.mark.parametrize(
    ("profile", "chunks", "tokens"),
    [(VLLM, HIDDEN, 9), (SGLANG, HIDDEN, 9), (ANY, HIDDEN, 9), (ANY, OF_ALL, 9), (VLLM, GROWN, 9), (ANY, GROWN, 5)],
)
def test_a_running_figure_is_of_the_choice_beside_it_where_the_engine_is_known_for_that_or_shows_it(
    profile: Profile, chunks: tuple[tuple[int, str, None, int], ...], tokens: int
) -> None:
    """A figure not above an earlier figure of another choice, although text followed, cannot cover both."""
    assert count_output(reading(profile, *chunks).observed, 2 * GRANT) == Count(tokens, tokens, "continuous")


@pytest.mark.parametrize("profile", [VLLM, ANY])
def test_a_figure_of_some_choices_is_the_least_that_was_made_and_not_all(profile: Profile) -> None:
    """The other choice has sent nothing yet, but may be reasoning: a caller who leaves now is billed without a figure."""
    found = reading(profile, (0, "a", None, 4), (0, "b", None, 6))

    assert count_output(found.observed, 2 * GRANT) == Count(6, 6, "counted")
    assert not found.is_usage_known(is_continuous=True)


@pytest.mark.parametrize("profile", [VLLM, ANY])
def test_the_last_figure_is_of_all_choices(profile: Profile) -> None:
    found = reading(profile, *HIDDEN, (0, "", "stop", 6), (1, "", "stop", 3), (None, "", None, 9))

    assert count_output(found.observed, 2 * GRANT) == Count(9, 9, "upstream")


def test_the_last_figure_may_stand_beside_the_last_end() -> None:
    found = reading(ANY, *HIDDEN, (0, "", "stop", 6), (1, "", "stop", 9))

    assert count_output(found.observed, 2 * GRANT) == Count(9, 9, "upstream")


@pytest.mark.parametrize(
    ("seen", "other", "reported", "is_whole"),
    [
        (10, 1, 11, True),
        (8, 1, 11, True),
        (8, 1, 10, False),
        (0, 0, 19, True),
        (0, 0, 18, False),
    ],
)
def test_a_choice_that_its_limit_ended_has_had_what_was_not_seen(
    seen: int, other: int, reported: int, is_whole: bool
) -> None:
    """Bytes of an incomplete character are a token without text. If nothing was seen, each choice is assigned half."""
    pieces = [*((0, "a", None, 0) for _ in range(seen)), *((1, "b", None, 0) for _ in range(other))]
    found = reading(ANY, *pieces, (0, "", "length", 0), (1, "", "stop", 0), (None, "", None, reported))

    assert found.uses_whole_grant == is_whole


def test_an_upstream_that_counts_each_choice_at_its_end_is_added_up() -> None:
    """While one choice's figure is missing, the known figure does not cover all choices."""
    pieces = ((0, "a", None), (1, "b", None), (0, "", "stop"), (1, "", "stop"))
    begun = [(index, text, end, None) for index, text, end in pieces]
    first, last = (None, "", None, 4), (None, "", None, 3)

    half, whole = reading(LLAMACPP, *begun, first), reading(LLAMACPP, *begun, first, last)

    assert not half.observed.is_final
    assert count_output(whole.observed, 2 * GRANT) == Count(7, 7, "upstream")
