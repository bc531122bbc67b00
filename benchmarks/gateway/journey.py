"""The cost of a call's journey alone, with a server, an upstream and a Redis that answer at once.

python -m benchmarks.gateway.journey            least CPU µs of a call
python -m benchmarks.gateway.journey --profile  and where in the code it is spent
python -m benchmarks.gateway.journey --counts   how many functions a call calls, independent of other load
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import uvloop

from benchmarks.gateway.ours import TIER
from benchmarks.gateway.scenarios import Scenario
from gateway.app import request_ids
from gateway.clock import now_ms
from gateway.deadlines import Deadlines
from gateway.holds.admission import Admission, Lease
from gateway.holds.idempotency_claims import IdempotencyClaims
from gateway.holds.keeper import Keeper
from gateway.holds.offer import HouseLimits
from gateway.holds.settlement import Settlements
from gateway.holds.store import redis_keys
from gateway.holds.store.cache import LookupCache
from gateway.holds.store.connection import packed
from gateway.holds.store.generation import Generation
from gateway.holds.store.packing import DONE, GRANTED
from gateway.holds.store.threads import Threads
from gateway.holds.terms import Customer, Publication, Timeline
from gateway.metrics.counters import Counters
from gateway.serving.caller.body_intake import BodyIntake
from gateway.serving.caller.exchange import Exchange
from gateway.serving.dialects.chat import Chat
from gateway.serving.disconnects import Disconnects, GenerationSpeed, Manners, Places
from gateway.serving.journey import Journey
from gateway.serving.tokenizer import SpotChecks, TokenCounter
from gateway.serving.upstream.client import Upstream
from gateway.serving.upstream.concurrency import ConcurrencyLimit
from gateway.serving.upstream.profiles import ANY, PROFILES
from gateway.serving.upstream.transport import Sent, Sink, ignore_sent
from pricing.menus.menu import Menu, Tier
from tests.plain_rules import RULES

ROUNDS, CALLS = 40, 200
KEY = "tc-ab-" + "x" * 40
CUSTOMER = next(name for number in range(10_000) if redis_keys.bucket_of(name := f"cus_{number}") == "ab")
FRAME: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "aligned-1"}
EVENTS: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}},
]
STREAM = b"".join(b"data: %b\n\n" % json.dumps({**FRAME, **one}).encode() for one in EVENTS) + b"data: [DONE]\n\n"
MESSAGE: dict[str, Any] = {"role": "assistant", "content": " word"}
CHOICE: dict[str, Any] = {"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"}
WHOLE = {**FRAME, "object": "chat.completion", "choices": [CHOICE], "usage": EVENTS[-1]["usage"]}


@dataclass(frozen=True)
class Kind:
    """How an answer arrives: whether the caller requests a stream, whether the upstream is asked for a stream anyway, and
    the upstream's name for the model, which callers know as ``aligned-1``."""

    name: str
    stream: bool
    always_streams: bool
    model: str = "aligned-1"

    @property
    def answer(self) -> tuple[str, bytes]:
        """The type of the upstream's answer, and its bytes."""
        if self.stream or self.always_streams:
            return "text/event-stream", STREAM
        return "application/json", json.dumps({**WHOLE, "model": self.model}).encode()


KINDS = (
    Kind("whole", stream=False, always_streams=False),
    Kind("whole, of a model with another name", stream=False, always_streams=False, model="meta-llama/Llama-3"),
    Kind("streamed", stream=True, always_streams=False),
    Kind("whole, of an upstream that always streams", stream=False, always_streams=True),
)


