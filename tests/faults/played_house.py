"""A house in this process: real journey, reservation and settlement with a real Valkey; both connections are played.

Neither the HTTP server nor the upstream's HTTP client is in it, so that a call costs a millisecond or two. Each call
has a clock of its own, which advances as its upstream makes tokens.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from gateway.deadlines import Deadlines
from gateway.errors import CallerGone, TokencapError, UpstreamUnavailable
from gateway.holds.idempotency_claims import IdempotencyClaims
from gateway.holds.keeper import Keeper
from gateway.holds.store.cache import LookupCache
from gateway.holds.store.threads import Threads
from gateway.metrics.counters import Counters
from gateway.serving.caller.body_intake import BodyIntake
from gateway.serving.caller.exchange import WRITE_NOW, Exchange
from gateway.serving.dialects.registry import dialects
from gateway.serving.disconnects import Disconnects, GenerationSpeed, Manners, Places
from gateway.serving.journey import Journey
from gateway.serving.tokenizer import SpotChecks, TokenCounter, read_tokenizer
from gateway.serving.upstream.client import Upstream as Door
from gateway.serving.upstream.concurrency import ConcurrencyLimit
from gateway.serving.upstream.profiles import ANY, LLAMACPP, VLLM, Profile
from gateway.serving.upstream.transport import Sent, Sink, ignore_sent
from tests.faults.shapes import Played, Script, Upstream, characters
from tests.gateway.holds.harness import HoldsHarness
from tests.plain_rules import RULES
from tests.wire.transcripts import Transcript

LENGTHS: dict[str, int] = {}
"""Characters in the stream of each transcript, as received by a caller who reads all of it."""

FIRST_TOKEN_S = 0.2
NEVER = 10_000
"""A deadline in ticks that no call reaches."""

HOUSES: dict[str, tuple[Profile, dict[str, Any]]] = {
    # named by what happens to an answer whose caller has left
    "read on": (ANY, {}),
    "read on, always streamed": (replace(ANY, always_streams=True), {}),
    "closed": (replace(ANY, finishes=False), {}),
    "closed, granted": (replace(ANY, finishes=False), {"bills": "granted"}),
    "running figures": (replace(VLLM, tokenize_field=None, finishes=False), {}),
    "llama.cpp": (replace(LLAMACPP, tokenize_field=None, finishes=True), {}),
    "a tokenizer": (replace(ANY, finishes=False), {"bills": "visible", "tokenizer": "o200k_base"}),
}


class Own:
    """The clock of one call, and the call itself."""

    def __init__(self, play: Play) -> None:
        self.now = 0.0
        self.play = play


OWN: ContextVar[Own | None] = ContextVar("own", default=None)


def own_time() -> float:
    own = OWN.get()
    return 0.0 if own is None else own.now


@dataclass(frozen=True)
class Plan:
    """What the caller does with one call."""

    endpoint: str
    stream: bool
    request: dict[str, Any]
    headers: dict[str, str]
    leaves_at: float = inf
    """The caller hangs up once the upstream has made this share of the tokens."""
    lag: int = 0
    """Turns of the event loop until the gateway notices the hang-up."""
    is_slow: bool = False
    """Whether the caller reads only now and then."""
    takes_nothing: bool = False


@dataclass
class Play:
    """One call: what its upstream does, and what its caller receives."""

    plan: Plan
    script: Script | Transcript
    chance: random.Random
    leaves_after: float = inf
    """Bytes of the answer after which the caller hangs up."""
    upstream: Upstream | Played | None = None
    """None until the upstream is asked."""
    request_id: str = ""
    status: int = 0
    received: bytes = b""
    written: int = 0
    """Bytes that the gateway wrote, including those after the caller had left."""
    generated: int = 0
    """True tokens made so far."""
    is_gone: bool = False
    hung_up: Callable[[], None] | None = None
    """Is called when the caller is gone."""

    def leave(self) -> None:
        """Hang up; the gateway is notified some turns later."""
        if not self.is_gone:
            self.is_gone = True
            self._soon(self.plan.lag)

    def _soon(self, turns: int) -> None:
        if turns >= 0:
            asyncio.get_running_loop().call_soon(self._soon, turns - 1)
        elif self.hung_up is not None:
            self.hung_up()

    @property
    def chunk(self) -> int:
        """The most tokens that arrive at once, over all choices."""
        return 0 if self.upstream is None else self.upstream.chunk * self.upstream.choices

    @property
    def unseen(self) -> int:
        """Reasoning tokens made before any token was shown."""
        return 0 if self.upstream is None else self.upstream.unseen

    @property
    def obtained(self) -> int:
        """The true tokens that reached the caller."""
        if self.status != 200 or self.upstream is None or not self.received:
            return 0
        if self.plan.stream:
            return self.upstream.had(characters(self.plan.endpoint, self.received))
        return -(-(self.upstream.total - self.upstream.unseen) * len(self.received) // self.written)


class Reply:
    """The upstream's side of a call: one piece in each turn of the event loop."""

    status = 200

    def __init__(self, own: Own, upstream: Upstream | Played) -> None:
        self._own, self._upstream = own, upstream
        self._pieces = upstream.pieces()

    def header(self, name: str) -> str | None:
        return None

    async def chunk(self, patience_s: float) -> bytes | None:
        play = self._own.play
        for piece in self._pieces:
            play.generated = piece.generated
            self._own.now += piece.seconds
            if piece.generated >= play.plan.leaves_at * self._upstream.total:
                play.leave()
            await asyncio.sleep(0)
            if piece.data:
                return piece.data
        if self._upstream.is_reset:
            raise UpstreamUnavailable("The upstream broke off its answer.")
        return None

    async def pour(self, sink: Sink, patience_s: float, idle_s: float) -> bool:
        while (data := await self.chunk(patience_s)) is not None:
            if not sink(data):
                return False
        return True

    async def aclose(self) -> None:
        pass


