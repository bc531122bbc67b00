"""A caller may leave at any moment: one record if the upstream had answered, nothing held, the upstream left at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.faults.calls import LEFT_S, Caller, Faulty, body
from tests.faults.truth import Script
from tests.loop.rig import Sold
from tests.waiting import until

SLOW = 100.0
"""Tokens per second of an answer that a caller leaves in the middle."""

Leave = Callable[[Caller], None]
LEAVES: dict[str, Leave] = {"closed": Caller.hang_up, "reset": Caller.reset}


def the_record(faulty: Faulty, who: Sold) -> dict[str, Any]:
    """Return the one record of a customer's one call, once it is over."""
    faulty.until_over(who)
    (record,) = faulty.loop.usage(who)
    return record


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_caller_gone_before_the_upstream_answered_leaves_nothing(faulty: Faulty, stream: bool, leave: str) -> None:
    who = faulty.loop.customer("open")
    before = len(faulty.truth.calls)
    caller = Caller(faulty, who, Script(fault="hang before head"), stream=stream)
    until(lambda: len(faulty.truth.calls) > before)
    LEAVES[leave](caller)

    faulty.until_over(who)
    assert faulty.loop.usage(who) == []
    assert list(faulty.truth.calls.values())[-1].was_left


@pytest.mark.parametrize("leave", LEAVES)
def test_a_caller_gone_before_the_body_starts_has_a_record_of_nothing(faulty: Faulty, leave: str) -> None:
    who = faulty.loop.customer("open")
    caller = Caller(faulty, who, Script(fault="hang before token"), stream=True)
    caller.read_until(b"\r\n\r\n")
    LEAVES[leave](caller)

    record = the_record(faulty, who)
    assert (record["finish"], record["output_tokens"], record["charge_nanousd"]) == ("disconnect", 0, 0)
    assert faulty.told(record).was_left


@pytest.mark.parametrize("leave", LEAVES)
def test_a_caller_gone_in_the_middle_pays_for_what_was_made_by_then(faulty: Faulty, leave: str) -> None:
    who = faulty.loop.customer("open")
    caller = Caller(faulty, who, Script(tokens=10_000, tokens_per_s=SLOW), stream=True)
    got = caller.read_until("ü9 ".encode())
    LEAVES[leave](caller)

    record = the_record(faulty, who)
    assert (record["finish"], record["usage_source"]) == ("disconnect", "counted")
    assert got.count("ü".encode()) <= record["billed_output_tokens"] <= faulty.told(record).tokens
    assert faulty.told(record).tokens < 10 + SLOW * LEFT_S, "the upstream was left within a second"


def test_a_caller_gone_in_the_middle_pays_by_the_upstreams_running_figure(faulty: Faulty) -> None:
    who = faulty.loop.customer("open")
    script = Script(tokens=10_000, tokens_per_s=SLOW, per_chunk=5, usage="cumulative")
    caller = Caller(faulty, who, script, stream=True)
    caller.read_until(b'"content":"\xc3\xbc20 ')
    caller.hang_up()

    record = the_record(faulty, who)
    assert (record["finish"], record["usage_source"]) == ("disconnect", "continuous")
    assert 25 <= record["billed_output_tokens"] <= faulty.told(record).tokens
    assert record["billed_output_tokens"] % 5 == 0


def test_a_caller_who_does_not_stream_and_leaves_pays_for_what_was_made_by_then(faulty: Faulty) -> None:
    who = faulty.loop.customer("open")
    before = len(faulty.truth.calls)
    caller = Caller(faulty, who, Script(tokens=10_000, tokens_per_s=SLOW))
    until(lambda: len(faulty.truth.calls) > before and list(faulty.truth.calls.values())[-1].tokens > 10)
    caller.hang_up()

    record = the_record(faulty, who)
    assert record["finish"] == "disconnect"
    assert 0 < record["billed_output_tokens"] <= faulty.told(record).tokens < 10_000


def test_a_caller_gone_between_the_usage_and_the_end_pays_what_the_upstream_said(faulty: Faulty) -> None:
    """The upstream says 10 where 4 chunks came: its figure is for the whole answer, which was made."""
    who = faulty.loop.customer("open")
    caller = Caller(faulty, who, Script(per_chunk=3, fault="hang before done"), stream=True)
    caller.read_until(b'"finish_reason":"stop"')
    caller.hang_up()

    record = the_record(faulty, who)
    assert record["finish"] in ("disconnect", "complete")
    assert (record["billed_output_tokens"], record["usage_source"]) == (10, "upstream")


def test_a_caller_who_takes_nothing_is_given_up_in_time(faulty: Faulty) -> None:
    """The answer is larger than all buffers between; the connection stays open, as that of a machine gone from the
    network does."""
    who = faulty.loop.customer("open")
    script = Script(tokens=16_000, per_chunk=100, padding=900)
    caller = Caller(faulty, who, script, receive_bytes=4_096, n=16, stream=True)
    caller.read_until(b"\r\n\r\n")
    until(lambda: faulty.truth.live == 0, 10)

    record = the_record(faulty, who)
    caller.hang_up()
    assert record["finish"] == "disconnect"
    assert 0 < record["billed_output_tokens"] <= faulty.told(record).tokens
    assert faulty.told(record).was_left


def test_a_caller_who_reads_slowly_gets_everything(faulty: Faulty) -> None:
    who = faulty.loop.customer("open")
    caller = Caller(faulty, who, Script(tokens=2_000), receive_bytes=4_096, stream=True)
    got = caller.read_to_the_end_in(pieces=512)

    assert b"[DONE]" in got
    record = the_record(faulty, who)
    assert (record["finish"], record["billed_output_tokens"]) == ("complete", 2_000)


def test_a_caller_with_an_idempotency_key_may_leave_and_the_answer_is_made_to_its_end(faulty: Faulty) -> None:
    who = faulty.loop.customer("open")
    script = Script(tokens=30, tokens_per_s=SLOW)
    headers = {**who.headers, "idempotency-key": "once"}
    with httpx.stream("POST", faulty.address, json=body(script, stream=True), headers=headers) as answer:
        next(answer.iter_lines())

    record = the_record(faulty, who)
    assert (record["finish"], record["billed_output_tokens"]) == ("complete", 30)
    assert not faulty.told(record).was_left
