"""Redis may be unavailable, slow, full, read-only or empty: nothing is served unmetered, and no served call is lost.

Tests with an answer in flight run with both ways of asking the upstream. Refusals before the upstream is asked, and the
commands between a call's hold and Redis after the call's end, are the same in both ways.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from gateway import bookkeeper
from gateway.holds.store.clients import connect
from gateway.holds.store.inflight import calls_in_flight
from gateway.holds.store.scripts import source
from tests.buckets import all_in_flight
from tests.clock import Clock
from tests.faults.calls import AS_ASKED, Caller, Faulty, both_ways, every_call, faulty_loop
from tests.faults.truth import Script, UpstreamCall
from tests.faults.wire import Wire, wire
from tests.gateway.holds.harness import end_lease
from tests.loop.rig import Sold
from tests.servers import short_directory, valkey_in
from tests.waiting import until

LEASE_S = 2
RATE = 100.0


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    with short_directory() as directory, valkey_in(directory) as url:
        yield url


@pytest.fixture
def between(valkey: str) -> Iterator[Wire]:
    """The wire between the gateway's processes and an empty Valkey."""
    with connect(valkey) as client:
        client.flushall()
    with wire(valkey.removeprefix("unix://")) as between:
        yield between
        with connect(valkey) as client:
            client.config_set("maxmemory", 0)
            client.replicaof("NO", "ONE")
        between.delay(0)
        between.mend()


@pytest.fixture
def faulty(between: Wire, tmp_path: Path, way: str) -> Iterator[Faulty]:
    settings = {"lease_s": LEASE_S, "gateways": 2, "idle_deadline_s": 5, "upstream_streams": way}
    with faulty_loop(tmp_path, redis_url=address(between), **settings) as running:
        yield running


def address(wire: Wire) -> str:
    return f"redis://127.0.0.1:{wire.port}"


def under_way(faulty: Faulty, who: Sold, script: Script, *, stream: bool) -> tuple[Caller, UpstreamCall]:
    """Return a caller once two tokens of its answer are made, and received if it streams, and the upstream's call."""
    known = set(faulty.truth.calls)
    caller = Caller(faulty, who, script, stream=stream)
    until(lambda: any(call.tokens >= 2 for name, call in list(faulty.truth.calls.items()) if name not in known))
    if stream:
        caller.read_until("ü1 ".encode())
    [call] = [call for name, call in faulty.truth.calls.items() if name not in known]
    return caller, call


def is_refused(faulty: Faulty, who: Sold) -> bool:
    answer = faulty.post(who, Script())
    return answer.status_code == 503 and answer.json()["error"]["code"] == "metering_unavailable"


def until_served(faulty: Faulty, who: Sold) -> None:
    until(lambda: faulty.post(who, Script()).status_code == 200)


def until_settled(faulty: Faulty) -> None:
    until(lambda: faulty.loop.open_holds() == 0, 2 * LEASE_S + 5)


def assert_settled_once(faulty: Faulty, who: Sold, tokens: int) -> None:
    """Assert one usage record that, with its correction if the hold lapsed meanwhile, adds up to all the tokens."""
    rows = faulty.loop.usage(who)
    assert sum(row["billed_output_tokens"] for row in rows) == tokens
    assert len([row for row in rows if row["kind"] == "usage"]) == 1
    assert faulty.loop.account(who)["period"]["tokens_used"] == tokens


def test_redis_down_before_a_call_refuses_it_and_the_upstream_hears_nothing(faulty: Faulty, between: Wire) -> None:
    who = faulty.loop.customer("small")
    between.cut()
    answer = faulty.post(who, Script())

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "metering_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert not faulty.truth.calls
    assert httpx.get(f"{faulty.loop.url}/readyz").status_code == 503
    between.mend()
    until_served(faulty, who)
    assert httpx.get(f"{faulty.loop.url}/readyz").status_code == 200


