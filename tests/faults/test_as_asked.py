"""Whole answers that the upstream makes whole: relayed unchanged, with one record each however they end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.calls import CAP, Caller, Faulty, faulty_loop
from tests.faults.dialects import Chat
from tests.faults.test_dialects import ALL, BROKEN, CASES, UNANSWERED, WHOLE, named, record_of
from tests.faults.truth import Script, Truth
from tests.gateway.cli.commands import serving
from tests.loop.recovery.test_restart import open_holds, redis_url
from tests.servers import short_directory
from tests.serving import served
from tests.waiting import until

every_format = pytest.mark.parametrize("dialect", ALL, ids=named)

DEADLINE_S = 6.0
SLOW = 10.0
"""Tokens per second of an answer that a caller leaves in the middle."""

MUCH = 2_000
"""Tokens of an answer that far exceeds its grant."""


@pytest.fixture(scope="module")
def as_asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """A loop whose upstream has the profile ``any``: abandoned answers are read to their end."""
    with faulty_loop(
        tmp_path_factory.mktemp("asked"), upstream_streams="as_asked", call_deadline_s=DEADLINE_S
    ) as running:
        yield running


@pytest.fixture(scope="module")
def stopping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    settings = {"upstream_streams": "as_asked", "on_hangup": "stop"}
    with faulty_loop(tmp_path_factory.mktemp("stopping"), **settings) as running:
        yield running


ESTIMATED = {
    f"usage {lie}": ("complete", 8, "estimate") for lie in ("missing", "null", "zero", "negative", "in words", "huge")
}
"""Ten tokens of three characters: without a figure of the upstream, the estimate is a quarter of the characters."""

OTHERWISE = {
    **ESTIMATED,
    "cap ignored": ("cap", CAP, "upstream"),
    "cap ignored in a tool call": ("cap", CAP, "upstream"),
    "usage above": ("cap", CAP, "upstream"),
    "several in a chunk, usage missing": ("complete", 10, "estimate"),
}
"""Endings whose record differs from that of a stream: finish, tokens billed, source of the count."""


@pytest.mark.parametrize(("dialect", "name"), CASES, ids=named)
def test_a_whole_answer_that_comes_to_its_end(as_asked: Faulty, dialect: Any, name: str) -> None:
    ending = WHOLE[name]
    script = replace(ending.script, tokens=min(ending.script.tokens, MUCH))
    who = as_asked.loop.customer(ending.tier)
    limit = {} if ending.most is None else dialect.limit(ending.most)
    answer = as_asked.say(dialect, who, script, **limit)

    assert answer.status_code == 200, answer.text
    record = record_of(as_asked, who)
    expected = OTHERWISE.get(name, (ending.finish, ending.tokens, ending.source))
    assert (record["finish"], record["billed_output_tokens"], record["usage_source"]) == expected
    assert (record["endpoint"], record["stream"], record["ttft_ms"]) == (dialect.endpoint, False, None)
    request = as_asked.upstream_call(record).request
    assert "stream" not in request
    assert "stream_options" not in request
    assert len(answer.text) < MUCH, "text beyond the grant is not relayed"


@every_format
@pytest.mark.parametrize("parameters", [{}, {"stream": False}, {"stream": None}], ids=str)
def test_the_caller_has_what_the_upstream_said_to_the_byte(
    as_asked: Faulty, dialect: Any, parameters: dict[str, Any]
) -> None:
    """Only the model's name differs, and the usage where it is not what is billed."""
    who = as_asked.loop.customer("small")
    answer = as_asked.say(dialect, who, Script(), **parameters)

    record = record_of(as_asked, who)
    assert as_asked.upstream_call(record).request.get("stream") is parameters.get("stream")
    sent = as_asked.upstream_call(record).answer
    assert b'"model": "upstream"' in sent
    shown = answer.content.replace(b'"model":"aligned-1"', b'"model": "upstream"')
    for piece in sent.strip(b"{}").split(b', "'):
        assert piece in shown or piece.startswith(b"usage") or b"tokens" in piece, piece


@every_format
@pytest.mark.parametrize("name", BROKEN)
def test_a_whole_answer_that_breaks_off(as_asked: Faulty, dialect: Any, name: str) -> None:
    script, status = BROKEN[name]
    who = as_asked.loop.customer("small")
    answer = as_asked.say(dialect, who, script)

    assert (answer.status_code, "error" in answer.json()) == (status, True)
    as_asked.until_over(who)
    records = [(one["finish"], one["output_tokens"], one["charge_nanousd"]) for one in as_asked.loop.usage(who)]
    assert records == ([] if name == "hang in the middle" else [("upstream_error", 0, 0)])


@every_format
def test_a_whole_answer_that_is_here_is_whole_though_its_connection_hangs(as_asked: Faulty, dialect: Any) -> None:
    who = as_asked.loop.customer("small")
    answer = as_asked.say(dialect, who, Script(fault="hang before done"))

    assert answer.status_code == 200, answer.text
    record = record_of(as_asked, who)
    assert (record["finish"], record["billed_output_tokens"]) == ("complete", 10)


@pytest.mark.parametrize("name", UNANSWERED)
def test_a_whole_answer_that_the_upstream_did_not_give(as_asked: Faulty, name: str) -> None:
    script, status, code = UNANSWERED[name]
    who = as_asked.loop.customer("small")
    answer = as_asked.say(Chat, who, script)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    as_asked.until_over(who)
    assert as_asked.loop.usage(who) == []


