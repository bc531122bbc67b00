"""From records to sums over conversations: one conversation has one ending, in whatever batches its calls arrive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pricing.estimate.observations.conversations import (
    AGES,
    DAY_MS,
    EARLY_MS,
    IDLE_MS,
    IMPOSSIBLE_TIMES,
    IMPOSSIBLE_TOKENS,
    LONGEST_MS,
    UNKNOWN_ENDING,
    UNTIMED_MS,
    WEEK_MS,
    Sums,
    Watch,
    windows_of,
)
from pricing.estimate.observations.gathering import Choosing, statistics_of, summed

MONDAY = 2_900 * WEEK_MS
"""The first moment of a week, an even day."""

WEEK = MONDAY // WEEK_MS


def call(number: int = 1, **changes: Any) -> dict[str, Any]:
    time = changes.pop("time", MONDAY + 1000 * number)
    record = {
        "id": f"call-{number:06d}",
        "kind": "usage",
        "time": time,
        "settled": time + changes.get("duration_ms", 2000),
        "customer": "cus_acme",
        "conversation": "c1",
        "endpoint": "/v1/chat/completions",
        "tier": "quick",
        "tier_chosen": None,
        "menu_version": "m1",
        "stream": True,
        "output_tokens": 100,
        "billed_output_tokens": 100,
        "finish": "complete",
        "ttft_ms": 400,
        "duration_ms": 2000,
    }
    return {**record, **changes}


def watched(*records: dict[str, Any]) -> Sums:
    watch = Watch()
    watch.see(records)
    watch.close_all()
    return watch.sums


def test_the_calls_of_a_conversation_are_one_length_with_the_ending_of_the_last() -> None:
    sums = watched(
        call(1, finish="tool_calls", billed_output_tokens=30),
        call(2, billed_output_tokens=70),
        call(3, conversation="c2", finish="cap", billed_output_tokens=55),
    )

    assert sums.lengths == {(WEEK, "m1", "quick", 100): [1, 0], (WEEK, "m1", "quick", 55): [0, 1]}
    assert sums.customers[WEEK, "cus_acme"][:3] == [2, 0, 6000]


def test_a_conversation_that_waits_for_a_tool_is_no_length_yet_but_its_customer_has_waited() -> None:
    sums = watched(call(1, finish="tool_calls"))

    assert sums.lengths == {}
    assert sums.customers[WEEK, "cus_acme"][:3] == [1, 0, 2000]


def test_a_name_that_comes_back_after_an_hour_or_after_a_day_is_another_conversation() -> None:
    gap = watched(call(1), call(2, time=MONDAY + 3000 + IDLE_MS + 1))
    every_half_hour = [call(n, time=MONDAY + n * IDLE_MS // 2) for n in range(LONGEST_MS // (IDLE_MS // 2) + 2)]

    assert gap.lengths == {(WEEK, "m1", "quick", 100): [2, 0]}
    assert watched(*every_half_hour).lengths == {
        (WEEK, "m1", "quick", 4800): [1, 0],
        (WEEK, "m1", "quick", 200): [1, 0],
    }


def test_a_correction_adds_its_tokens_and_replaces_the_ending_of_what_it_corrects() -> None:
    sums = watched(
        call(1, finish="recovered", billed_output_tokens=40, duration_ms=0, ttft_ms=None),
        call(1, id="call-000001.1", kind="correction", billed_output_tokens=25, duration_ms=1300),
    )

    assert sums.lengths == {(WEEK, "m1", "quick", 65): [1, 0]}
    assert sums.customers[WEEK, "cus_acme"][:3] == [1, 0, 1300]


def test_fees_credits_and_embeddings_are_no_conversations() -> None:
    sums = watched(
        call(1, kind="fee", conversation=None, endpoint=None),
        call(2, kind="credit"),
        call(3, endpoint="/v1/embeddings"),
    )

    assert sums == Sums()


def test_waits_are_cut_at_five_seconds_and_before_time_outs_and_told_apart_by_day_and_age() -> None:
    sums = watched(
        call(1, finish="disconnect", duration_ms=7_300),
        call(2, conversation="c2", finish="disconnect", duration_ms=3_200),
        call(3, conversation="c3", finish="disconnect", duration_ms=30_000, time=MONDAY + DAY_MS),
    )

    untimed = [2, 10_500 + UNTIMED_MS]
    assert sums.customers[WEEK, "cus_acme"] == [3, 3, 40_500, 1, 2 * EARLY_MS + 3_200, 2, 10_500, *untimed]
    assert sums.ages == {(WEEK, 3): [1, 1, 200], (WEEK, 7): [1, 1, 300], (WEEK, 30): [1, 1, 0]}


def test_who_came_back_to_a_conversation_has_not_left_it() -> None:
    """A call that was hung up on and repeated is a served wait, not an end of patience."""
    sums = watched(call(1, finish="disconnect", billed_output_tokens=10), call(2))

    assert sums.customers[WEEK, "cus_acme"][1] == 0
    assert sums.ages == {(WEEK, 2): [2, 0, 0]}


def test_a_wait_beyond_all_ages_is_kept_in_the_last_one() -> None:
    sums = watched(call(1, duration_ms=4_000_000, finish="disconnect"))

    assert sums.ages == {(WEEK, AGES - 1): [1, 1, 1000]}


def test_the_pace_is_summed_over_streamed_calls() -> None:
    sums = watched(call(1), call(2, conversation="c2", stream=False, ttft_ms=None))

    assert sums.pace == {(WEEK,): [1, 400, 400**2, 99, 99**2, 1600, 1600**2, 99 * 1600]}


@pytest.mark.parametrize(
    ("source", "tokens", "length"),
    [
        ("counted", 60, [0, 1]),
        ("continuous", 60, [0, 1]),
        ("timed", 60, [0, 1]),
        ("drained", 60, [1, 0]),
        ("drained", 200, [0, 1]),
        ("granted", 200, None),
    ],
)
def test_a_call_that_was_left_says_when_and_of_its_length_what_is_known(
    source: str, tokens: int, length: list[int] | None
) -> None:
    """A call drained below its grant has a known length, a timed call is censored, and a granted call tells nothing."""
    tokens_made = {"output_tokens": tokens, "billed_output_tokens": tokens, "cap_tokens": 200, "choices": 1}
    sums = watched(call(1, finish="disconnect", usage_source=source, **tokens_made))

    assert sums.lengths == ({} if length is None else {(WEEK, "m1", "quick", tokens): length})
    assert sums.customers[WEEK, "cus_acme"][:3] == [1, 1, 2000]
    assert sums.ages == {(WEEK, 2): [1, 1, 0]}
    assert bool(sums.pace) == (source in ("counted", "continuous")), "its time is not the time of its tokens"


def test_which_tier_was_taken_is_kept_by_customer_and_by_whether_it_was_named() -> None:
    sums = watched(call(1), call(2, conversation="c2", tier_chosen="quick"), call(3, conversation="c3"))

    assert sums.tiers == {
        (WEEK, "cus_acme", "m1", "quick", 0): [2],
        (WEEK, "cus_acme", "m1", "quick", 1): [1],
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"duration_ms": -5}, IMPOSSIBLE_TIMES),
        ({"duration_ms": DAY_MS + 1}, IMPOSSIBLE_TIMES),
        ({"ttft_ms": -1}, IMPOSSIBLE_TIMES),
        ({"ttft_ms": 2001}, IMPOSSIBLE_TIMES),
        ({"settled": MONDAY - 2 * DAY_MS}, IMPOSSIBLE_TIMES),
        ({"billed_output_tokens": -1}, IMPOSSIBLE_TOKENS),
        ({"billed_output_tokens": 2**52}, IMPOSSIBLE_TOKENS),
        ({"output_tokens": 110_001}, IMPOSSIBLE_TOKENS),
        ({"finish": "vanished"}, UNKNOWN_ENDING),
        ({"finish": None}, UNKNOWN_ENDING),
    ],
)
def test_a_conversation_with_an_impossible_record_is_set_aside_whole_and_counted(
    changes: dict[str, Any], reason: str
) -> None:
    sums = watched(call(1), call(2, **changes), call(3, conversation="c2"))

    assert sums.aside == {(WEEK, reason): [1]}
    assert sums.lengths == {(WEEK, "m1", "quick", 100): [1, 0]}
    assert sums.customers[WEEK, "cus_acme"][0] == 1


def test_no_customer_is_more_than_a_hundred_conversations_a_week_of_what_all_are_pooled_in() -> None:
    """This holds for this week and the next, and the counts of an earlier ``Watch`` are included."""
    records = [call(number, time=MONDAY + 60_000 * number, conversation=f"c{number}") for number in range(250)]
    records += [call(number, time=MONDAY + WEEK_MS, conversation=f"c{number}") for number in range(250, 260)]
    watch = Watch(counted={(WEEK, "cus_acme"): 90}, paced={(WEEK, "cus_acme"): 90})
    for record in records:
        watch.see([record])
    watch.close_all()

    assert watch.sums.customers[WEEK, "cus_acme"][0] == 250
    for table in (watch.sums.pace, watch.sums.lengths, watch.sums.ages):
        assert [sum(amounts[0] for key, amounts in table.items() if key[0] == week) for week in (WEEK, WEEK + 1)] == [
            10,
            10,
        ]


def test_however_records_are_cut_into_batches_the_sums_are_the_same() -> None:
    """Random batches, slightly out of order, are compared with all records at once."""
    random = np.random.default_rng(1)
    finishes = ["complete", "cap", "disconnect", "tool_calls", "recovered"]
    records = [
        call(
            number,
            time=MONDAY + int(random.integers(0, WEEK_MS)),
            customer=f"cus_{random.integers(60)}",
            conversation=f"c{random.integers(5)}",
            finish=str(random.choice(finishes)),
            billed_output_tokens=int(random.integers(0, 300)),
            duration_ms=int(random.integers(400, 20_000)),
        )
        for number in range(3000)
    ]
    records.sort(key=lambda record: record["settled"])

    watch, start = Watch(), 0
    while start < len(records):
        end = start + int(random.integers(1, 200))
        watch.see(records[start:end])
        watch.close_ended(records[min(end, len(records)) - 1]["settled"] - IDLE_MS)
        start = end
    watch.close_all()

    assert watch.sums == watched(*records)
    assert sum(row[0] for row in watch.sums.customers.values()) > 1500


def test_conversations_that_may_go_on_are_counted_as_they_stand_and_told() -> None:
    watch = Watch()
    watch.see([call(1), call(2, conversation="c2", time=MONDAY + 2 * IDLE_MS)])

    assert watch.close_all() == 1
    assert watch.sums.lengths == {(WEEK, "m1", "quick", 100): [2, 0]}


@pytest.mark.parametrize(
    ("last", "starts"),
    [(10, (10,)), (11, (10, 11)), (13, (10, 11, 12, 13)), (14, (10, 11, 12, 13)), (17, (10, 12, 14, 16))],
)
def test_weeks_are_cut_into_at_most_four_windows(last: int, starts: tuple[int, ...]) -> None:
    assert windows_of(10, last) == starts


def test_customers_are_told_apart_by_window_and_the_windows_add_up() -> None:
    sums = watched(
        call(1, finish="disconnect", duration_ms=4_000),
        call(2, conversation="c2", duration_ms=1_000, time=MONDAY + WEEK_MS),
        call(3, conversation="c3", finish="disconnect", duration_ms=6_000, time=MONDAY + 5 * WEEK_MS),
    )

    them = statistics_of(summed(sums), {}, Choosing()).customers

    assert them.windows is not None
    assert them.windows.starts == (WEEK, WEEK + 1, WEEK + 3, WEEK + 4)
    np.testing.assert_array_equal(them.windows.disconnects, [[1, 0, 0, 1]])
    np.testing.assert_allclose(them.windows.waited_s, [[4, 1, 0, 6]])
    assert (them.disconnects[0], them.waited_s[0]) == (2, 11)