class Transport:
    """The transport to the played upstream."""

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
        own = OWN.get()
        assert own is not None
        play, request = own.play, json.loads(body)
        own.now += FIRST_TOKEN_S
        if isinstance(play.script, Script):
            play.upstream = Upstream(play.script, request)
        else:
            one, stream = play.script, bool(request.get("stream"))
            assert one.record is not None
            tokens, length = one.record["output_tokens"], LENGTHS.get(one.name, 0)
            play.upstream = Played(one.sent(stream=stream), tokens, length, play.chance)
        return Reply(own, play.upstream)

    async def aclose(self) -> None:
        pass


class Caller:
    """The caller's side of a call, as an HTTP server presents it."""

    def __init__(self, play: Play, body: bytes) -> None:
        self._play, self._body = play, body
        self._was_read = False

    async def receive(self) -> Any:
        """Return the body; a second call is an error, since this server reports hang-ups through ``when_gone``."""
        assert not self._was_read
        self._was_read = True
        return {"type": "http.request", "body": self._body}

    def write(self, data: bytes) -> bool:
        """Take bytes, and return whether more may come at once."""
        play = self._play
        play.written += len(data)
        if not play.is_gone:
            room = play.leaves_after - len(play.received)
            play.received += data if room >= len(data) else data[: int(room)]
            if room <= len(data):
                play.leave()
        return not (play.plan.takes_nothing or (play.plan.is_slow and play.chance.random() < 0.5))

    async def send(self, message: Any) -> None:
        play = self._play
        if message["type"] == "http.response.start":
            play.status = message["status"]
            return
        if play.plan.takes_nothing and not play.is_gone:
            await asyncio.Event().wait()  # until the gateway gives up this caller
        for _ in range(play.chance.randrange(20) if play.plan.is_slow else 0):
            await asyncio.sleep(0)
        if message["body"]:
            self.write(message["body"])

    def when_gone(self, hung_up: Callable[[], None] | None) -> None:
        self._play.hung_up = hung_up
        if hung_up is not None and self._play.is_gone:
            hung_up()


class House:
    """One configuration of the gateway; all houses share one Redis and its holds."""

    def __init__(
        self, hung_up: HoldsHarness, keeper: Keeper, claims: IdempotencyClaims, deadlines: Deadlines, name: str
    ) -> None:
        profile, settings = HOUSES[name]
        token_counter = (
            TokenCounter(read_tokenizer(settings["tokenizer"])) if "tokenizer" in settings else TokenCounter()
        )
        disconnects = Disconnects(
            profile, Manners(60, settings.get("bills")), Places(None), GenerationSpeed(), Counters()
        )
        self._deadlines = deadlines
        self._journeys = {
            dialect.endpoint: Journey(
                dialect,
                admission=hung_up.admission,
                keeper=keeper,
                threads=Threads(hung_up.connection, LookupCache(hung_up.connection), hung_up.admission.in_force),
                claims=claims,
                intake=BodyIntake(16 * 2**20, time.perf_counter),
                concurrency=ConcurrencyLimit(None, wait_s=1),
                upstream=Door(Transport(), first_token_s=60, idle_s=60, whole_s=600),
                token_counter=token_counter,
                rules=RULES,
                counters=Counters(),
                spots=SpotChecks(TokenCounter(), share=0, counters=Counters(), chance=lambda: 1.0),
                disconnects=disconnects,
                monotonic=own_time,
            )
            for dialect in dialects(profile)
        }

    async def serve(self, play: Play, key: str, request_id: str) -> None:
        """Serve one call whose caller leaves as its plan says."""
        plan, sent = play.plan, json.dumps({"model": "aligned-1", **play.plan.request}).encode()
        OWN.set(Own(play))
        play.request_id = request_id
        caller = Caller(play, sent)
        headers = {"authorization": f"Bearer {key}", "content-length": str(len(sent)), **plan.headers}
        scope = {
            **{"method": "POST", "path": plan.endpoint, "query_string": b""},
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "extensions": {WRITE_NOW: {"write": caller.write, "when_gone": caller.when_gone}},
        }
        deadlines = 3 if plan.takes_nothing else NEVER
        with (
            Exchange(scope, caller.receive, caller.send, request_id, self._deadlines, deadlines) as exchange,
            suppress(CallerGone),
        ):
            try:
                await self._journeys[plan.endpoint].serve(exchange)
            except CallerGone:
                raise
            except TokencapError as error:
                play.status = error.status
