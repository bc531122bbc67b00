"""Settles, renews and announces holds: each verb is a script, idempotent by hold id."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from struct import Struct
from typing import Any

import orjson

from gateway.errors import MeteringUnavailable
from gateway.holds.admission import Lease, keys_of_call
from gateway.holds.announcement import Announcement
from gateway.holds.hold import (
    UNANSWERED,
    Checkpoint,
    Facts,
    Hold,
    Once,
    Outcome,
    Settled,
    correction,
    recovered,
    usage_record,
)
from gateway.holds.offer import NOTHING, Charge
from gateway.holds.store import packing, redis_keys
from gateway.holds.store.clients import text, texts, translated
from gateway.holds.store.connection import RedisConnection
from gateway.holds.store.generation import Generation
from gateway.holds.store.scripts import Script
from gateway.holds.terms import Customer, period_of
from pricing.usage import UsageRecord

TRIES = 8

ANSWERS_BYTES_MAX = 32 * 2**20
"""The bytes that the kept answers of one customer may take by default."""

FIXED_KEYS = 8
"""The number of Redis keys that every settlement has."""

NEITHER = [0, 0, FIXED_KEYS + 1]

NUMBERS = Struct("<8d")
PLACES = Struct("<4d")


def settle_keys(facts: Facts, threads: Sequence[str] = (), once: Once | None = None) -> list[str]:
    """Return every Redis key that settling a hold touches, all of one bucket."""
    bucket, customer = facts.bucket, facts.customer
    return [
        *keys_of_call(bucket, customer, facts.period_start, facts.conversation),
        redis_keys.notices(bucket),
        *(() if facts.end_user_window is None else (facts.end_user_window,)),
        *(
            []
            if once is None
            else [redis_keys.once(bucket, customer, once.digest), redis_keys.answers(bucket, customer)]
        ),
        *[redis_keys.thread(bucket, customer, thread) for thread in threads],
    ]


def settle_places(facts: Facts, once: Once | None = None) -> list[int]:
    """Return the places of the end user's, the Idempotency-Key's and the threads' keys among a settlement's keys.

    A key that is absent has place 0.
    """
    if facts.end_user_window is None and once is None:
        return NEITHER
    end_user, claim = int(facts.end_user_window is not None), int(once is not None)
    after = FIXED_KEYS + end_user
    return [end_user * after, claim * (after + 1), after + 2 * claim + 1]


def settlement(
    facts: Facts,
    *,
    generation: str,
    expects: str,
    now: int,
    tokens: int,
    input_tokens: int,
    due: Charge,
    threads: Sequence[str] = (),
    once: Once | None = None,
    answers_bytes_max: int = 0,
    closes: bool = True,
    lapsed_with: str | None = None,
) -> tuple[bytes, bytes]:
    """Return two arguments of the script ``settle``: the packed facts of the settlement, and the thresholds of notices.

    With ``lapsed_with``, the hold is settled only if it has lapsed and its progress is still ``lapsed_with``.
    ``now`` is the sender's time, ms; the customer's kept answers may take ``answers_bytes_max`` bytes.
    """
    numbers = (closes, lapsed_with is not None, now, tokens, input_tokens, due.first, due.again)
    packed = NUMBERS.pack(*numbers, facts.included_conversations) + f"{generation}\0{facts.id}\0{expects}\0".encode()
    if threads or once is not None or lapsed_with is not None or facts.end_user_window is not None:
        packed += PLACES.pack(answers_bytes_max, *settle_places(facts, once))
        packed += f"{lapsed_with or ''}\0{facts.conversation}".encode()
    return packed, facts.thresholds()


class Settlements:
    """Settles, renews and announces holds.

    Raises:
        MeteringUnavailable: Redis is unavailable, from every method.
    """

    def __init__(
        self,
        connection: RedisConnection,
        generation: Generation,
        lease: Lease,
        *,
        now_ms: Callable[[], int],
        answers_bytes_max: int = ANSWERS_BYTES_MAX,
    ) -> None:
        self._connection = connection
        self._generation = generation
        self._lease = lease
        self._now_ms = now_ms
        self._answers_bytes_max = answers_bytes_max
        self._settle = Script("settle")
        self._renew = Script("renew")
        self._announce = Script("announce")
        self._withdraw = Script("withdraw")
        self._beat = Script("beat")

    async def settle(self, hold: Hold, outcome: Outcome, once: Once | None = None) -> Settled:
        """Settle a call, once; a second settlement changes nothing and returns the same result."""
        facts, billed = hold.facts, None
        with translated():
            for _ in range(TRIES):
                since = self._generation.learnt
                reply = await self._settle.run(self._connection, *self._settlement(hold, outcome, once, billed))
                if type(reply) is bytes:
                    return _settled(reply)
                match text(reply[0]):
                    case "rebuild":
                        await self._generation.learn(since, facts.bucket)
                    case "unknown":
                        await self.announce(hold, Checkpoint(outcome.billed_output_tokens, outcome.owes_input))
                    case "suspect":
                        billed = Checkpoint(int(reply[1]), reply[2] == b"1")
            raise MeteringUnavailable(f"Hold {facts.id} cannot be settled.")

    async def withdraw(self, hold: Hold) -> None:
        """Make sure that nothing is held for a reservation whose reply was lost, whether or not it was made."""
        names = [redis_keys.inflight(hold.facts.bucket), redis_keys.settled(hold.facts.bucket)]
        with translated():
            reply = text(await self._withdraw.run(self._connection, names, [hold.id, self._now_ms()]))
        if reply == "known":
            await self.settle(hold, UNANSWERED)

    def post(self, hold: Hold, outcome: Outcome, once: Once | None = None) -> Awaitable[Any]:
        """Send one settlement without waiting; ``read`` reads the reply."""
        return self._settle.run_by_digest(self._connection, *self._settlement(hold, outcome, once))

    @staticmethod
    def read(posted: asyncio.Future[Any]) -> Settled | None:
        """Return the settlement that Redis made, or None where a single request was not enough."""
        if posted.cancelled() or posted.exception() is not None:
            return None
        reply = posted.result()
        return _settled(reply) if isinstance(reply, bytes) else None

    def _settlement(
        self, hold: Hold, outcome: Outcome, once: Once | None, billed: Checkpoint | None = None
    ) -> tuple[list[str], Sequence[bytes]]:
        """Return keys and arguments to settle a live hold, or a hold that was ``billed`` at its checkpoint."""
        facts = hold.facts
        if billed is None:
            record = usage_record(facts, admitted=hold.admitted, grant=hold.grant, outcome=outcome)
            tokens, input_tokens = outcome.billed_output_tokens, outcome.input_tokens
            due = facts.charge(outcome)
        else:
            record = correction(facts, admitted=hold.admitted, grant=hold.grant, outcome=outcome, billed=billed)
            tokens, input_tokens = record["billed_output_tokens"], record["input_tokens"]
            due = _beyond(facts, outcome, billed)
        arguments, thresholds = settlement(
            facts,
            generation=self._generation.value,
            expects="live" if billed is None else "suspect",
            now=self._now_ms(),
            tokens=tokens,
            input_tokens=input_tokens,
            due=due,
            threads=outcome.threads,
            once=once,
            answers_bytes_max=self._answers_bytes_max,
        )
        if outcome.threads:
            record["threads"] = outcome.threads
        record_json = _connection(record) if outcome.was_answered and (billed is None or tokens or due.again) else b""
        answers = () if once is None else (once.answer_first, once.answer_again)
        return settle_keys(facts, outcome.threads, once), (arguments, record_json, thresholds, *answers)

    async def renew(self, bucket: str, sofar: Mapping[str, Checkpoint]) -> dict[str, str]:
        """Renew holds of one bucket with their use so far; return the state of each: live, suspect, unknown."""
        names = [redis_keys.state(bucket), redis_keys.inflight(bucket)]
        arguments: list[str | int] = [self._generation.value, self._now_ms()]
        for hold_id, checkpoint in sofar.items():
            arguments += [hold_id, checkpoint.tokens, "1" if checkpoint.owes_input else ""]
        since = self._generation.learnt
        with translated():
            verdicts = texts(await self._renew.run(self._connection, names, arguments))
        if verdicts == ["rebuild"]:
            await self._generation.learn(since, bucket)
            return dict.fromkeys(sofar, "unknown")
        return dict(zip(sofar, verdicts, strict=True))

    async def announce(self, hold: Hold, sofar: Checkpoint) -> bool:
        """Write again a hold that a rebuild could not know; return False if the hold is settled, else True."""
        facts = await self._facts_now(hold)
        announcement = Announcement(
            facts=facts,
            owner=self._lease.owner,
            deadline=hold.admitted + self._lease.deadline_ms,
            admitted=hold.admitted,
            grant=hold.grant,
            tokens=hold.tokens,
            money=hold.money,
            sofar=sofar.tokens,
            first=hold.conversation_first,
            was_charged=hold.was_charged,
            owes_input=sofar.owes_input,
        )
        with translated():
            arguments = announcement.arguments(self._generation.value, self._now_ms())
            return text(await self._announce.run(self._connection, announcement.keys(), arguments)) != "settled"

    async def _facts_now(self, hold: Hold) -> Facts:
        """Return the facts of a call with the period in which it counts by its customer's present terms."""
        facts = hold.facts
        with translated():
            body = await self._connection.execute("HGET", redis_keys.customer(facts.bucket, facts.customer), "body")
        if body is None:
            return facts
        start, end = period_of(Customer.from_json(body), hold.admitted)
        window = facts.end_user_window
        if window is not None:
            window = redis_keys.end_user(facts.bucket, facts.customer, start, facts.end_user)
        return replace(facts, period_start=start, period_end=end, end_user_window=window)

    async def beat(self) -> None:
        """Record that this worker is alive, for one lease."""
        with translated():
            await self._beat.run(self._connection, [redis_keys.worker(self._lease.owner)], [self._lease.lease_ms])

    async def forget(self, settled: Iterable[tuple[str, str]]) -> None:
        """Remove the marks of holds, by bucket and id, whose settlement is so old that no command can still arrive."""
        by_bucket: dict[str, list[str]] = defaultdict(list)
        for bucket, hold_id in settled:
            by_bucket[bucket].append(hold_id)
        with translated():
            await asyncio.gather(
                *(
                    self._connection.execute("HDEL", redis_keys.settled(bucket), *ids)
                    for bucket, ids in by_bucket.items()
                )
            )


def _settled(reply: bytes) -> Settled:
    charge, left, _ = packing.DONE.unpack(reply)
    return Settled(charge, None if left == packing.NONE else left)


def _connection(record: UsageRecord) -> bytes:
    return orjson.dumps(record)


def _beyond(facts: Facts, outcome: Outcome, billed: Checkpoint) -> Charge:
    """Return the charge beyond the amount that the hold was billed at its checkpoint."""
    if outcome.billed_output_tokens == billed.tokens == 0 and not (outcome.owes_input or billed.owes_input):
        return NOTHING
    before = recovered(facts, billed)
    total, billed_charge = facts.charge(outcome), facts.charge(before)
    extra = total.again - billed_charge.again
    return Charge(extra if billed.tokens else extra + facts.price_nanousd, extra)
