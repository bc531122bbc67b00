"""A fault of the connection to the upstream ends like a fault of the upstream: one record, nothing held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.faults.calls import Caller, Faulty, faulty_loop
from tests.faults.truth import Script, Truth
from tests.faults.wire import Wire, wire
from tests.serving import served
from tests.waiting import until

SLOW = Script(tokens=1_000, tokens_per_s=100)


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Faulty, Wire]]:
    truth, directory = Truth(), tmp_path_factory.mktemp("wired")
    with ExitStack() as stack:
        model = httpx.URL(stack.enter_context(served(truth)))
        between = stack.enter_context(wire((model.host, model.port or 80)))
        address = f"http://127.0.0.1:{between.port}"
        yield stack.enter_context(faulty_loop(directory, far=(truth, address))), between


def test_an_upstream_that_cannot_be_reached_is_a_502_without_a_record(wired: tuple[Faulty, Wire]) -> None:
    faulty, between = wired
    who = faulty.loop.customer("open")
    between.cut()
    answer = faulty.post(who, Script())
    between.mend()

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unavailable")
    faulty.until_over(who)
    assert faulty.loop.usage(who) == []
    assert faulty.post(who, Script()).status_code == 200


@pytest.mark.parametrize(("act", "code"), [(Wire.reset, "upstream_unavailable"), (Wire.stall, "upstream_timeout")])
def test_a_connection_that_breaks_in_the_middle_is_billed_what_came_through(
    wired: tuple[Faulty, Wire], act: Callable[[Wire], None], code: str
) -> None:
    faulty, between = wired
    who = faulty.loop.customer("open")
    caller = Caller(faulty, who, SLOW, stream=True)
    received = caller.read_until("ü9 ".encode())
    act(between)
    received += caller.read_until(code.encode())
    between.reset()

    faulty.until_over(who)
    (record,) = faulty.loop.usage(who)
    assert (record["finish"], record["usage_source"]) == ("upstream_error", "counted")
    assert record["billed_output_tokens"] == received.count("ü".encode()) <= faulty.upstream_call(record).tokens


def test_a_slow_connection_changes_no_count(wired: tuple[Faulty, Wire]) -> None:
    faulty, between = wired
    who = faulty.loop.customer("open")
    between.delay(0.05)
    answer = faulty.post(who, Script(torn=11))
    between.delay(0)

    assert answer.json()["usage"]["completion_tokens"] == 10
    until(lambda: [row["billed_output_tokens"] for row in faulty.loop.usage(who)] == [10])
