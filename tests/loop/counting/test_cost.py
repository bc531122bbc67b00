"""The cost of a call, in counts that no other load changes: commands, connections, functions, modules.

``python -m benchmarks.gateway.run`` measures time; here a change that makes a call dearer by its nature turns red.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import gateway
from benchmarks.gateway.journey import KINDS, Kind, calls
from gateway.holds.hold import Hold
from gateway.holds.keeper import Live
from gateway.holds.store.clients import connect
from gateway.runtime.http.answer import Answer
from gateway.serving.call import Call
from gateway.serving.caller.exchange import Exchange
from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.chat import Chat
from gateway.serving.upstream.profiles import PROFILES
from gateway.simulator.model_server import Law
from tests.gateway.holds.harness import HoldsHarness, holds_harness
from tests.loop.rig import FAST, Rig, Sold, rig

CALLS, AT_ONCE = 200, 20
OF_A_CALL = (Answer, Exchange, Call, Hold, Live)
ADMITTED_MOST = 118
"""The most calls of our own functions, and of C functions by them, for a reservation and its settlement."""

EVENT_MOST = 24
"""The most calls for an event of a stream that differs from the event before it only in its text."""

CALL_MOST = {
    "whole": 435,
    "whole, of a model with another name": 448,
    "streamed": 627,
    "whole, of an upstream that always streams": 619,
}
"""The most calls for a whole journey whose server, upstream and Redis answer at once."""

MODULES_MOST = 1_081
"""Of these, four are for the routes of increases and of credit notes, which a worker serves to the operator; two for
months that retention dropped, which totals and exports read; one for prepaid credit, which invoices show; one for the
threads that a rebuild writes again; one for the parameters of a pricing run, which the run's process reads without
FastAPI; one for late records, which invoices and exports read; and two that only Python 3.11.2 loads."""
OURS = str(Path(gateway.__file__).parent)
HEAVY = {"numpy", "scipy", "matplotlib", "alembic", "typer.rich_utils", "pytest"}


async def spread(loop: Rig, who: Sold, calls: int) -> None:
    """Make calls, at most ``AT_ONCE`` at a time, half of them streams."""
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with httpx.AsyncClient(limits=limits, timeout=60, headers=who.headers) as client:

        async def one(number: int) -> None:
            body = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hi"}], "stream": number % 2 == 0}
            answer = await client.post(f"{loop.url}/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text

        await asyncio.gather(*(one(number) for number in range(calls)))


async def test_a_call_is_two_commands_over_one_connection(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    """One script reserves and one settles; every other command belongs to the worker, not to the call."""
    with rig(valkey_url, sqlite_url, tmp_path) as loop:
        loop.tier("open", conversation_tokens_max=1_000, period_tokens_max=10**9, price_nanousd=1)
        who = loop.customer("open")
        await spread(loop, who, AT_ONCE)
        loop.until_nothing_is_held()
        with connect(valkey_url) as client:
            client.config_resetstat()
            connected = client.info("stats")["total_connections_received"]
            await spread(loop, who, CALLS)
            commands: dict[str, Any] = client.info("commandstats")
            connected = client.info("stats")["total_connections_received"] - connected

    scripts = commands["cmdstat_evalsha"]["calls"]
    assert 2 * CALLS <= scripts <= 2 * CALLS + 100, "renewals are sent once a second, not once a call"
    assert commands.get("cmdstat_eval", {"calls": 0})["calls"] <= 3, "a script is sent in full the first time only"
    assert connected <= 2


async def leave(loop: Rig, who: Sold, calls: int) -> None:
    """Begin ``calls`` streams, and hang up after the first bytes of each."""
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(limits=limits, timeout=60, headers=who.headers) as client:

        async def one() -> None:
            body = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
            async with client.stream("POST", f"{loop.url}/v1/chat/completions", json=body) as answer:
                await anext(answer.aiter_raw())

        await asyncio.gather(*(one() for _ in range(calls)))


@pytest.mark.parametrize(
    ("make", "law"),
    [(spread, FAST), (leave, Law(tokens_per_s=200, first_token_s=0, mean_tokens=20))],
    ids=["heard out", "left"],
)
async def test_a_call_leaves_nothing_for_the_garbage_collector(
    valkey_url: str, sqlite_url: str, tmp_path: Path, make: Callable[[Rig, Sold, int], Awaitable[None]], law: Law
) -> None:
    """Objects in a cycle stay until the collector visits everything, which takes a tenth of a second each time."""
    with rig(valkey_url, sqlite_url, tmp_path, law=law) as loop:
        loop.tier("open", conversation_tokens_max=1_000, period_tokens_max=10**9, price_nanousd=1)
        who = loop.customer("open")
        await make(loop, who, AT_ONCE)
        loop.until_nothing_is_held()
        gc.collect()
        gc.disable()
        try:
            await make(loop, who, CALLS)
            loop.until_nothing_is_held()
            left = Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, OF_A_CALL))
        finally:
            gc.enable()

    assert max(left.values(), default=0) <= 2 * AT_ONCE, "at most the last call of each connection"


async def commands_of_a_call(harness: HoldsHarness, number: int, **named: str) -> dict[str, int]:
    """Return how often each command ran for a reservation and its settlement, inside scripts too."""
    harness.blocking.config_resetstat()
    hold = await harness.reserve(f"c{number}", "acme", 100, **named)
    await harness.settlements.settle(hold, harness.outcome(10))
    ran: dict[str, Any] = harness.blocking.info("commandstats")
    return {
        name: counted["calls"]
        for name, counted in ran.items()
        if name.removeprefix("cmdstat_") not in ("config", "info")
    }


async def test_naming_an_end_user_costs_no_command_where_end_users_have_no_limit(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        harness.tier("open", conversation_tokens_max=1_000, period_tokens_max=10**9, price_nanousd=1)
        harness.customer("acme", "open")
        for number in range(2):
            await commands_of_a_call(harness, number)
        without = await commands_of_a_call(harness, 2)

        assert await commands_of_a_call(harness, 3, end_user="ann") == without
        assert without["cmdstat_evalsha"] == 2


async def functions_called(act: Callable[[], Awaitable[Any]]) -> int:
    """Return how many calls of our own functions, and of C functions by them, happen while ``act`` runs."""
    count = 0

    def note(frame: Any, event: str, _: Any) -> None:
        nonlocal count
        if event in ("call", "c_call") and frame.f_code.co_filename.startswith(OURS):
            count += 1

    sys.setprofile(note)
    try:
        await act()
    finally:
        sys.setprofile(None)
    return count


async def test_admitting_and_settling_calls_so_many_functions_and_no_more(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        harness.tier("open", conversation_tokens_max=1_000, period_tokens_max=10**9, price_nanousd=1)
        harness.customer("acme", "open")
        counts = [await functions_called(lambda number=number: _once(harness, number)) for number in range(5)]

    assert min(counts) <= ADMITTED_MOST
    assert max(counts[2:]) == min(counts[2:]), "the tenth call costs what the third one did"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_a_call_calls_so_many_functions_and_no_more(kind: Kind) -> None:
    make, calls_made = await calls(kind), 20
    await make(calls_made)

    assert await functions_called(lambda: make(calls_made)) // calls_made <= CALL_MOST[kind.name]


async def _once(harness: HoldsHarness, number: int) -> None:
    hold = await harness.reserve(f"c{number}", "acme", 100)
    await harness.settlements.settle(hold, harness.outcome(10))


def _event(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "aligned-1"}
    return b"data: " + json.dumps({**frame, "choices": [choice]}).encode() + b"\n\n"


def _reading(grant: int = 10**6) -> Reading:
    chat = Chat(PROFILES["openai"])
    body = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    reading = chat.reading(chat.read(body, 100), grant=grant)
    reading.feed(_event("one"))
    return reading


@pytest.mark.parametrize("before", [0, 10_000])
async def test_an_event_costs_the_same_wherever_it_stands_in_an_answer(before: int) -> None:
    reading = _reading()
    for number in range(before):
        reading.feed(_event(f" word {number}"))

    event = _event(" another\n")

    async def fed() -> None:
        assert reading.feed(event)

    assert await functions_called(fed) <= EVENT_MOST


STREAMS, PROMPT = 10, b"x" * 1_000_000


async def begin_and_wait(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answering: list[asyncio.Task[Any] | None]
) -> None:
    """Read a request, begin a stream, and send nothing more until the peer closes the connection."""
    answering.append(asyncio.current_task())
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"POST"):
        left = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        while left:
            left -= len(await reader.read(min(left, 65_536)))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + _event("One"))
        with suppress(ConnectionError):
            await reader.read()
    else:  # the gateway asks what kind of model this is
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    writer.close()


async def test_a_stream_under_way_keeps_nothing_of_its_prompt(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    """Prompts are large and answers take minutes: a worker that kept prompts would hold those of all its streams."""
    answering: list[asyncio.Task[Any] | None] = []
    model = await asyncio.start_server(
        lambda reader, writer: begin_and_wait(reader, writer, answering), "127.0.0.1", 0, limit=65_536
    )
    address = f"http://127.0.0.1:{model.sockets[0].getsockname()[1]}"
    with rig(valkey_url, sqlite_url, tmp_path, upstream=address) as loop:
        loop.tier("open", conversation_tokens_max=1_000)
        who = loop.customer("open")
        body = b'{"model":"aligned-1","stream":true,"messages":[{"role":"user","content":"%b"}]}' % PROMPT
        async with httpx.AsyncClient(headers=who.headers, timeout=60) as client, AsyncExitStack() as open_streams:

            async def begin() -> None:
                stream = client.stream("POST", f"{loop.url}/v1/chat/completions", content=body)
                answer = await open_streams.enter_async_context(stream)
                assert answer.status_code == 200
                await anext(answer.aiter_raw())

            await begin()
            tracemalloc.start()
            await asyncio.gather(*(begin() for _ in range(STREAMS)))
            kept, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    model.close()
    await asyncio.gather(*(task for task in answering if task is not None))
    for _ in range(3):
        await asyncio.sleep(0)  # the event loop reports closed connections in its next turns

    assert kept < STREAMS * len(PROMPT) / 4


def test_a_worker_loads_what_it_serves_with_and_no_more() -> None:
    program = "import gateway.cli.worker_process, json, sys; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)

    assert not HEAVY & set(loaded)
    assert len(loaded) <= MODULES_MOST


def test_a_command_is_loaded_without_a_look_for_garbage() -> None:
    """Full collections over the modules imported so far would be a quarter of a worker's start."""
    program = (
        "import gc, sys; from gateway.cli.main import run; rounds = [];"
        "gc.callbacks.append(lambda _, info: rounds.append(info['generation']));"
        "run(['worker', '--help']); print(max(rounds), file=sys.stderr)"
    )
    errors = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stderr

    assert int(errors) < 2