class Line:
    """A Redis that grants and books everything at once, in the turn of the event loop that sends the command."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        menu = Menu("v1", "2026-01-01T00:00:00Z", "USD", "conversation", (Tier("all", **TIER),))
        customer = Customer(CUSTOMER, "active", "all", 0, None, None, "month", "UTC", {}, 1)
        timeline = Timeline((Publication(1, "v1", 0, "now"),))
        self._known: dict[str, Any] = {
            redis_keys.menu("v1"): json.dumps(menu.to_json()).encode(),
            redis_keys.customer("ab", CUSTOMER): customer.to_json().encode(),
            redis_keys.TIMELINE: timeline.to_json().encode(),
        }

    def execute(self, *words: bytes | str | int) -> asyncio.Future[Any]:
        packed(words)
        answer: asyncio.Future[Any] = self._loop.create_future()
        now = now_ms()
        if words[0] == "HMGET":
            answer.set_result([CUSTOMER.encode(), b"key_1"])
        elif words[0] != "EVALSHA":
            answer.set_result(self._known[str(words[1])])
        elif cast(bytes, words[4 + int(words[2])]).startswith(b"w_1\0"):  # a reservation names its worker
            answer.set_result(GRANTED.pack(now, 4096, 4096, 95904, 1000000, now, 0))
        else:
            answer.set_result(DONE.pack(1000, 99990, now))
        return answer

    async def aclose(self) -> None:
        pass


class Reply:
    """An answer that has arrived completely."""

    status = 200

    def __init__(self, kind: str, answer: bytes) -> None:
        self._kind = kind
        self._left: bytes | None = answer

    def header(self, name: str) -> str | None:
        return self._kind

    async def chunk(self, patience_s: float) -> bytes | None:
        answer, self._left = self._left, None
        return answer

    async def pour(self, sink: Sink, patience_s: float, idle_s: float) -> bool:
        return True

    async def aclose(self) -> None:
        pass


class Transport:
    def __init__(self, kind: str, answer: bytes) -> None:
        self._answer = kind, answer

    async def post(
        self,
        path: str,
        body: bytes,
        request_id: str,
        more: Mapping[str, str],
        patience_s: float,
        sent: Sent = ignore_sent,
    ) -> Reply:
        sent()
        return Reply(*self._answer)

    async def aclose(self) -> None:
        pass


async def calls(kind: Kind) -> Callable[[int], Any]:
    """Return a function that makes a number of calls, one after another."""
    line = Line(asyncio.get_running_loop())

    async def restore(_heard: object) -> str:
        return "1"

    generation, cache = Generation(restore), LookupCache(line)
    await generation.learn(0)
    await cache.read_timeline()
    lease, limits = Lease("w_1", 60_000, 600_000), HouseLimits(16_384, 131_072, 16, observes=False)
    admission = Admission(line, cache, generation, lease=lease, house=limits, currency="USD", now_ms=now_ms)
    claims, deadlines, counters = IdempotencyClaims(line, lease.lease_ms), Deadlines(), Counters()
    journey = Journey(
        Chat(replace(PROFILES["openai"], always_streams=kind.always_streams)),
        admission=admission,
        keeper=Keeper(
            Settlements(line, generation, lease, now_ms=now_ms), claims, lease, counters, monotonic=time.monotonic
        ),
        threads=Threads(line, cache, admission.in_force),
        claims=claims,
        intake=BodyIntake(16 * 2**20, time.perf_counter),
        concurrency=ConcurrencyLimit(None, wait_s=1),
        upstream=Upstream(Transport(*kind.answer), first_token_s=60, idle_s=60, whole_s=600),
        token_counter=TokenCounter(),
        rules=RULES,
        counters=counters,
        spots=SpotChecks(TokenCounter(), share=0, counters=Counters(), chance=lambda: 1.0),
        disconnects=Disconnects(ANY, Manners(300, None), Places(None), GenerationSpeed(), Counters()),
        monotonic=time.monotonic,
    )
    head, _, body = (
        Scenario("alone", 1, stream=kind.stream).request({"authorization": f"Bearer {KEY}"}).partition(b"\r\n\r\n")
    )
    headers = [tuple(line.split(b": ", 1)) for line in head.split(b"\r\n")[1:]]
    scope = {"method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": headers}
    messages: list[Any] = []
    new_id = partial(next, request_ids())

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        messages.append(message)

    async def make(calls: int) -> None:
        for _ in range(calls):
            with Exchange(scope, receive, send, new_id(), deadlines, 600) as exchange:
                await journey.serve(exchange)
        assert len(messages) >= 2 * calls
        messages.clear()

    return make


async def functions(make: Callable[[int], Any]) -> float:
    """Return how many functions a call calls, in Python and in C, functions of this file included."""
    calls_counted = 0

    def note(_frame: object, event: str, _: object) -> None:
        nonlocal calls_counted
        calls_counted += event in ("call", "c_call")

    sys.setprofile(note)
    await make(CALLS)
    sys.setprofile(None)
    return calls_counted / CALLS


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--counts", action="store_true")
    arguments = parser.parse_args()
    for kind in KINDS:
        make = await calls(kind)
        if arguments.counts:
            await make(CALLS)
            print(f"{kind.name}: {await functions(make):.0f} functions a call")
            continue
        call_us = []
        for _ in range(ROUNDS):
            before = time.process_time_ns()
            await make(CALLS)
            call_us.append((time.process_time_ns() - before) / CALLS / 1000)
        print(f"{kind.name}: {min(call_us):.1f} CPU µs a call, at the least of {ROUNDS} rounds of {CALLS}")
        if arguments.profile:
            with cProfile.Profile() as profile:
                await make(CALLS)
            pstats.Stats(profile).sort_stats("cumulative").print_stats("gateway", 40)


if __name__ == "__main__":
    uvloop.run(main())
