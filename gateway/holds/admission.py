"""Admits calls: a Redis script checks each limit and quota, then holds tokens for the call, or changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct

from redis.exceptions import NoScriptError

from gateway.clock import APART_MS
from gateway.errors import InvalidKey, MeteringUnavailable, TokencapError
from gateway.holds.conditions import Condition, Conditions
from gateway.holds.hold import Facts, Hold, ReservationRequest
from gateway.holds.offer import HouseLimits, charge_bound
from gateway.holds.refusals import affordable_tokens, refusal
from gateway.holds.store import redis_keys
from gateway.holds.store.cache import LookupCache
from gateway.holds.store.clients import text, translated
from gateway.holds.store.connection import RedisConnection
from gateway.holds.store.generation import Generation, generation_in
from gateway.holds.store.packing import GRANTED, NONE
from gateway.holds.store.refusal_log import RefusalLog, is_kept
from gateway.holds.store.scripts import Script
from gateway.holds.store.watermarks import NOTHING_KNOWN, PLACES, Numbers
from gateway.holds.terms import Customer

TRIES = 8
"""How many times a reservation is tried before it is given up because its remembered values keep changing."""


BACKLOG_MOST = 4_000
"""Records of a bucket that may wait for the ledger; beyond that no call is admitted. In all buckets a million, 1 GB."""

NUMBERS = Struct("<11d")


@lru_cache(maxsize=4096)
def _keys_of(bucket: str, customer: str, period_start: int) -> tuple[str, ...]:
    return tuple(redis_keys.of_call(bucket, customer, period_start, ""))


WINDOW = 3
"""The index of the window's key among a call's keys."""

CONVERSATION = 4
"""The index of the conversation's key among a call's keys: only it differs between a customer's calls of a period."""


def keys_of_call(bucket: str, customer: str, period_start: int, conversation: str) -> list[str]:
    """Return the keys of ``redis_keys.of_call``, computed only for a customer that has made no call lately."""
    names = [*_keys_of(bucket, customer, period_start)]
    names[CONVERSATION] += conversation
    return names


@dataclass(frozen=True, slots=True)
class Lease:
    """The owner of a hold, how long the hold lasts without a renewal, and the longest that a call may take."""

    owner: str
    lease_ms: int
    deadline_ms: int


@dataclass(slots=True)
class Bid:
    """An attempt to reserve: everything that the script is sent."""

    request: ReservationRequest
    customer: Customer
    condition: Condition
    facts: Facts
    most_tokens: int
    """Tokens per choice that the caller and this gateway allow."""
    money: tuple[int, int]
    """Spend to hold: if the conversation's price is still to be charged, and if not."""


