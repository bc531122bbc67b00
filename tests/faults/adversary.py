"""A caller who knows the code and hangs up wherever that pays: the true tokens it obtains, compared with its bill.

Part of ``make fuzz``. ``played_house.py`` says which parts of the gateway are real, ``shapes.py`` what upstreams send.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from gateway.app import request_ids
from gateway.deadlines import Deadlines
from gateway.holds.admission import Lease
from gateway.holds.idempotency_claims import IdempotencyClaims
from gateway.holds.keeper import Keeper
from gateway.holds.offer import HouseLimits
from gateway.holds.store import redis_keys
from gateway.holds.store.projection import Admitted
from gateway.metrics.counters import Counters
from tests.faults.dialects import DIALECTS
from tests.faults.played_house import HOUSES, LENGTHS, House, Plan, Play
from tests.faults.shapes import Script, characters, script
from tests.gateway.holds.harness import HoldsHarness, holds_harness
from tests.servers import short_directory, valkey_in
from tests.wire.transcripts import TRANSCRIPTS

ESCAPED_MOST = 0.01
"""The largest share of the tokens obtained by callers that may stay unbilled."""

ANSWER, CAP = 1_000, 400
"""The most tokens of an answer, and of a capped conversation."""

LIMITS = HouseLimits(ANSWER, 131_072, 16, observes=False)
LEASE = Lease("w_adversary", 60_000, 600_000)
AT_ONCE = 24
"""Simultaneous conversations."""

CALLS_AT_ONCE, ROUNDS = 4, 4
"""The most simultaneous calls of a capped conversation, and how many rounds of them."""

CUSTOMERS = 64
PART = 1_000
"""Calls between two reads of the records, so that a bucket never has too many waiting records."""

PLAYED = [one for one in TRANSCRIPTS if one.record and one.profile == "any"]
TRANSCRIPTS_PART, ALONE, KEYED, LYING, SEVERAL = 0.2, 0.6, 0.1, 0.2, 0.2
"""The shares of calls that play a transcript, are a conversation of their own, have an Idempotency-Key, lie, or request
several choices."""

STREAMED = 0.7
AT_TOKENS, AT_BYTES, SLOW, DEAF = 0.2, 0.7, 0.1, 0.005
"""The shares of callers that leave after a share of the tokens (below ``AT_TOKENS``) or after some bytes (from there up
to ``AT_BYTES``), that read slowly, or that read nothing."""

LIES: list[dict[str, Any]] = [
    {"n_predict": 10**6},
    {"max_new_tokens": 10**6, "min_tokens": 5_000},
    {"ignore_eos": True, "num_predict": -1},
    {"stream_options": {"include_usage": False}},
    {"usage": {"completion_tokens": 0}, "tokencap": {"charge_nanousd": 0}},
]


@dataclass
class Sum:
    """Sums over calls, in true tokens."""

    calls: int = 0
    obtained: int = 0
    billed: int = 0
    short: int = 0
    """Tokens obtained beyond the bill, over the calls that were billed too little."""
    over: int = 0
    """Tokens billed beyond all that the upstream made, over the calls that were billed too much."""

    def add(self, obtained: int, billed: int, made: int) -> None:
        self.calls += 1
        self.obtained += obtained
        self.billed += billed
        self.short += max(obtained - billed, 0)
        self.over += max(billed - made, 0)


@dataclass
class Found:
    """The result of a run; ``breaches`` are sentences."""

    sums: dict[tuple[str, str], Sum] = field(default_factory=lambda: defaultdict(Sum))
    """By house and by ``usage_source``; ``none`` where there is no record."""
    left: int = 0
    """Calls whose caller hung up."""
    statuses: Counter[int] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)

    def of(self, *, house: str | None = None, source: str | None = None) -> Sum:
        """Return the sum over the calls of one house, over those counted by one source, or over all."""
        total = Sum()
        for (of_house, of_source), one in self.sums.items():
            if house in (None, of_house) and source in (None, of_source):
                for name in vars(total):
                    setattr(total, name, getattr(total, name) + getattr(one, name))
        return total

    @property
    def escaped(self) -> float:
        """The share of obtained tokens that was not billed, call by call: overcharged calls do not offset it."""
        every = self.of()
        return every.short / max(every.obtained, 1)


class World:
    """The real parts, and the customers."""

    def __init__(self, harness: HoldsHarness, keeper: Keeper, claims: IdempotencyClaims, seed: int) -> None:
        deadlines = Deadlines(0.01)
        self.keeper, self.harness, self.seed = keeper, harness, seed
        self.houses = {name: House(harness, keeper, claims, deadlines, name) for name in HOUSES}
        self.keys: list[tuple[str, str]] = []
        self.plays: dict[str, tuple[str, Play]] = {}
        self.conversations: list[tuple[str, list[Play]]] = []
        self.requests = 0
        """Calls that reached the upstream."""
        self._ids = request_ids()

    def sell(self) -> None:
        """Create tiers and customers."""
        self.harness.tier("open", conversation_tokens_max=None, output_nanousd_per_mtok=1_000_000)
        self.harness.tier("capped", conversation_tokens_max=CAP, price_nanousd=1_000)
        for number in range(CUSTOMERS):
            name = f"cus_{number}"
            self.harness.customer(name, "capped" if number % 2 else "open")
            bucket = redis_keys.bucket_of(name)
            text = f"tc-{bucket}-" + f"{number:040d}"
            digest = hashlib.sha256(text.encode()).hexdigest()
            self.harness.projection.put_keys([Admitted(bucket, digest, name, f"key_{number}", None)])
            self.keys.append((name, text))

    async def play(self, house: str, play: Play, customer: int) -> Play:
        """Make one call."""
        _, key = self.keys[customer]
        request_id = next(self._ids)
        self.plays[request_id] = house, play
        await asyncio.create_task(self.houses[house].serve(play, key, request_id))
        self.requests += play.upstream is not None
        return play

    async def converse(self, number: int) -> None:
        """Make the calls of one conversation."""
        chance = random.Random(f"{self.seed} {number}")
        house = chance.choice(list(HOUSES))
        if chance.random() < ALONE:
            await self._alone(house, chance)
        else:
            await self._capped(house, chance, number)

    async def _alone(self, house: str, chance: random.Random) -> None:
        play = _play(chance, house)
        customer = 2 * chance.randrange(CUSTOMERS // 2)
        if chance.random() < KEYED:
            play.plan.headers["idempotency-key"] = f"key-{chance.random()}"
        await self.play(house, play, customer)
        if "idempotency-key" not in play.plan.headers:
            return
        again = Play(replace(play.plan, leaves_at=inf, takes_nothing=False), play.script, chance)
        await self.play(house, again, customer)
        if again.upstream is None:  # the stored answer was replayed
            del self.plays[again.request_id]
            play.status, play.received, play.written = again.status, again.received, again.written

    async def _capped(self, house: str, chance: random.Random, number: int) -> None:
        """Make several calls at a time in one conversation until its cap is reached."""
        plays: list[Play] = []
        customer = 2 * chance.randrange(CUSTOMERS // 2) + 1
        for _ in range(ROUNDS):
            together = [_play(chance, house, spoken=False) for _ in range(chance.randint(1, CALLS_AT_ONCE))]
            for play in together:
                play.plan.headers["x-conversation-id"] = f"c{number}"
                play.plan.request.update(DIALECTS[play.plan.endpoint].limit(chance.choice((50, 100, ANSWER))))
            await asyncio.gather(*(self.play(house, play, customer) for play in together))
            plays += together
            if all(play.status == 429 for play in together):
                break
        self.conversations.append((f"conversation c{number} of {house!r}", plays))

    async def settled(self) -> dict[str, dict[str, Any]]:
        """Wait until every hold is settled; return the records since the last read, by id."""
        while self.keeper.holds:
            await asyncio.sleep(0.005)
        records = {}
        for name, _ in self.keys:
            for entry in self.harness.records(name):
                record = json.loads(entry["record"])
                records[record["id"]] = record
        for name, _ in self.keys:
            self.harness.blocking.delete(redis_keys.usage(redis_keys.bucket_of(name)))
        return records

    def judge(self, found: Found, records: dict[str, dict[str, Any]]) -> None:
        """Compare obtained with billed tokens."""
        for name, (house, play) in self.plays.items():
            record = records.get(name)
            source, due = ("none", 0) if record is None else (record["usage_source"], record["billed_output_tokens"])
            had = play.obtained
            found.sums[house, source].add(had, due, play.generated)
            found.statuses[play.status] += 1
            found.left += play.is_gone
            slack = {"continuous": play.chunk, **dict.fromkeys(("upstream", "drained", "granted", "none"), 0)}.get(
                source
            )
            if slack is not None and had and had + play.unseen > due + slack:
                found.breaches.append(f"{house}: {had} obtained, {due} billed as {source}: {play.plan} {play.script}")
            if record is not None and due > record["cap_tokens"] * record["choices"]:
                found.breaches.append(f"{house}: billed above the grant: {record}")
        for name, plays in self.conversations:
            had, at_once = sum(play.obtained for play in plays), CALLS_AT_ONCE * max(play.chunk for play in plays)
            if had > CAP + at_once:
                found.breaches.append(f"{name} obtained {had} of {CAP}")
        self.plays.clear()
        self.conversations.clear()


def _play(chance: random.Random, house: str, *, spoken: bool = True) -> Play:
    """Draw a call."""
    is_played = spoken and HOUSES[house][0].name == "any" and chance.random() < TRANSCRIPTS_PART
    transcript = chance.choice(PLAYED)
    endpoint = transcript.endpoint if is_played else chance.choice(list(DIALECTS))
    stream = chance.random() < STREAMED
    request = dict(transcript.request) if is_played else DIALECTS[endpoint].request({})
    request.pop("metadata", None)
    request.pop("suffix", None)
    has_choices = endpoint.endswith("completions") and not is_played
    if has_choices and not HOUSES[house][0].counts_choices_apart and chance.random() < SEVERAL:
        request["n"] = chance.choice((2, 3))
    if stream and has_choices:
        request["stream_options"] = {"include_usage": chance.random() < 0.5}
    if chance.random() < LYING:
        request |= chance.choice(LIES)
    how = chance.random()
    plan = Plan(
        endpoint,
        stream,
        request | {"stream": stream},
        {},
        leaves_at=chance.random() if how < AT_TOKENS else inf,
        lag=chance.choice((0, 0, 1, 3)),
        is_slow=chance.random() < SLOW,
        takes_nothing=chance.random() < DEAF,
    )
    play = Play(plan, transcript if is_played else script(chance, endpoint), chance)
    if AT_TOKENS <= how < AT_BYTES:
        play.leaves_after = chance.randrange(_size(play) + 1)
    return play


def _size(play: Play) -> int:
    """Return the approximate number of bytes of the answer."""
    if isinstance(play.script, Script):
        pieces = -(-play.script.tokens // play.script.per_chunk)
        return 600 + 5 * play.script.tokens + (230 * pieces if play.plan.stream else 0)
    return 2 * len(play.script.sent(stream=play.plan.stream).body)


async def run(url: str, calls: int, seed: int) -> Found:
    """Make calls until at least ``calls``, perhaps a few more, have reached the upstream."""
    found = Found()
    async with holds_harness(url, house=LIMITS, lease=LEASE) as harness:
        claims = IdempotencyClaims(harness.connection, LEASE.lease_ms)
        keeper = Keeper(harness.settlements, claims, LEASE, Counters(), monotonic=time.monotonic)
        renewing = asyncio.create_task(keeper.run())
        world = World(harness, keeper, claims, seed)
        world.sell()
        await _learn_lengths(world)
        world.requests = 0
        number = 0

        async def converse_on(until: int) -> None:
            nonlocal number
            while world.requests < until:
                number += 1
                await world.converse(number)

        for part in range(0, calls, PART):
            until = min(part + PART, calls)
            await asyncio.gather(*(converse_on(until) for _ in range(AT_ONCE)))
            world.judge(found, await world.settled())
        renewing.cancel()
        with suppress(asyncio.CancelledError):
            await renewing
    return found


async def _learn_lengths(world: World) -> None:
    """Read every transcript to its end once, to learn how much text its stream has."""
    for one in PLAYED:
        request = dict(one.request) | {"stream": True}
        play = Play(Plan(one.endpoint, True, request, {}), one, random.Random(1))
        await world.play("read on", play, 0)
        LENGTHS[one.name] = characters(one.endpoint, play.received)
    await world.settled()
    world.plays.clear()


def play_all(calls: int, seed: int) -> bool:
    """Play, print the result, and return whether every promise held."""
    began = time.process_time()
    with short_directory() as directory, valkey_in(directory) as url:
        found = asyncio.run(run(url, calls, seed))
    seconds, every = time.process_time() - began, found.of()
    print(f"left       {found.left} of {every.calls} calls were hung up on, in {seconds:.0f} CPU s")
    print(f"statuses   {dict(sorted(found.statuses.items()))}")
    sums = {f"in {one!r}": found.of(house=one) for one, _ in found.sums}
    sums |= {f"by {one}": found.of(source=one) for _, one in found.sums}
    for way, one in sorted(sums.items()):
        sums = f"{one.calls:6} calls, {one.obtained:8} obtained, {one.billed:8} billed"
        print(f"{way:30} {sums}, {one.short:6} too little, {one.over:6} too much")
    print(f"escaped    {found.escaped:.2%} of {every.obtained} tokens that callers obtained")
    print("".join(f"{breach}\n" for breach in found.breaches[:20]), end="")
    return not found.breaches and found.escaped <= ESCAPED_MOST
