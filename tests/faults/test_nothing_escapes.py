"""Every token made is billed, even if the caller leaves early: in each format, streamed and whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from tests.faults.calls import Caller, Faulty, body, faulty_loop
from tests.faults.dialects import Chat
from tests.faults.test_dialects import ALL, named
from tests.faults.truth import Script, UpstreamCall
from tests.loop.rig import Rig, Sold
from tests.waiting import until

every_format = pytest.mark.parametrize("dialect", ALL, ids=named)
streamed_and_whole = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
with_a_key_and_without = pytest.mark.parametrize("key", [None, "once"], ids=["no key", "a key"])

GRANT = 4_000
"""The most tokens of an answer."""

THOUGHT = Script(tokens=3, hidden=1_980, prompt=100_000, fault="wait before usage")
"""A reasoning model's answer: only three of its tokens are shown."""

BROAD = Script(tokens=1_000, per_chunk=40, prompt=50, fault="wait before usage")
"""Forty tokens in each piece."""

ROWS = {"hidden reasoning": (THOUGHT, 1_983), "forty tokens in each piece": (BROAD, 1_000)}
"""Answers, and how many tokens each makes."""

LIVED_S = 20.0
PATIENT: dict[str, Any] = {"upstream_streams": "as_asked", "answer_tokens_max": GRANT, "idle_deadline_s": 60}


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """A loop with default settings, whose upstream reports its usage only at the end."""
    with faulty_loop(tmp_path_factory.mktemp("listening"), **PATIENT) as running:
        sell(running.loop)
        yield running


@pytest.fixture(scope="module")
def closing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """The same loop where the operator prefers to save the engine's time."""
    with faulty_loop(tmp_path_factory.mktemp("closing"), on_hangup="stop", **PATIENT) as running:
        sell(running.loop)
        yield running


def sell(loop: Rig) -> None:
    loop.tier("metered", output_nanousd_per_mtok=1_000_000, input_nanousd_per_mtok=1_000_000)
    loop.tier("capped", conversation_tokens_max=2_500, price_nanousd=1_000)
    loop.tier("seen", hangup_bills="visible")
    loop.tier("all", hangup_bills="granted")


def disconnects(loop: Rig) -> int:
    """Return how many callers the gateway has seen leave."""
    lines = loop.admin.get("/metrics").text.splitlines()
    return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith("tokencap_hangups_total{"))


def leave(
    faulty: Faulty,
    who: Sold,
    script: Script,
    dialect: Any = Chat,
    *,
    generated: int | None = None,
    ends: bool = True,
    headers: Mapping[str, str] = MappingProxyType({}),
    **more: Any,
) -> UpstreamCall:
    """Make a call, and hang up once all but the usage is made; a stream is first read to its last visible word.

    If ``ends``, the answer ends once the gateway has noticed; otherwise it waits until the gateway closes it."""
    before, left = len(faulty.truth.calls), disconnects(faulty.loop)
    caller = Caller(faulty, who, script, dialect=dialect, headers=headers, **more)
    until(lambda: len(faulty.truth.calls) > before)
    call = list(faulty.truth.calls.values())[-1]
    generated = script.hidden + script.tokens if generated is None else generated
    until(lambda: call.tokens == generated, LIVED_S)
    if more.get("stream") and generated > script.hidden:
        caller.read_until(f"ü{generated - 1} ".encode())
    caller.hang_up()
    if "idempotency-key" not in headers:
        until(lambda: disconnects(faulty.loop) > left, LIVED_S)
    if ends:
        call.may_end.set()
    return call


def the_record(faulty: Faulty, who: Sold) -> dict[str, Any]:
    until(lambda: len(faulty.loop.usage(who)) == 1, LIVED_S)
    faulty.until_over(who)
    (record,) = faulty.loop.usage(who)
    return record


@every_format
@streamed_and_whole
@with_a_key_and_without
@pytest.mark.parametrize("row", ROWS)
def test_a_caller_who_leaves_is_billed_what_was_made(
    listening: Faulty, dialect: Any, stream: bool, key: str | None, row: str
) -> None:
    script, generated = ROWS[row]
    who = listening.loop.customer("metered")
    headers = {} if key is None else {"idempotency-key": key}
    leave(listening, who, script, dialect, headers=headers, stream=stream)

    record = the_record(listening, who)
    ended = ("disconnect", "drained") if key is None else ("complete", "upstream")
    assert (record["finish"], record["usage_source"]) == ended
    assert (record["billed_output_tokens"], record["input_tokens"]) == (generated, script.prompt)
    assert record["charge_nanousd"] == generated + script.prompt