@every_format
@pytest.mark.parametrize(("tokens", "came_to"), [(10, ("complete", 10)), (MUCH, ("cap", CAP))])
def test_an_upstream_that_streams_unasked_is_put_together(
    as_asked: Faulty, dialect: Any, tokens: int, came_to: tuple[str, int]
) -> None:
    who = as_asked.loop.customer("small")
    answer = as_asked.say(dialect, who, Script(tokens=tokens, obeys=False, streams=True))

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    record = record_of(as_asked, who)
    assert (record["finish"], record["billed_output_tokens"]) == came_to


@pytest.mark.parametrize("tokens", [4, 50])
def test_several_choices_come_whole(as_asked: Faulty, tokens: int) -> None:
    """A choice that its limit ended has its whole grant, although the usage reports only the sum over all choices."""
    who = as_asked.loop.customer("small")
    answer = as_asked.say(Chat, who, Script(tokens=tokens), n=3)

    assert [choice["index"] for choice in answer.json()["choices"]] == [0, 1, 2]
    record = record_of(as_asked, who)
    outcome = (record["finish"], record["billed_output_tokens"], record["usage_source"])
    assert outcome == (("complete", 12, "upstream") if tokens == 4 else ("cap", 18, "upstream"))


def test_a_whole_answer_may_take_longer_than_a_streams_first_token(as_asked: Faulty) -> None:
    """Its head arrives once the whole answer is made: the call's deadline bounds it, not that of the first token."""
    who = as_asked.loop.customer("small")
    answer = as_asked.say(Chat, who, Script(tokens=15, tokens_per_s=10))

    assert answer.status_code == 200, answer.text
    assert record_of(as_asked, who)["billed_output_tokens"] == 15


@every_format
def test_what_a_caller_leaves_is_read_to_its_end_and_billed_what_it_came_to(as_asked: Faulty, dialect: Any) -> None:
    who = as_asked.loop.customer("small")
    leave(as_asked, who, dialect)

    record = record_of(as_asked, who)
    outcome = (record["finish"], record["billed_output_tokens"], record["usage_source"])
    assert outcome == ("disconnect", 10, "drained")
    assert record["duration_ms"] < 1000 * 10 / SLOW, "the duration ends when the caller left"
    assert not as_asked.upstream_call(record).was_left


def test_what_a_caller_leaves_ends_with_the_calls_deadline(as_asked: Faulty) -> None:
    who = as_asked.loop.customer("small")
    leave(as_asked, who, Chat, tokens=10_000)

    as_asked.until_over(who)
    (record,) = as_asked.loop.usage(who)
    assert (record["finish"], record["billed_output_tokens"]) == ("disconnect", CAP)
    assert as_asked.upstream_call(record).was_left


@every_format
def test_what_a_caller_leaves_is_closed_where_the_operator_says_so(stopping: Faulty, dialect: Any) -> None:
    """Nobody reports how much was made by then: before the model's speed is known, the grant is billed."""
    who = stopping.loop.customer("small")
    leave(stopping, who, dialect)

    stopping.until_over(who)
    (record,) = stopping.loop.usage(who)
    outcome = (record["finish"], record["billed_output_tokens"], record["usage_source"])
    assert outcome == ("disconnect", CAP, "granted")
    assert stopping.upstream_call(record).was_left


def leave(faulty: Faulty, who: Any, dialect: Any, tokens: int = 10) -> None:
    """Request a whole answer, and hang up when a part of it is made."""
    before = len(faulty.truth.calls)
    caller = Caller(faulty, who, Script(tokens=tokens, obeys=tokens < CAP, tokens_per_s=SLOW), dialect=dialect)
    until(lambda: len(faulty.truth.calls) > before and list(faulty.truth.calls.values())[-1].tokens >= 3)
    caller.hang_up()


def test_a_killed_workers_whole_answer_is_recorded_without_tokens() -> None:
    """Nothing of the whole answer had arrived, so its tokens are unknown; a streamed answer's record has tokens."""
    truth, lease_s = Truth(), 2.0
    settings: dict[str, Any] = {"upstream_streams": "as_asked", "lease_s": lease_s, "workers": 1}
    with (
        served(truth) as model,
        short_directory() as directory,
        serving(directory / "data", upstream_url=f"{model}/v1", **settings) as running,
    ):
        loop = running.rig(running.admin_token())
        loop.tier("open", period_tokens_max=10_000_000)
        faulty, who = Faulty(loop, truth), loop.customer("open")
        callers = [Caller(faulty, who, Script(tokens=10_000, tokens_per_s=100), stream=way) for way in (True, False)]
        until(lambda: len(truth.calls) == 2 and min(call.tokens for call in truth.calls.values()) > 250)
        (worker,) = running.children("worker")
        os.kill(worker.process.pid, signal.SIGKILL)
        until(lambda: open_holds(redis_url(running)) == 0, 2 * lease_s)
        records = {record["stream"]: record for record in loop.usage(who)}
        for caller in callers:
            caller.hang_up()

    assert {record["finish"] for record in records.values()} == {"recovered"}
    assert records[True]["billed_output_tokens"] > 0
    assert records[False]["billed_output_tokens"] == 0
