"""A caller may leave at any moment: one record if the upstream had answered, nothing held, the upstream closed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.calls import AS_ASKED, LEFT_S, Caller, Faulty, body, both_ways, every_call, faulty_loop
from tests.faults.truth import Script, Truth
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
@every_call
def test_a_caller_gone_before_the_upstream_answered_leaves_nothing(faulty: Faulty, stream: bool, leave: str) -> None:
    who = faulty.loop.customer("open")
    before = len(faulty.truth.calls)
    caller = Caller(faulty, who, Script(fault="hang before head"), stream=stream)
    until(lambda: len(faulty.truth.calls) > before)
    LEAVES[leave](caller)

    faulty.until_over(who)
    assert faulty.loop.usage(who) == []
    assert list(faulty.truth.calls.values())[-1].was_left


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_caller_gone_while_the_upstream_lets_nobody_in_owes_nothing(tmp_path: Path, stream: bool) -> None:
    """This holds even where the operator bills the whole grant: the model was never asked."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listening.getsockname()
        for _ in range(2):  # the listener accepts no third connection beyond these two
            before = stack.enter_context(socket.socket())
            before.setblocking(False)
            before.connect_ex(address)
        far = (Truth(), f"http://127.0.0.1:{address[1]}")
        settings = {"upstream_streams": AS_ASKED, "upstream_profile": "any", "hangup_bills": "granted"}
        faulty = stack.enter_context(faulty_loop(tmp_path, far=far, on_hangup="stop", **settings))
        who = faulty.loop.customer("open")
        caller = Caller(faulty, who, Script(), stream=stream)
        until(lambda: faulty.loop.open_holds() == 1)
        caller.hang_up()

        until(lambda: faulty.loop.open_holds() == 0, 2 * LEFT_S)
        assert faulty.loop.usage(who) == []


@pytest.mark.parametrize("leave", LEAVES)
def test_a_caller_gone_before_the_body_starts_has_a_record_of_nothing(faulty: Faulty, leave: str) -> None:
    who = faulty.loop.customer("open")
    caller = Caller(faulty, who, Script(fault="hang before token"), stream=True)
    caller.read_until(b"\r\n\r\n")
    LEAVES[leave](caller)

    record = the_record(faulty, who)
    assert (record["finish"], record["output_tokens"], record["charge_nanousd"]) == ("disconnect", 0, 0)
    assert faulty.upstream_call(record).was_left


@pytest.mark.parametrize("leave", LEAVES)
def test_a_caller_gone_in_the_middle_pays_for_what_was_made_by_then(faulty: Faulty, leave: str) -> None:
    who = faulty.loop.customer("open")
    caller = Caller(faulty, who, Script(tokens=10_000, tokens_per_s=SLOW), stream=True)
    received = caller.read_until("ü9 ".encode())
    LEAVES[leave](caller)

    record = the_record(faulty, who)
    assert (record["finish"], record["usage_source"]) == ("disconnect", "counted")
    assert received.count("ü".encode()) <= record["billed_output_tokens"] <= faulty.upstream_call(record).tokens
    assert faulty.upstream_call(record).tokens < 10 + SLOW * LEFT_S, "the upstream was left"


def test_a_caller_gone_in_the_middle_pays_by_the_upstreams_running_figure(faulty: Faulty) -> None:
    who = faulty.loop.customer("open")
    script = Script(tokens=10_000, tokens_per_s=SLOW, per_chunk=5, usage="cumulative")
    caller = Caller(faulty, who, script, stream=True)
    caller.read_until(b'"content":"\xc3\xbc20 ')
    caller.hang_up()

    record = the_record(faulty, who)
    assert (record["finish"], record["usage_source"]) == ("disconnect", "continuous")
    assert 25 <= record["billed_output_tokens"] <= faulty.upstream_call(record).tokens
    assert record["billed_output_tokens"] % 5 == 0


