"""An abandoned answer is billed even if its worker is killed, or Redis is unavailable, while it is read to its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.holds.store.clients import connect
from gateway.holds.store.inflight import InFlight
from tests.buckets import all_in_flight
from tests.faults.calls import Caller, Faulty, faulty_loop
from tests.faults.test_dialects import ALL
from tests.faults.test_nothing_escapes import BROAD, GRANT, LIVED_S, PATIENT, THOUGHT, disconnects, sell
from tests.faults.truth import Script, Truth, UpstreamCall
from tests.faults.wire import Wire, wire
from tests.gateway.cli.commands import serving
from tests.loop.recovery.test_restart import open_holds, redis_url
from tests.loop.rig import Sold
from tests.servers import short_directory, valkey_in
from tests.serving import served
from tests.waiting import until

UNSEEN = Script(tokens=0, hidden=982, prompt=100_022, fault="wait before usage")
"""An answer of reasoning tokens alone, none of which is shown."""

BEGUN = Script(fault="hang before token")
"""An answer of which only the head arrives."""

ROWS = {"hidden reasoning": (THOUGHT, 1_983), "forty tokens in each piece": (BROAD, 1_000), "no token": (UNSEEN, 982)}
"""Answers, and how many tokens each makes."""

CASES = [
    (row, dialect, stream, key) for row in ROWS for dialect in ALL for stream in (True, False) for key in (False, True)
]


@dataclass(frozen=True)
class Left:
    """A call of a separate customer whose caller left once everything except the usage was made."""

    row: str
    stream: bool
    has_key: bool
    who: Sold
    call: UpstreamCall

    @property
    def named(self) -> str:
        kind = "stream" if self.stream else "whole"
        return f"{self.row}, {self.call.request}, {kind}, {'a key' if self.has_key else 'no key'}"


def leave_all(faulty: Faulty) -> list[Left]:
    """Make each call, and have all callers leave; return once the gateway has noticed."""
    left, callers, before = list[Left](), list[Caller](), disconnects(faulty.loop)
    for row, dialect, stream, has_key in CASES:
        script, generated = ROWS[row]
        who, known = faulty.loop.customer("metered"), set(faulty.truth.calls)
        headers = {"idempotency-key": "once"} if has_key else {}
        caller = Caller(faulty, who, script, dialect=dialect, headers=headers, stream=stream)
        until(lambda known=known: faulty.truth.calls.keys() > known)
        (name,) = faulty.truth.calls.keys() - known
        call = faulty.truth.calls[name]
        until(lambda call=call, generated=generated: call.tokens == generated, LIVED_S)
        if stream and script.tokens:
            caller.read_until(f"ü{generated - 1} ".encode())
        callers.append(caller)
        left.append(Left(row, stream, has_key, who, call))
    for caller in callers:
        caller.hang_up()
    keyless = sum(not has_key for *_, has_key in CASES)
    until(lambda: disconnects(faulty.loop) == before + keyless, LIVED_S)
    return left


def records_of(faulty: Faulty) -> dict[str, dict[str, Any]]:
    records = faulty.loop.usage()
    found = {record["customer"]: record for record in records}
    assert len(found) == len(records) == len(CASES), "one record for each call"
    return found


def test_a_worker_that_is_killed_while_nobody_listens_has_billed_what_is_owed() -> None:
    """Its last renewals recorded who had left: each owes its input, and what is due without a figure, here the grant.

    A caller with an Idempotency-Key may come back for the answer, which is lost: only relayed tokens are billed to it.
    """
    truth, lease_s = Truth(), 4.0
    settings: dict[str, Any] = {"lease_s": lease_s, "workers": 1, "answer_tokens_max": GRANT}
    with (
        served(truth) as model,
        short_directory() as directory,
        serving(directory / "data", upstream_url=f"{model}/v1", **settings) as running,
    ):
        loop = running.rig(running.admin_token())
        sell(loop)
        faulty = Faulty(loop, truth)
        left = leave_all(faulty)
        (worker,) = running.children("worker")
        until(lambda: in_flight(redis_url(running), lambda call: call.sofar == GRANT) == len(CASES) // 2, LIVED_S)
        os.kill(worker.process.pid, signal.SIGKILL)
        until(lambda: open_holds(redis_url(running)) == 0, 4 * lease_s)
        records = records_of(faulty)

    for one in left:
        record = records[one.who.id]
        assert (record["finish"], record["usage_source"]) == ("recovered", "checkpoint"), one.named
        if not one.has_key:
            assert record["billed_output_tokens"] == GRANT, one.named
            assert record["charge_nanousd"] == GRANT + record["input_tokens"] > GRANT, one.named
        else:
            assert record["billed_output_tokens"] <= 1.25 * one.call.tokens, one.named  # by the length of the text
            assert (record["billed_output_tokens"] > 0) == (one.stream and one.row != "no token"), one.named


def test_input_of_an_answer_that_was_left_before_its_first_token_is_owed_where_its_worker_is_killed() -> None:
    """The tier bills relayed tokens, and there are none; the hold says that the upstream had begun to answer.

    A caller who still listens, or may come back with its Idempotency-Key, owes nothing for an answer that is lost.
    """
    truth, lease_s = Truth(), 4.0
    settings: dict[str, Any] = {
        "lease_s": lease_s,
        "workers": 1,
        "answer_tokens_max": GRANT,
        "upstream_streams": "as_asked",
    }
    with (
        served(truth) as model,
        short_directory() as directory,
        serving(directory / "data", upstream_url=f"{model}/v1", **settings) as running,
    ):
        loop = running.rig(running.admin_token())
        rates = {"input_nanousd_per_mtok": 1_000_000, "output_nanousd_per_mtok": 1_000_000}
        loop.tier("metered", hangup_bills="visible", **rates)
        faulty = Faulty(loop, truth)
        calls: list[tuple[Caller, Sold, bool, str]] = []
        for dialect in ALL:
            for stream in (True, False):
                for headers, leaves in (({}, True), ({}, False), ({"idempotency-key": "once"}, True)):
                    who = loop.customer("metered")
                    caller = Caller(faulty, who, BEGUN, dialect=dialect, headers=headers, stream=stream)
                    calls.append(
                        (caller, who, leaves and not headers, f"{dialect.endpoint} {stream} {headers} {leaves}")
                    )
                    until(lambda: answered(truth) == len(calls), LIVED_S)
                    if leaves:
                        caller.hang_up()
        left = sum(owes for _, _, owes, _ in calls)
        until(lambda: disconnects(loop) == left, LIVED_S)
        until(lambda: in_flight(redis_url(running), lambda call: call.owes_input) == left, LIVED_S)
        (worker,) = running.children("worker")
        os.kill(worker.process.pid, signal.SIGKILL)
        until(lambda: open_holds(redis_url(running)) == 0, 4 * lease_s)
        records = {record["customer"]: record for record in loop.usage()}

    for _, who, owes, named in calls:
        record = records[who.id]
        assert (record["finish"], record["billed_output_tokens"]) == ("recovered", 0), named
        assert record["input_tokens"] > 0 if owes else record["input_tokens"] == 0, named
        assert record["charge_nanousd"] == record["input_tokens"], named


def answered(truth: Truth) -> int:
    return sum(call.was_answered for call in truth.calls.values())


def in_flight(url: str, is_so: Callable[[InFlight], bool]) -> int:
    """Return how many calls fulfilled ``is_so`` at their last renewal."""
    with connect(url) as client:
        return sum(is_so(call) for there in all_in_flight(client).values() for call in there)


@pytest.fixture
def away(tmp_path: Path) -> Iterator[tuple[Faulty, Wire]]:
    """A loop, and the wire between it and Redis."""
    with ExitStack() as stack:
        valkey = stack.enter_context(valkey_in(stack.enter_context(short_directory())))
        between = stack.enter_context(wire(valkey.removeprefix("unix://")))
        url = f"redis://127.0.0.1:{between.port}"
        faulty = stack.enter_context(faulty_loop(tmp_path, redis_url=url, **PATIENT))
        sell(faulty.loop)
        yield faulty, between


def test_redis_away_while_nobody_listens_costs_no_token(away: tuple[Faulty, Wire]) -> None:
    """The answers are read on without Redis, and settled by the upstream's figure once Redis is back."""
    faulty, between = away
    left = leave_all(faulty)
    between.cut()
    for one in left:
        one.call.may_end.set()
    until(lambda: faulty.truth.live == 0, LIVED_S)
    between.mend()
    until(lambda: faulty.loop.open_holds() == 0, 2 * LIVED_S)
    records = records_of(faulty)

    for one in left:
        record, (script, generated) = records[one.who.id], ROWS[one.row]
        ended = ("complete", "upstream") if one.has_key else ("disconnect", "drained")
        assert (record["finish"], record["usage_source"]) == ended, one.named
        assert (record["billed_output_tokens"], record["input_tokens"]) == (generated, script.prompt), one.named
        assert record["charge_nanousd"] == generated + script.prompt, one.named
        assert not one.call.was_left, one.named
