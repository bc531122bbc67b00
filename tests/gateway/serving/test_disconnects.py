"""After a caller has left: whether its answer is read on, how many answers are, and what is due without a figure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.holds.hold import Facts, Hold
from gateway.metrics.counters import Counters
from gateway.serving.disconnects import (
    ANSWERS_LEAST,
    DRAINED_AT_ONCE,
    REMEMBERED,
    Disconnects,
    GenerationSpeed,
    Manners,
    Places,
)
from gateway.serving.meter import Count
from gateway.serving.upstream.profiles import ANY, LLAMACPP, VLLM, Profile

GRANT = 500


def seen(tokens: int) -> Count:
    return Count(tokens, tokens, "estimate")


def disconnects(
    profile: Profile = ANY, *, drain_s: float = 60, bills: str | None = None, places: int | None = None
) -> Disconnects:
    return Disconnects(profile, Manners(drain_s, bills), Places(places), GenerationSpeed(), Counters())


def drain_s_of(one: Disconnects, *, is_to_come: bool = True) -> float:
    seconds = one.read_on_s(is_awaited=is_to_come)
    if seconds:
        one.ends()
    return seconds


def hold(**facts: Any) -> Hold:
    whole = dict.fromkeys(Facts.__dataclass_fields__) | {"choices": 1, **facts}
    return Hold(Facts(**whole), 0, GRANT, "cap", 0, None, None, 0, False, 0)


def test_it_is_read_on_where_a_figure_is_to_come() -> None:
    assert drain_s_of(disconnects()) == 60
    assert drain_s_of(disconnects(), is_to_come=False) == 0


@pytest.mark.parametrize("profile", [LLAMACPP, VLLM, replace(ANY, finishes=False)], ids=lambda profile: profile.name)
def test_it_is_closed_where_the_engine_stops_with_its_caller_or_the_operator_says_so(profile: Profile) -> None:
    one = replace(profile, finishes=False) if profile.stops_on_hangup else profile
    assert drain_s_of(disconnects(one)) == 0
    assert drain_s_of(disconnects(drain_s=0)) == 0


def test_an_answer_that_is_not_read_on_takes_no_place() -> None:
    one = disconnects(drain_s=0, places=4)
    assert one.read_on_s(is_awaited=True) == 0
    assert one._places.take()


@pytest.mark.parametrize(
    ("places", "drained"), [(None, DRAINED_AT_ONCE), (1, 0), (3, 0), (4, 1), (100, 25), (10**6, DRAINED_AT_ONCE)]
)
def test_no_more_than_a_quarter_of_the_upstreams_places_are_for_answers_that_nobody_hears(
    places: int | None, drained: int
) -> None:
    one = disconnects(places=places)
    assert [one.read_on_s(is_awaited=True) for _ in range(drained + 1)] == [60.0] * drained + [0]
    for _ in range(drained):
        one.ends()
    assert drain_s_of(one) == (60 if drained else 0), "a place is free again once its answer is over"


def test_before_the_pace_is_known_the_grant_is_owed_then_the_time_at_that_pace() -> None:
    one = disconnects()
    for _ in range(ANSWERS_LEAST):
        counted = one.owed(seen(3), hold(), 2.0)
        assert (counted.billed_output_tokens, counted.source) == (GRANT, "granted")
        one.pace.note(100, 1.0)
    counted = one.owed(seen(3), hold(), 2.0)
    assert (counted.billed_output_tokens, counted.source) == (200, "timed")
    assert one.owed(seen(3), hold(), 60.0).billed_output_tokens == GRANT, "never more than the grant"
    assert one.owed(seen(250), hold(), 2.0).billed_output_tokens == 250, "never less than what was relayed"
    assert one.owed(seen(3), replace(hold(), facts=replace(hold().facts, choices=2)), 2.0).billed_output_tokens == 400


def test_the_operator_says_what_is_owed_and_a_tier_may_say_otherwise() -> None:
    visible = disconnects(bills="visible")
    assert visible.owed(seen(3), hold(), 2.0) == seen(3)
    assert visible.owed(seen(3), hold(hangup_bills="granted"), 2.0).billed_output_tokens == GRANT
    assert disconnects().owed(seen(3), hold(hangup_bills="visible"), 2.0).billed_output_tokens == 3


def test_the_pace_is_all_tokens_over_all_seconds_whichever_answers_were_fast() -> None:
    pace = GenerationSpeed()
    for _ in range(ANSWERS_LEAST):
        pace.note(300, 1.0)
        pace.note(100, 3.0)
    assert pace.tokens_in(4.0) == pytest.approx(400, rel=0.01)


def test_short_answers_and_impossible_times_say_nothing_of_the_pace() -> None:
    pace = GenerationSpeed()
    for _ in range(100):
        pace.note(2, 1.0)
        pace.note(100, 0.0)
    assert pace.tokens_in(1.0) is None


def test_the_pace_is_known_after_so_many_answers_and_owes_every_token_that_was_begun() -> None:
    pace = GenerationSpeed()
    for _ in range(ANSWERS_LEAST - 1):
        pace.note(100, 1.0)
        assert pace.tokens_in(1.0) is None
    pace.note(100, 1.0)

    assert ANSWERS_LEAST == 8
    assert pace.tokens_in(0.011) == 2


def test_an_older_answer_weighs_less() -> None:
    """A model that was fast for long and is slow now soon counts as slow."""
    pace = GenerationSpeed()
    for _ in range(REMEMBERED):
        pace.note(1_000, 1.0)
    for _ in range(4 * REMEMBERED):
        pace.note(100, 1.0)

    assert pace.tokens_in(1.0) == pytest.approx(100, rel=0.25)


def test_a_call_left_before_its_head_owes_what_the_engine_went_on_with() -> None:
    assert disconnects(ANY).owes_unanswered(comes_whole=False)
    assert disconnects(VLLM).owes_unanswered(comes_whole=True)
    assert not disconnects(VLLM).owes_unanswered(comes_whole=False)