def under_way(faulty: Faulty, who: Sold, script: Script, **more: Any) -> Caller:
    """Return a caller once more than ten tokens of its answer are made."""
    before = len(faulty.truth.calls)
    caller = Caller(faulty, who, script, **more)
    until(lambda: len(faulty.truth.calls) > before and list(faulty.truth.calls.values())[-1].tokens > 10)
    return caller


@both_ways
def test_a_caller_who_does_not_stream_and_leaves_pays_for_what_came_by_then(faulty: Faulty, way: str) -> None:
    """Nothing had arrived of an answer requested whole: where the operator bills visible tokens, nothing is due."""
    who = faulty.loop.customer("open")
    under_way(faulty, who, Script(tokens=10_000, tokens_per_s=SLOW)).hang_up()

    faulty.until_over(who)
    call, records = list(faulty.truth.calls.values())[-1], faulty.loop.usage(who)
    assert call.was_left
    assert call.tokens < 10_000
    assert [record["finish"] for record in records] == ([] if way == AS_ASKED else ["disconnect"])
    assert all(0 < record["billed_output_tokens"] <= call.tokens for record in records)


def test_a_caller_gone_between_the_usage_and_the_end_pays_what_the_upstream_said(faulty: Faulty) -> None:
    """The upstream reports 10 tokens for 4 chunks: its figure is for the whole answer, which was made."""
    who = faulty.loop.customer("open")
    caller = Caller(faulty, who, Script(per_chunk=3, fault="hang before done"), stream=True)
    caller.read_until(b'"finish_reason":"stop"')
    caller.hang_up()

    record = the_record(faulty, who)
    assert record["finish"] in ("disconnect", "complete")
    assert (record["billed_output_tokens"], record["usage_source"]) == (10, "upstream")


def test_a_caller_who_takes_nothing_is_given_up_in_time(faulty: Faulty) -> None:
    """The answer is larger than all buffers in between; the connection stays open, as when a machine drops off the
    network."""
    who = faulty.loop.customer("open")
    script = Script(tokens=16_000, usage="cumulative")
    caller = Caller(faulty, who, script, receive_bytes=4_096, n=16, stream=True)
    caller.read_until(b"\r\n\r\n")
    until(lambda: faulty.truth.live == 0)

    record = the_record(faulty, who)
    caller.hang_up()
    assert record["finish"] == "disconnect"
    assert 0 < record["billed_output_tokens"] <= faulty.upstream_call(record).tokens
    assert faulty.upstream_call(record).was_left


@both_ways
def test_a_caller_who_takes_nothing_of_a_whole_answer_is_billed_all_of_it(faulty: Faulty) -> None:
    """The whole answer was made before its first byte could be sent, and no hold waits until somebody reads it."""
    who = faulty.loop.customer("open")
    script = Script(tokens=4_000, per_chunk=1_000, padding=8)
    caller = Caller(faulty, who, script, receive_bytes=4_096, n=4)
    caller.read_until(b"\r\n\r\n")

    record = the_record(faulty, who)
    caller.hang_up()
    assert record["finish"] == "complete"
    assert record["billed_output_tokens"] == faulty.upstream_call(record).tokens == 16_000


def test_a_caller_who_reads_slowly_gets_everything(faulty: Faulty) -> None:
    who = faulty.loop.customer("open")
    caller = Caller(faulty, who, Script(tokens=2_000), receive_bytes=4_096, stream=True)
    received = caller.read_to_the_end_in(pieces=512)

    assert b"[DONE]" in received
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
    assert not faulty.upstream_call(record).was_left


@both_ways
def test_a_whole_answer_with_an_idempotency_key_is_made_to_its_end_too(faulty: Faulty) -> None:
    who = faulty.loop.customer("open")
    script, named = Script(tokens=30, tokens_per_s=SLOW), {"idempotency-key": "once"}
    under_way(faulty, who, script, headers=named).hang_up()

    record = the_record(faulty, who)
    assert (record["finish"], record["billed_output_tokens"]) == ("complete", 30)
    assert not faulty.upstream_call(record).was_left
    again = Caller(faulty, who, script, headers=named)
    assert b"idempotency-replayed: true" in again.read_whole().lower()
    assert len(faulty.loop.usage(who)) == 1
