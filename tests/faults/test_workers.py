"""A stopped worker finishes or settles its calls; a killed worker costs the house at most the tokens of 1.5 seconds.

A worker has nothing of an answer that it requested whole until all of it arrives: a stopped worker leaves no record of
it, and a killed worker leaves a record without tokens.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.faults.calls import AS_ASKED, CAP, Caller, Faulty, both_ways, every_call
from tests.faults.dialects import DIALECTS
from tests.faults.truth import Script, Truth
from tests.gateway.cli.commands import Serving, serving
from tests.loop.recovery.test_restart import open_holds, redis_url
from tests.loop.rig import Sold
from tests.servers import short_directory
from tests.serving import served
from tests.waiting import until

LEASE_S = 2.0
SHUTDOWN_S = 1
RATE = 100.0
LOST_S = 1.5
"""A killed worker costs the house at most the tokens of this time."""

LONG = Script(tokens=10_000, tokens_per_s=RATE)

Processes = tuple[Serving, Faulty]


@pytest.fixture(scope="module")
def processes_of() -> Iterator[Callable[[str], Processes]]:
    with ExitStack() as stack:

        @cache
        def start(way: str) -> Processes:
            truth = Truth()
            settings = {"lease_s": LEASE_S, "shutdown_s": SHUTDOWN_S, "workers": 1, "upstream_streams": way}
            model = stack.enter_context(served(truth))
            directory = stack.enter_context(short_directory()) / "data"
            running = stack.enter_context(serving(directory, upstream_url=f"{model}/v1", **settings))
            loop = running.rig(running.admin_token())
            loop.tier("small", conversation_tokens_max=CAP, price_nanousd=1_000)
            loop.tier("open", period_tokens_max=10_000_000)
            return running, Faulty(loop, truth)

        yield start


@pytest.fixture
def processes(processes_of: Callable[[str], Processes], way: str) -> Processes:
    return processes_of(way)


def signal_worker(running: Serving, number: int) -> None:
    """Send a signal to the only worker, and wait until its successor runs."""
    (worker,) = running.children("worker")
    os.kill(worker.process.pid, number)
    until(lambda: [child for child in running.children("worker") if child.worker != worker.worker])


def talking(faulty: Faulty, who: Sold, script: Script, *, stream: bool = True) -> Caller:
    """Return a caller once ten tokens of its answer are made."""
    before = len(faulty.truth.calls)
    caller = Caller(faulty, who, script, stream=stream)
    until(lambda: len(faulty.truth.calls) > before and list(faulty.truth.calls.values())[-1].tokens >= 10)
    return caller


@every_call
def test_a_worker_that_is_stopped_finishes_what_it_can(processes: Processes, stream: bool) -> None:
    running, faulty = processes
    who = faulty.loop.customer("open")
    caller = talking(faulty, who, Script(tokens=30, tokens_per_s=RATE), stream=stream)
    signal_worker(running, signal.SIGTERM)

    caller.read_the_answer(stream=stream)
    faulty.until_over(who)
    (record,) = faulty.loop.usage(who)
    assert (record["finish"], record["billed_output_tokens"]) == ("complete", 30)


@every_call
def test_a_worker_that_is_stopped_settles_what_it_cannot_finish(processes: Processes, way: str, stream: bool) -> None:
    running, faulty = processes
    who = faulty.loop.customer("open")
    caller = talking(faulty, who, LONG, stream=stream)
    signal_worker(running, signal.SIGTERM)

    received = caller.read_until(b"shutting_down")
    faulty.until_over(who)
    records = faulty.loop.usage(who)
    if way == AS_ASKED:
        assert (records, received.startswith(b"HTTP/1.1 503")) == ([], True)
        return
    (record,) = records
    assert (record["finish"], record["usage_source"]) == ("shutdown", "counted")
    assert RATE / 2 < record["output_tokens"] <= faulty.upstream_call(record).tokens
    assert record["billed_output_tokens"] == (record["output_tokens"] if stream else 0)
    assert received.startswith(b"HTTP/1.1 200" if stream else b"HTTP/1.1 503")
    assert not stream or record["output_tokens"] == received.count("ü".encode())


def test_a_killed_worker_costs_the_house_at_most_a_second_and_a_half(processes: Processes) -> None:
    running, faulty = processes
    who = faulty.loop.customer("open")
    caller = talking(faulty, who, LONG)
    (call,) = [call for call in faulty.truth.calls.values() if call.is_live]
    until(lambda: call.tokens > 2.5 * RATE)
    signal_worker(running, signal.SIGKILL)
    caller.hang_up()

    until(lambda: open_holds(redis_url(running)) == 0, 2 * LEASE_S)
    (record,) = faulty.loop.usage(who)
    assert (record["finish"], record["usage_source"]) == ("recovered", "checkpoint")
    assert 0 <= call.tokens - record["billed_output_tokens"] <= call.tokens_of_last(LOST_S)
    assert faulty.loop.account(who)["period"]["tokens_used"] == record["billed_output_tokens"]


@every_call
def test_a_worker_killed_before_the_first_token_leaves_a_record_of_nothing(processes: Processes, stream: bool) -> None:
    running, faulty = processes
    who, before = faulty.loop.customer("small"), len(faulty.truth.calls)
    caller = Caller(faulty, who, Script(fault="hang before token"), stream=stream)
    until(lambda: [call.was_answered for call in list(faulty.truth.calls.values())[before:]] == [True])
    signal_worker(running, signal.SIGKILL)
    caller.hang_up()

    until(lambda: open_holds(redis_url(running)) == 0, 2 * LEASE_S)
    (record,) = faulty.loop.usage(who)
    assert (record["finish"], record["billed_output_tokens"], record["charge_nanousd"]) == ("recovered", 0, 0)


FORMATS = [(dialect, stream) for dialect in DIALECTS.values() for stream in (True, False)]


def all_talking(faulty: Faulty, tier: str) -> list[tuple[Sold, bool, Caller]]:
    """Return a caller for each format, streamed and not, each with its own customer, once their answers have begun."""
    before = set(faulty.truth.calls)
    callers = []
    for dialect, stream in FORMATS:
        who = faulty.loop.customer(tier)
        callers.append((who, stream, Caller(faulty, who, LONG, dialect=dialect, stream=stream)))
    new = lambda: [call for name, call in list(faulty.truth.calls.items()) if name not in before]  # noqa: E731
    until(lambda: len(new()) == len(FORMATS) and min(call.tokens for call in new()) >= RATE)
    return callers


@both_ways
def test_a_worker_that_is_stopped_settles_every_format_streamed_or_not(processes: Processes, way: str) -> None:
    running, faulty = processes
    callers = all_talking(faulty, "open")
    signal_worker(running, signal.SIGTERM)

    for who, stream, caller in callers:
        received = caller.read_until(b"shutting_down")
        assert received.startswith(b"HTTP/1.1 200" if stream else b"HTTP/1.1 503")
        faulty.until_over(who)
        records = faulty.loop.usage(who)
        assert [record["finish"] for record in records] == (["shutdown"] if stream or way != AS_ASKED else [])
        for record in records:
            assert record["stream"] == stream
            assert RATE <= record["output_tokens"] <= faulty.upstream_call(record).tokens
            assert record["billed_output_tokens"] == (record["output_tokens"] if stream else 0)


@both_ways
def test_a_worker_that_is_killed_leaves_one_record_in_every_format_streamed_or_not(
    processes: Processes, way: str
) -> None:
    running, faulty = processes
    callers = all_talking(faulty, "open")
    until(lambda: min(call.tokens for call in faulty.truth.calls.values() if call.is_live) > 2.5 * RATE)
    signal_worker(running, signal.SIGKILL)

    until(lambda: open_holds(redis_url(running)) == 0, 2 * LEASE_S)
    for who, stream, caller in callers:
        caller.hang_up()
        (record,) = faulty.loop.usage(who)
        call = faulty.upstream_call(record)
        assert (record["finish"], record["stream"], record["usage_source"]) == ("recovered", stream, "checkpoint")
        if stream or way != AS_ASKED:
            assert 0 <= call.tokens - record["billed_output_tokens"] <= call.tokens_of_last(LOST_S)
        else:
            assert record["billed_output_tokens"] == 0
        assert faulty.loop.account(who)["period"]["tokens_used"] == record["billed_output_tokens"]