class Admission:
    """Admits calls. Its remembered values save look-ups; the script decides whether they are still valid.

    Args:
        booked: for each bucket, the number of the last record that the ledger is known to have.
        refused: records refusals for the customer; None records none.

    Raises:
        MeteringUnavailable: Redis is unavailable, from every method.
    """

    def __init__(
        self,
        connection: RedisConnection,
        cache: LookupCache,
        generation: Generation,
        booked: Numbers = NOTHING_KNOWN,
        *,
        lease: Lease,
        house: HouseLimits,
        currency: str,
        now_ms: Callable[[], int],
        refused: RefusalLog | None = None,
    ) -> None:
        self._cache = cache
        self._refused = refused
        self._booked = booked
        self._conditions = Conditions(cache, house)
        self._generation = generation
        self._lease = lease
        self._house = house
        self._currency = currency
        self._now_ms = now_ms
        self._connection = connection
        self._script = Script("reserve")
        self._vouches = False
        """Whether this worker's clock, which cannot jump, has ever agreed with Redis' clock."""

    async def reserve(self, request: ReservationRequest, in_doubt: Callable[[Hold], None]) -> Hold:
        """Return the hold of an admitted call.

        ``in_doubt`` is called with a hold whose reservation got no reply: such a hold may exist.

        Raises:
            InvalidKey, CustomerBlocked, NoTier, TierNotFound: the customer may not make this call.
            ConversationCapReached, InsufficientQuota, RateLimitExceeded: too little is left for this call.
        """
        with translated():
            sent_at = now = self._now_ms()
            begun, fresh, is_known, apart_ms, is_in_force = None, False, True, 0, False
            most_tokens = self._most_tokens(request)
            for _ in range(TRIES):
                try:
                    bid = await self._bid(request, most_tokens, begun, now, fresh=fresh)
                except TokencapError as error:
                    if fresh and (is_in_force or not isinstance(error, InvalidKey)):
                        raise
                    if fresh:
                        await self.in_force(request.bucket)
                        is_in_force = True
                    fresh = True  # a value that was only remembered refuses no call
                    continue
                fresh = False
                since = self._generation.learnt
                try:
                    reply = await self._run_script(bid, sent_at, is_known=is_known)
                except BaseException:
                    in_doubt(doubtful(bid, now))
                    raise
                if isinstance(reply, bytes):
                    self._vouches = True
                    return held(bid, reply)
                parts = list(map(text, reply))
                match parts[0]:
                    case "clocks":
                        apart_ms = int(parts[1]) - sent_at
                    case "refused":
                        offered, grant_min = bid.condition.offer, self._house.grant_tokens_min
                        smaller = affordable_tokens(offered, request, parts, self._house)
                        if smaller is None:
                            raise refusal(offered, bid.facts, parts, now, most_tokens=most_tokens, grant_min=grant_min)
                        most_tokens = smaller
                    case "rebuild" | "forgotten":
                        await self._generation.learn(since, request.bucket)
                        fresh, is_known = True, is_known and parts[0] == "rebuild"
                    case "no key":
                        self._cache.forget_key(request.key_digest)
                        raise InvalidKey
                    case "stale customer" | "stale timeline":
                        fresh = True
                    case "stale period":
                        now = int(parts[1])
                    case "begun":
                        begun = (parts[1], parts[2])
                sent_at = self._now_ms()
            if apart_ms:
                raise MeteringUnavailable(f"Redis' clock and this worker's are {apart_ms} ms apart.")
            raise MeteringUnavailable

    async def note_refusal(self, request: ReservationRequest, customer: str, error: TokencapError) -> None:
        """Record a refusal for the customer, where refusals are recorded."""
        if self._refused is None or not is_kept(error):
            return
        holder = None
        with suppress(MeteringUnavailable), translated():  # usually remembered
            holder = await self._cache.holder(request.bucket, request.key_digest)
        self._refused.note(customer, None if holder is None else holder[1], request, error)

    def _most_tokens(self, request: ReservationRequest) -> int:
        """Return how many tokens a choice may have, before the conversation, the period and the spend limit it."""
        tokens_max = self._house.answer_tokens_max
        tokens_max = min(tokens_max, request.model_tokens_max or tokens_max)
        return min(request.requested_tokens or tokens_max, tokens_max) if request.generates else 0

    async def compare_clocks(self) -> None:
        """Check whether this worker's clock and Redis' agree now; if so, trust this worker's clock from now on."""
        with translated():
            seconds, micros = map(int, await self._connection.execute("TIME"))
        self._vouches |= abs(seconds * 1000 + micros // 1000 - self._now_ms()) <= APART_MS

    async def customer_of(self, bucket: str, key_digest: str) -> str:
        """Return the remembered customer of a key; a key that is not remembered is looked up first.

        Raises:
            InvalidKey: the key is unknown.
        """
        with translated():
            holder = await self._cache.holder(bucket, key_digest)
            if holder is None:
                await self.in_force(bucket)
                holder = await self._cache.holder(bucket, key_digest)
        if holder is None or redis_keys.bucket_of(holder[0]) != bucket:
            raise InvalidKey
        return holder[0]

    async def confirm(self, bucket: str, key_digest: str) -> None:
        """Look up whether a key is valid now: for calls that end before the script has checked it.

        Raises:
            InvalidKey: the key is unknown, revoked or expired.
        """
        with translated():
            if await self._opens(bucket, key_digest):
                return
            await self.in_force(bucket)
            if await self._opens(bucket, key_digest):
                return
        self._cache.forget_key(key_digest)
        raise InvalidKey

    async def _opens(self, bucket: str, key_digest: str) -> bool:
        customer, expires = await self._connection.execute(
            "HMGET", redis_keys.api_key(bucket, key_digest), "customer", "expires"
        )
        return bool(customer) and (not expires or int(expires) > self._now_ms())

    async def bucket_of_key(self, digest: str) -> str:
        """Return the bucket of an API key that was made elsewhere, by its digest.

        Raises:
            InvalidKey: the key is unknown.
        """
        with translated():
            bucket = await self._cache.place(digest)
            if bucket is None:
                await self.in_force(digest[:2])
                bucket = await self._cache.place(digest)
        if bucket is None:
            raise InvalidKey
        return bucket

    async def in_force(self, bucket: str) -> bool:
        """Make sure that a bucket in which a value is missing is in force; return whether it already was.

        If it was not, the missing value may only have been wiped: look it up again.

        Raises:
            MeteringUnavailable: the bucket is being rebuilt from the ledger; the next call waits for the same rebuild.
        """
        since = self._generation.learnt
        if await generation_in(self._connection, bucket) == self._generation.value:
            return True
        await self._generation.learn(since, bucket)
        return False

    async def _bid(
        self, request: ReservationRequest, most_tokens: int, begun: tuple[str, str] | None, now: int, *, fresh: bool
    ) -> Bid:
        if fresh:
            await self._cache.read_timeline()
        holder = await self._cache.holder(request.bucket, request.key_digest)
        customer = await self._cache.customer(holder[0], fresh=fresh) if holder else None
        if holder is None or customer is None or redis_keys.bucket_of(customer.id) != request.bucket:
            raise InvalidKey
        condition = await self._conditions.of(customer, request.tier_chosen, begun, now)
        terms = condition.offer
        bound = charge_bound(
            terms.price_nanousd,
            terms.input_nanousd_per_mtok,
            terms.output_nanousd_per_mtok,
            tokens=most_tokens * request.choices,
            input_tokens=request.input_bound,
        )
        facts = self._facts(request, holder[1], condition)
        return Bid(request, customer, condition, facts, most_tokens, (bound.first, bound.again))

    def _facts(self, request: ReservationRequest, key_id: str, condition: Condition) -> Facts:
        fixed, end_user_window = condition.facts, None
        if condition.offer.end_user_period_tokens_max is not None:
            customer, start = fixed["customer"], fixed["period_start"]
            end_user_window = redis_keys.end_user(request.bucket, customer, start, request.end_user)
        values = {
            **fixed,
            "id": request.id,
            "bucket": request.bucket,
            "key_id": key_id,
            "conversation": request.conversation,
            "tier_chosen": request.tier_chosen,
            "endpoint": request.endpoint,
            "model": request.model,
            "stream": request.stream,
            "choices": request.choices,
            "requested_tokens": request.requested_tokens,
            "client_request_id": request.client_request_id,
            "currency": self._currency,
            "input_bound": request.input_bound,
            "input_estimate": request.input_estimate,
            "end_user": request.end_user,
            "end_user_window": end_user_window,
        }
        return Facts.of(values)

    async def _run_script(self, bid: Bid, now: int, *, is_known: bool) -> bytes | list[bytes]:
        """Run the script: by its digest if ``is_known``, else with its source, once the server's state was checked."""
        request, facts = bid.request, bid.facts
        names = [
            *keys_of_call(request.bucket, facts.customer, facts.period_start, request.conversation),
            redis_keys.api_key(request.bucket, request.key_digest),
            redis_keys.customer(request.bucket, facts.customer),
            *(() if facts.end_user_window is None else (facts.end_user_window,)),
        ]
        turns = "count_tat_us" if request.is_count else "tat_us"
        numbers = NUMBERS.pack(
            self._cache.timeline.rev,
            self._lease.deadline_ms,
            bid.most_tokens,
            request.choices,
            request.input_bound,
            *bid.money,
            BACKLOG_MOST,
            now,
            self._vouches,
            self._booked[PLACES[request.bucket]],
        )
        strings = f"{self._generation.value}\0{facts.customer}\0{bid.customer.rev}\0{request.id}\0{turns}\0"
        arguments = (
            numbers + strings.encode() + bid.condition.packed_arguments,
            f"{self._lease.owner}\0{names[WINDOW]}\0".encode() + facts.to_json(),
        )
        run_script = self._script.run_by_digest if is_known else self._script.run_with_source
        try:
            reply: bytes | list[bytes] = await run_script(self._connection, names, arguments)
        except NoScriptError:
            return [b"forgotten"]
        return reply


def doubtful(bid: Bid, now: int) -> Hold:
    """Return a hold that may exist, with the values that are known."""
    return Hold(bid.facts, now, bid.most_tokens, "cap", 0, None, None, now, False, bid.money[0])


def held(bid: Bid, reply: bytes) -> Hold:
    """Return the hold of a call that was admitted."""
    now, grant, allowed, conversation_left, period_left, first, charged = GRANTED.unpack(reply)
    if grant < allowed:
        bound_by = "period"
    elif grant == bid.request.requested_tokens:
        bound_by = "caller_limit"
    else:
        bound_by = "cap"
    return Hold(
        facts=bid.facts,
        admitted=now,
        grant=grant,
        bound_by=bound_by,
        conversation_left=conversation_left,
        period_left=None if period_left == NONE else period_left,
        period_tokens_max=bid.condition.offer.period_tokens_max,
        conversation_first=first,
        was_charged=charged == 1,
        money=bid.money[1] if charged else bid.money[0],
    )
