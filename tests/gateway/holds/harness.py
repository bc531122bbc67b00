"""Reservations and settlements over a real Valkey with customers and tiers of their own, and stories played line by line."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import redis

from gateway.clock import now_ms
from gateway.errors import TokencapError
from gateway.holds.admission import Admission, Lease
from gateway.holds.hold import Hold, Outcome, ReservationRequest
from gateway.holds.maintenance.reclaim import Reclaimer
from gateway.holds.offer import HouseLimits
from gateway.holds.settlement import Settlements
from gateway.holds.store import redis_keys
from gateway.holds.store.cache import LookupCache
from gateway.holds.store.clients import connect, connect_shared, fields, text
from gateway.holds.store.connection import RedisConnection
from gateway.holds.store.generation import Generation
from gateway.holds.store.inflight import InFlight, calls_in_flight
from gateway.holds.store.packing import window_state
from gateway.holds.store.projection import Admitted, Projection
from gateway.holds.store.scripts import source
from gateway.holds.terms import Customer, Publication, Timeline, period_of
from pricing.menus.menu import Menu, Tier

GENERATION = "7"
HOUSE = HouseLimits(answer_tokens_max=16_384, conversation_tokens_max=131_072, grant_tokens_min=16, observes=False)
LEASE = Lease("w_test", lease_ms=60_000, deadline_ms=600_000)


def digest_of(customer: str) -> str:
    return hashlib.sha256(customer.encode()).hexdigest()


def end_lease(client: redis.Redis, bucket: str, hold_id: str, renewed: int = 1) -> None:
    """Date the last renewal of a hold back, or ahead; what it came to until then stays."""
    was = text(client.hget(redis_keys.inflight(bucket), f"progress:{hold_id}") or b"0 0 0 0")
    client.hset(redis_keys.inflight(bucket), f"progress:{hold_id}", f"{renewed} {was.partition(' ')[2]}")


class HoldsHarness:
    """Everything a story can do. Names of holds and customers are the story's own."""

    def __init__(self, url: str, connection: RedisConnection, house: HouseLimits, lease: Lease) -> None:
        self.connection = connection
        self.blocking = connect(url)
        self.projection = Projection(self.blocking)
        self.tiers: dict[str, Tier] = {}
        self.customers: dict[str, Customer] = {}
        self.holds: dict[str, Hold] = {}
        self.in_doubt: list[Hold] = []
        self.publications: tuple[Publication, ...] = ()
        self.generation = Generation(self._restore)
        self.admission = Admission(
            connection,
            LookupCache(connection),
            self.generation,
            lease=lease,
            house=house,
            currency="USD",
            now_ms=now_ms,
        )
        self.settlements = Settlements(connection, self.generation, lease, now_ms=now_ms)
        self.lease = lease

    async def _restore(self, _heard: object) -> str:
        with self.blocking.pipeline(transaction=False) as batch:
            for bucket in redis_keys.ALL_BUCKETS:
                batch.hset(redis_keys.state(bucket), "generation", GENERATION)
            batch.execute()
        return GENERATION

    def publish(self) -> None:
        """Put the tiers as they are now into force, also for a worker whose clock is seconds behind."""
        version = f"v{len(self.publications) + 1}"
        menu = Menu(version, "2026-01-01T00:00:00Z", "USD", "conversation", tuple(self.tiers.values()))
        self.projection.put_menu(menu)
        self.publications += (Publication(len(self.publications) + 1, version, now_ms() - 5_000, "now"),)
        self.projection.put_timeline(Timeline(self.publications))

    def put(self, customer: Customer) -> None:
        self.customers[customer.id] = customer
        bucket = redis_keys.bucket_of(customer.id)
        self.projection.put_customers([customer])
        digest = digest_of(customer.id)
        self.projection.put_keys([Admitted(bucket, digest, customer.id, f"key_{customer.id}", None)])

    def tier(self, name: str, **limits: Any) -> None:
        self.tiers[name] = Tier(name, **limits)
        self.publish()

    def customer(self, name: str, tier: str | None, **changes: Any) -> None:
        new = Customer(name, "active", tier, 0, None, None, "month", "UTC", {}, 1)
        self.put(replace(new, **changes))

    def request(self, hold: str, customer: str, tokens: int | None, **changes: Any) -> ReservationRequest:
        request = ReservationRequest(
            id=hold,
            bucket=redis_keys.bucket_of(customer),
            key_digest=digest_of(customer),
            conversation=hold,
            endpoint="/v1/chat/completions",
            model="aligned-1",
            stream=False,
            choices=1,
            requested_tokens=tokens,
            input_bound=100,
            input_estimate=25,
        )
        return replace(request, **changes)

    async def reserve(self, hold: str, customer: str, tokens: int | None, **changes: Any) -> Hold:
        request = self.request(hold, customer, tokens, **changes)
        self.holds[hold] = await self.admission.reserve(request, self.in_doubt.append)
        return self.holds[hold]

    def outcome(self, tokens: int, **changes: Any) -> Outcome:
        came_to = Outcome(True, "complete", tokens, tokens, input_tokens=10, usage_source="upstream")
        return replace(came_to, **changes)

    def window(self, customer: str) -> dict[str, int]:
        who = self.customers[customer]
        name = redis_keys.window(redis_keys.bucket_of(customer), customer, period_of(who, now_ms())[0])
        found = window_state(self.blocking, name)
        return {field: getattr(found, field) for field in ("used", "held", "spend_used", "spend_held")}

    def end_user(self, customer: str, name: str) -> dict[str, int]:
        start = period_of(self.customers[customer], now_ms())[0]
        found = fields(
            self.blocking.hgetall(redis_keys.end_user(redis_keys.bucket_of(customer), customer, start, name))
        )
        return {field: int(found.get(field, 0)) for field in ("used", "held")}

    def dumped(self) -> dict[bytes, bytes]:
        """Return everything that is in Redis, except for how often it was read."""
        return {name: self.blocking.dump(name) or b"" for name in self.blocking.scan_iter()}

    def records(self, customer: str) -> list[dict[str, str]]:
        stream = redis_keys.usage(redis_keys.bucket_of(customer))
        return [fields(entry) for _, entry in self.blocking.xrange(stream)]

    def reclaimer(
        self, monotonic: Callable[[], float], before_it_books: Callable[[], object] = lambda: None
    ) -> Reclaimer:
        """Return a reclaimer; it asks for the generation once it has looked at a hold and before it books it."""

        def generation() -> str:
            before_it_books()
            return GENERATION

        return Reclaimer(
            self.blocking,
            lease_ms=self.lease.lease_ms,
            generation=generation,
            monotonic=monotonic,
            now_ms=now_ms,
        )

    def renew(self, hold_id: str, sofar: int, *, owes_input: bool = False) -> None:
        """Renew a hold at once, as its worker does."""
        bucket = self.holds[hold_id].facts.bucket
        names = [redis_keys.state(bucket), redis_keys.inflight(bucket)]
        arguments = [GENERATION, now_ms(), hold_id, sofar, "1" if owes_input else ""]
        self.blocking.register_script(source("renew"))(names, arguments)

    def in_flight(self, customer: str) -> dict[str, InFlight]:
        """Return the holds of a customer's bucket by id."""
        calls = calls_in_flight(self.blocking, [redis_keys.bucket_of(customer)])
        return {call.id: call for there in calls.values() for call in there}

    def end_lease(self, hold_id: str) -> None:
        """Let the lease of a hold be over, as if it had not been renewed for long."""
        end_lease(self.blocking, self.holds[hold_id].facts.bucket, hold_id)

    async def play(self, story: str) -> None:
        """Play a story: each line is ``verb words -> what comes of it``; what does not come is an assertion error."""
        for connection in filter(None, (connection.strip() for connection in story.splitlines())):
            line, _, expected = (part.strip() for part in connection.partition("->"))
            assert await self._play_line(line) == expected, connection

    async def _play_line(self, line: str) -> str:
        verb, *words = shlex.split(line)
        named_words = dict(word.split("=") for word in words if "=" in word)
        named = [word for word in words if "=" not in word]
        numbers = {name: int(value) if value.isdecimal() else value for name, value in named_words.items()}
        try:
            match verb:
                case "tier":
                    self.tier(named[0], **numbers)
                case "customer":
                    self.customer(named[0], named[1])
                case "reserve":
                    hold = await self.reserve(named[0], named[1], int(named[2]) if named[2:] else None, **numbers)
                    return f"granted {hold.grant}"
                case "settle":
                    settled = await self.settlements.settle(self.holds[named[0]], self.outcome(int(named[1])))
                    return f"charged {settled.charge_nanousd}"
                case "account":
                    window = self.window(named[0])
                    return f"used {window['used']} held {window['held']}"
                case "user":
                    window = self.end_user(*named)
                    return f"used {window['used']} held {window['held']}"
                case "spend":
                    window = self.window(named[0])
                    return f"used {window['spend_used']} held {window['spend_held']}"
                case _:
                    raise AssertionError(f"no such verb: {verb}")
        except TokencapError as error:
            return type(error).__name__
        return ""


@asynccontextmanager
async def holds_harness(
    url: str, *, house: HouseLimits = HOUSE, lease: Lease = LEASE, batches: bool = True
) -> AsyncIterator[HoldsHarness]:
    connection = connect_shared(url, batches=batches)
    try:
        harness = HoldsHarness(url, connection, house, lease)
        yield harness
        harness.blocking.close()
    finally:
        await connection.aclose()
