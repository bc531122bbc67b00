"""A worker that is stopped finishes or settles its calls; one that is killed costs the house a second and a half."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults.calls import CAP, Caller, Faulty
from tests.faults.tongues import TONGUES
from tests.faults.truth import Script, Truth
from tests.gateway.cli.commands import Serving, serving
from tests.loop.rig import Sold
from tests.loop.test_restart import open_holds, redis_url
from tests.servers import short_directory
from tests.serving import served
from tests.waiting import until

LEASE_S = 2.0
SHUTDOWN_S = 1
RATE = 100.0
LOST_S = 1.5
"""A killed worker costs the house at most the tokens of this long."""

LONG = Script(tokens=10_000, tokens_per_s=RATE)


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[Serving, Faulty]]:
    truth = Truth()
    given = {"lease_s": LEASE_S, "shutdown_s": SHUTDOWN_S, "workers": 1, "upstream_streams": "always"}
    with ExitStack() as stack:
        model = stack.enter_context(served(truth))
        directory = stack.enter_context(short_directory()) / "data"
        running = stack.enter_context(serving(directory, upstream_url=f"{model}/v1", **given))
        loop = running.rig(running.admin_token())
        loop.tier("small", conversation_tokens_max=CAP, price_nanousd=1_000)
        loop.tier("open", period_tokens_max=10_000_000)
        yield running, Faulty(loop, truth)


def signal_worker(running: Serving, number: int) -> None:
    """Send a signal to the one worker, and wait until the next one serves."""
    (worker,) = running.children("worker")
    os.kill(worker.process.pid, number)
    until(lambda: [child for child in running.children("worker") if child.worker != worker.worker], 20)


def talking(faulty: Faulty, who: Sold, script: Script, *, stream: bool = True) -> Caller:
    """Return a caller whose answer has ten tokens already."""
    before = len(faulty.truth.calls)
    caller = Caller(faulty, who, script, stream=stream)
    until(lambda: len(faulty.truth.calls) > before and list(faulty.truth.calls.values())[-1].tokens >= 10, 20)
    return caller


def test_a_worker_that_is_stopped_finishes_what_it_can(processes: tuple[Serving, Faulty]) -> None:
    running, faulty = processes
    who = faulty.loop.customer("open")
    caller = talking(faulty, who, Script(tokens=30, tokens_per_s=RATE))
    signal_worker(running, signal.SIGTERM)

    assert b"[DONE]" in caller.read_to_the_end_in(4_096)
    (record,) = faulty.loop.usage(who)
    assert (record["finish"], record["billed_output_tokens"]) == ("complete", 30)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_worker_that_is_stopped_settles_what_it_cannot_finish(
    processes: tuple[Serving, Faulty], stream: bool
) -> None:
    running, faulty = processes
    who = faulty.loop.customer("open")
    caller = talking(faulty, who, LONG, stream=stream)
    signal_worker(running, signal.SIGTERM)

    got = caller.read_until(b"shutting_down")
    faulty.until_over(who)
    (record,) = faulty.loop.usage(who)
    assert (record["finish"], record["usage_source"]) == ("shutdown", "counted")
    assert RATE / 2 < record["output_tokens"] <= faulty.told(record).tokens
    assert record["billed_output_tokens"] == (record["output_tokens"] if stream else 0)
    assert got.startswith(b"HTTP/1.1 200" if stream else b"HTTP/1.1 503")
    assert not stream or record["output_tokens"] == got.count("ü".encode())


def test_a_killed_worker_costs_the_house_at_most_a_second_and_a_half(processes: tuple[Serving, Faulty]) -> None:
    running, faulty = processes
    who = faulty.loop.customer("open")
    caller = talking(faulty, who, LONG)
    (told,) = [told for told in faulty.truth.calls.values() if told.is_live]
    until(lambda: told.tokens > 2.5 * RATE, 10)
    signal_worker(running, signal.SIGKILL)
    caller.hang_up()

    until(lambda: open_holds(redis_url(running)) == 0, 2 * LEASE_S)
    (record,) = faulty.loop.usage(who)
    assert (record["finish"], record["usage_source"]) == ("recovered", "checkpoint")
    assert 0 <= told.tokens - record["billed_output_tokens"] <= told.tokens_of_last(LOST_S)
    assert faulty.loop.account(who)["period"]["tokens_used"] == record["billed_output_tokens"]


def test_a_worker_killed_before_the_first_token_leaves_a_record_of_nothing(processes: tuple[Serving, Faulty]) -> None:
    running, faulty = processes
    who = faulty.loop.customer("small")
    caller = Caller(faulty, who, Script(fault="hang before token"), stream=True)
    caller.read_until(b"\r\n\r\n")
    signal_worker(running, signal.SIGKILL)
    caller.hang_up()

    until(lambda: open_holds(redis_url(running)) == 0, 2 * LEASE_S)
    (record,) = faulty.loop.usage(who)
    assert (record["finish"], record["billed_output_tokens"], record["charge_nanousd"]) == ("recovered", 0, 0)


FORMATS = [(tongue, stream) for tongue in TONGUES.values() for stream in (True, False)]


def all_talking(faulty: Faulty, tier: str) -> list[tuple[Sold, bool, Caller]]:
    """Return callers of customers of their own, one in each format, streamed and not, whose answers have begun."""
    before = set(faulty.truth.calls)
    callers = []
    for tongue, stream in FORMATS:
        who = faulty.loop.customer(tier)
        callers.append((who, stream, Caller(faulty, who, LONG, tongue=tongue, stream=stream)))
    new = lambda: [told for name, told in list(faulty.truth.calls.items()) if name not in before]  # noqa: E731
    until(lambda: len(new()) == len(FORMATS) and min(told.tokens for told in new()) >= RATE, 20)
    return callers


def test_a_worker_that_is_stopped_settles_every_format_streamed_or_not(processes: tuple[Serving, Faulty]) -> None:
    running, faulty = processes
    callers = all_talking(faulty, "open")
    signal_worker(running, signal.SIGTERM)

    for who, stream, caller in callers:
        got = caller.read_until(b"shutting_down")
        assert got.startswith(b"HTTP/1.1 200" if stream else b"HTTP/1.1 503")
        faulty.until_over(who)
        (record,) = faulty.loop.usage(who)
        assert (record["finish"], record["stream"]) == ("shutdown", stream)
        assert RATE <= record["output_tokens"] <= faulty.told(record).tokens
        assert record["billed_output_tokens"] == (record["output_tokens"] if stream else 0)


def test_a_worker_that_is_killed_leaves_one_record_in_every_format_streamed_or_not(
    processes: tuple[Serving, Faulty],
) -> None:
    running, faulty = processes
    callers = all_talking(faulty, "open")
    until(lambda: min(told.tokens for told in faulty.truth.calls.values() if told.is_live) > 2.5 * RATE, 20)
    signal_worker(running, signal.SIGKILL)

    until(lambda: open_holds(redis_url(running)) == 0, 2 * LEASE_S)
    for who, stream, caller in callers:
        caller.hang_up()
        (record,) = faulty.loop.usage(who)
        told = faulty.told(record)
        assert (record["finish"], record["stream"], record["usage_source"]) == ("recovered", stream, "checkpoint")
        assert 0 <= told.tokens - record["billed_output_tokens"] <= told.tokens_of_last(LOST_S)
        assert faulty.loop.account(who)["period"]["tokens_used"] == record["billed_output_tokens"]