@every_call
def test_redis_down_between_forward_and_settle_the_answer_comes_and_is_settled_once(
    faulty: Faulty, between: Wire, stream: bool
) -> None:
    who = faulty.loop.customer("small")
    caller, _ = under_way(faulty, who, Script(tokens=15, tokens_per_s=RATE), stream=stream)
    between.cut()
    caller.read_the_answer(stream=stream)
    between.mend()

    until_settled(faulty)
    (record,) = faulty.loop.usage(who)
    assert (record["finish"], record["billed_output_tokens"]) == ("complete", 15)
    assert faulty.loop.account(who)["period"]["tokens_used"] == 15


@every_call
def test_redis_down_for_longer_than_a_lease_an_answer_goes_on_and_is_settled_once(
    faulty: Faulty, between: Wire, stream: bool
) -> None:
    who = faulty.loop.customer("open")
    caller, _ = under_way(faulty, who, Script(tokens=300, tokens_per_s=RATE), stream=stream)
    between.cut()
    caller.read_the_answer(stream=stream)
    between.mend()

    until_settled(faulty)
    assert_settled_once(faulty, who, 300)


@every_call
def test_redis_away_while_nobody_listens_costs_no_token(faulty: Faulty, between: Wire, stream: bool) -> None:
    """The answer is read on without Redis, and settled when Redis is back."""
    who = faulty.loop.customer("open")
    script = Script(tokens=3, hidden=500, fault="wait before usage")
    caller = Caller(faulty, who, script, stream=stream)
    if stream:
        caller.read_until("ü502 ".encode())
    until(lambda: [call.tokens for call in faulty.truth.calls.values()] == [503])
    caller.hang_up()
    between.cut()
    (call,) = faulty.truth.calls.values()
    call.may_end.set()
    until(lambda: not call.is_live)
    between.mend()

    until_settled(faulty)
    assert not call.was_left
    assert_settled_once(faulty, who, 503)


@every_call
def test_who_has_the_end_of_an_answer_has_its_record(faulty: Faulty, between: Wire, valkey: str, stream: bool) -> None:
    who = faulty.loop.customer("small")
    between.delay(0.02)
    answer = faulty.post(who, Script(), stream=stream)

    assert answer.status_code == 200
    with connect(valkey) as client:
        assert all_in_flight(client) == {}