@every_format
@streamed_and_whole
def test_input_is_owed_by_who_leaves_before_the_first_token(listening: Faulty, dialect: Any, stream: bool) -> None:
    """The answer is all reasoning tokens, none of which is shown."""
    who = listening.loop.customer("metered")
    script = Script(tokens=0, hidden=982, prompt=100_022, fault="wait before usage")
    leave(listening, who, script, dialect, stream=stream)

    record = the_record(listening, who)
    assert (record["billed_output_tokens"], record["input_tokens"]) == (982, 100_022)
    assert record["charge_nanousd"] == 982 + 100_022


def test_what_nobody_hears_counts_in_its_conversation(listening: Faulty) -> None:
    """Each call makes a thousand tokens: the third gets what is left of a cap of 2,500, the fourth nothing."""
    who, named = listening.loop.customer("capped"), {"x-conversation-id": "one"}
    for generated in (1_000, 1_000, 500):
        script = Script(tokens=3, hidden=997, fault="wait before usage")
        leave(listening, who, script, headers=named, generated=generated, stream=True)
        listening.until_over(who)
    records = listening.loop.usage(who)
    assert [record["billed_output_tokens"] for record in records] == [1_000, 1_000, 500]
    assert httpx.post(listening.address, json=body(script), headers=who.headers | named).status_code == 429


@every_format
@streamed_and_whole
def test_where_no_figure_comes_the_time_is_owed_or_the_grant(closing: Faulty, dialect: Any, stream: bool) -> None:
    """Before the model's speed is known the grant is due; then at least the relayed tokens and at most the grant."""
    who = closing.loop.customer("metered")
    call = leave(closing, who, THOUGHT, dialect, ends=False, stream=stream)

    record = the_record(closing, who)
    assert record["usage_source"] in ("timed", "granted")
    assert call.was_left
    assert 3 <= record["billed_output_tokens"] <= GRANT
    if record["usage_source"] == "granted":
        assert record["billed_output_tokens"] == GRANT


@pytest.mark.parametrize(("tier", "source", "tokens"), [("seen", "counted", 3), ("all", "granted", GRANT)])
def test_a_tier_says_what_is_owed(closing: Faulty, tier: str, source: str, tokens: int) -> None:
    who = closing.loop.customer(tier)
    leave(closing, who, THOUGHT, stream=True)

    record = the_record(closing, who)
    assert (record["usage_source"], record["billed_output_tokens"]) == (source, tokens)


def test_a_caller_who_takes_nothing_is_billed_what_was_made(tmp_path: Path) -> None:
    """The caller stays connected without reading, and the answer is larger than all buffers in between."""
    with faulty_loop(tmp_path, **PATIENT, write_deadline_s=0.5) as faulty:
        who = faulty.loop.customer("open")
        script = Script(tokens=1_000, hidden=100, per_chunk=100, padding=9_000)
        caller = Caller(faulty, who, script, receive_bytes=4_096, stream=True)
        caller.read_until(b"\r\n\r\n")
        record = the_record(faulty, who)
        caller.hang_up()

    assert (record["finish"], record["usage_source"]) == ("disconnect", "drained")
    assert record["billed_output_tokens"] == 1_100


def test_a_crowd_that_leaves_keeps_nobody_from_the_upstream(tmp_path: Path) -> None:
    """Of eight places two may serve abandoned answers; the others are free at once for a caller who stays."""
    settings = {**PATIENT, "upstream_concurrency_max": 8, "upstream_queue_s": 60}
    with faulty_loop(tmp_path, **settings) as faulty:
        crowd = [faulty.loop.customer("open") for _ in range(8)]
        script = Script(tokens=1, hidden=5, fault="wait before usage")
        callers = [Caller(faulty, who, script, stream=True) for who in crowd]
        for caller in callers:
            caller.read_until("ü5 ".encode())
        for caller in callers:
            caller.hang_up()
        until(lambda: disconnects(faulty.loop) == 8, LIVED_S)
        until(lambda: faulty.truth.live == 2, LIVED_S)

        stays = faulty.loop.customer("open")
        answers = [Caller(faulty, stays, Script(tokens=3), stream=True) for _ in range(6)]
        for answer in answers:
            answer.read_to_the_end_in(4_096)
        for call in faulty.truth.calls.values():
            call.may_end.set()
        faulty.loop.until_nothing_is_held()
        records = {record["customer"]: record for record in faulty.loop.usage() if record["customer"] != stays.id}

    sources = Counter(record["usage_source"] for record in records.values())
    assert sources["drained"] == 2
    assert sources["granted"] == 6