def test_after_redis_was_away_every_hold_gets_a_full_lease(
    between: Wire, valkey: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """This holds even if another part of the bookkeeper notices the outage before the part that reclaims holds."""
    clock, lease_s = Clock(), 60
    with ExitStack() as stack:
        of_books = stack.enter_context(wire(valkey.removeprefix("unix://")))
        urls = {"redis_url": address(between), "books_redis_url": address(of_books)}
        faulty = stack.enter_context(faulty_loop(tmp_path, lease_s=lease_s, books_clock=clock, **urls))
        client = stack.enter_context(connect(valkey))
        who = faulty.loop.customer("open")
        caller = Caller(faulty, who, Script(tokens=500, tokens_per_s=RATE), stream=True)
        caller.read_until("ü1 ".encode())
        clock.now_s += lease_s + 1
        of_books.cut()
        until(lambda: "the books wait" in caplog.text)
        between.cut()
        [(bucket, [call])] = all_in_flight(client).items()
        end_lease(client, bucket, call.id)
        of_books.mend()

        written = faulty.loop.settings.metrics_dir / f"{bookkeeper.SHEET}.json"
        before = until(lambda: written.exists() and written.stat().st_mtime_ns)
        clock.now_s += 2 * bookkeeper.SWEEP_S
        until(lambda: written.stat().st_mtime_ns > before)
        assert not calls_in_flight(client, [bucket])[bucket][0].is_suspect

        clock.now_s += lease_s
        until(lambda: calls_in_flight(client, [bucket])[bucket][0].is_suspect)
        between.mend()
        caller.read_to_the_end_in(4_096)
        until_settled(faulty)
        assert_settled_once(faulty, who, 500)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_worker_that_cannot_reach_a_redis_that_others_may_reach_stops_within_half_a_lease(
    faulty: Faulty, between: Wire, stream: bool
) -> None:
    """The worker is not refused but gets no reply: others may have taken it for dead by now."""
    who = faulty.loop.customer("open")
    caller, call = under_way(faulty, who, Script(tokens=1_000, tokens_per_s=RATE), stream=stream)
    between.stall()
    received = caller.read_until(b"metering_unavailable")
    until(lambda: not call.is_live)
    between.mend()

    assert call.was_left
    assert call.tokens < RATE * LEASE_S * 1.25
    assert received.startswith(b"HTTP/1.1 503") or stream
    until_settled(faulty)
    rows = faulty.loop.usage(who)
    assert sum(row["billed_output_tokens"] for row in rows) <= call.tokens
    assert {row["finish"] for row in rows} <= {"shutdown", "recovered"}


@pytest.mark.parametrize("way", [AS_ASKED], indirect=True)
def test_a_whole_answer_that_comes_to_a_worker_without_its_books_is_not_passed_on(
    faulty: Faulty, between: Wire
) -> None:
    """Nothing of the answer had arrived that could be stopped: it is made to its end, and nobody gets it or pays."""
    who = faulty.loop.customer("open")
    caller, call = under_way(faulty, who, Script(tokens=200, tokens_per_s=RATE), stream=False)
    between.stall()
    received = caller.read_until(b"metering_unavailable")
    between.mend()

    assert received.startswith(b"HTTP/1.1 503")
    assert call.tokens == 200
    until_settled(faulty)
    assert {row["billed_output_tokens"] for row in faulty.loop.usage(who)} <= {0}


def test_a_slow_redis_costs_time_and_nothing_else(faulty: Faulty, between: Wire) -> None:
    who = faulty.loop.customer("small")
    between.delay(0.02)
    answers = [faulty.post(who, Script()) for _ in range(2)]
    between.delay(0)

    assert [answer.status_code for answer in answers] == [200, 200]
    until_settled(faulty)
    assert [row["billed_output_tokens"] for row in faulty.loop.usage(who)] == [10, 10]


@every_call
def test_a_full_redis_refuses_calls_and_settles_the_running_one_later(
    faulty: Faulty, valkey: str, stream: bool
) -> None:
    who = faulty.loop.customer("small")
    caller, _ = under_way(faulty, who, Script(tokens=15, tokens_per_s=RATE), stream=stream)
    with connect(valkey) as client:
        client.config_set("maxmemory", 1)
        assert is_refused(faulty, who)
        caller.read_the_answer(stream=stream)
        client.config_set("maxmemory", 0)

    until_settled(faulty)
    assert_settled_once(faulty, who, 15)
    until_served(faulty, who)


def test_a_read_only_redis_refuses_calls_and_settles_the_running_one_later(faulty: Faulty, valkey: str) -> None:
    who = faulty.loop.customer("small")
    caller = Caller(faulty, who, Script(tokens=15, tokens_per_s=RATE), stream=True)
    caller.read_until("ü1 ".encode())
    with connect(valkey) as client:
        client.replicaof("127.0.0.1", 1)
        assert is_refused(faulty, who)
        caller.read_to_the_end_in(4_096)
        client.replicaof("NO", "ONE")

    until_settled(faulty)
    assert_settled_once(faulty, who, 15)
    until_served(faulty, who)


async def test_a_redis_that_lost_everything_is_rebuilt_before_the_first_admission(faulty: Faulty, valkey: str) -> None:
    """A customer with 40 tokens left of 100 gets not one more after the loss, from either gateway."""
    faulty.loop.tier("edge", period_tokens_max=100)
    who = faulty.loop.customer("edge")
    for _ in range(6):
        faulty.post(who, Script())
    until(lambda: len(faulty.loop.usage(who)) == 6)
    with connect(valkey) as client:
        client.flushall()
    limits = httpx.Limits(max_connections=40)
    async with httpx.AsyncClient(limits=limits, headers=who.headers, timeout=30) as client:

        async def call(number: int) -> int:
            request = {"model": "aligned-1", "messages": [{"role": "user", "content": "x"}], "max_tokens": 10}
            url = f"{faulty.loop.urls[number % 2]}/v1/chat/completions"
            return (await client.post(url, json=request)).status_code

        statuses = await asyncio.gather(*(call(number) for number in range(40)))

    assert sorted(statuses) == [200] * 4 + [429] * 36
    await asyncio.to_thread(until_settled, faulty)
    period = faulty.loop.account(who)["period"]
    assert (period["tokens_used"], period["tokens_held"], period["tokens_remaining"]) == (100, 0, 0)
    assert sum(row["billed_output_tokens"] for row in faulty.loop.usage(who)) == 100


@every_call
def test_a_call_on_its_way_while_redis_loses_everything_is_settled_once(
    faulty: Faulty, valkey: str, stream: bool
) -> None:
    who = faulty.loop.customer("open")
    caller, _ = under_way(faulty, who, Script(tokens=200, tokens_per_s=RATE), stream=stream)
    with connect(valkey) as client:
        client.flushall()
    caller.read_the_answer(stream=stream)

    until_settled(faulty)
    rows = faulty.loop.usage(who)
    assert [(row["finish"], row["billed_output_tokens"]) for row in rows] == [("complete", 200)]
    assert faulty.loop.account(who)["period"]["tokens_used"] == 200


def test_a_reservation_whose_reply_was_lost_holds_nothing_for_long(faulty: Faulty, between: Wire, valkey: str) -> None:
    """The script ran and the caller was refused: the worker that made the reservation still has to release it."""
    who = faulty.loop.customer("small")
    until_served(faulty, who)
    until_settled(faulty)
    between.stall(replies_only=True)
    caller = Caller(faulty, who, Script())
    with connect(valkey) as client:
        until(lambda: all_in_flight(client))
    between.cut()
    caller.read_until(b"metering_unavailable")
    between.mend()

    until(lambda: faulty.loop.open_holds() == 0, 2 * LEASE_S + 2)
    assert faulty.loop.account(who)["period"]["tokens_held"] == 0


@every_call
def test_a_caller_who_leaves_before_the_model_is_asked_owes_nothing(
    faulty: Faulty, between: Wire, valkey: str, stream: bool
) -> None:
    """The hold is made, but its reply has not arrived: the model is not asked, and nothing is on record."""
    who = faulty.loop.customer("small")
    until_served(faulty, who)
    until_settled(faulty)
    before, upstream_calls = len(faulty.loop.usage(who)), len(faulty.truth.calls)
    between.stall(replies_only=True)
    caller = Caller(faulty, who, Script(), stream=stream)
    with connect(valkey) as client:
        until(lambda: all_in_flight(client))
    caller.hang_up()
    assert httpx.get(f"{faulty.loop.url}/livez").status_code == 200, "the gateway has noticed the hang-up by now"
    between.mend()

    until_settled(faulty)
    assert (len(faulty.loop.usage(who)), len(faulty.truth.calls)) == (before, upstream_calls)
    assert faulty.loop.account(who)["period"]["tokens_held"] == 0


@both_ways
@pytest.mark.parametrize("verb", ["reserve", "settle", "renew"])
def test_a_command_whose_reply_was_lost_is_repeated_and_counts_once(faulty: Faulty, between: Wire, verb: str) -> None:
    who = faulty.loop.customer("small")
    until_served(faulty, who)
    between.lose_reply_to(hashlib.sha1(source(verb).encode()).hexdigest().encode())
    answer = faulty.post(who, Script(tokens=15, tokens_per_s=15))

    assert answer.status_code == 200, answer.text
    assert "x-tokencap-charge-nanousd" in answer.headers, "the settlement was known in time"
    assert between.lost == 1
    until_settled(faulty)
    assert [row["billed_output_tokens"] for row in faulty.loop.usage(who)] == [10, 15]
    period = faulty.loop.account(who)["period"]
    assert (period["tokens_used"], period["tokens_held"]) == (25, 0)


def test_a_connection_that_breaks_after_each_command_counts_nothing_twice(faulty: Faulty, between: Wire) -> None:
    who = faulty.loop.customer("open")
    served = 0
    for number in range(30):
        if number % 3 == 0:
            between.reset()
        served += faulty.post(who, Script()).status_code == 200

    until_settled(faulty)
    rows = faulty.loop.usage(who)
    assert len({row["id"] for row in rows}) == len(rows) >= served
    assert faulty.loop.account(who)["period"]["tokens_used"] == 10 * len(rows)
