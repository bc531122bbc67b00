"""Reclaims the holds of dead workers: bills tokens up to the last renewal, frees the rest once no call can use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import redis

from gateway.clock import APART_MS
from gateway.holds.hold import Checkpoint, recovered, usage_record
from gateway.holds.maintenance.redis_clock import RedisClock
from gateway.holds.offer import NOTHING, Charge
from gateway.holds.settlement import settle_keys, settlement
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import text, translated
from gateway.holds.store.inflight import BucketState, InFlight, Survey, calls_in_flight
from gateway.holds.store.scripts import source


class Reclaimer:
    """Any number of reclaimers may run: each verb is idempotent and leaves unchanged a hold that was renewed meanwhile.

    A reclaimer lets a hold lapse only after the reclaimer has reached Redis for a whole lease: while Redis was
    unavailable or read-only, or its clock was set, no worker could renew. The holds of a worker proven dead need not
    wait.

    Args:
        survey: returns the state of each bucket, read a moment ago; with None the reclaimer reads the states itself.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        lease_ms: int,
        generation: Callable[[], str],
        monotonic: Callable[[], float],
        now_ms: Callable[[], int],
        survey: Callable[[], Mapping[str, BucketState]] | None = None,
    ) -> None:
        self._redis = client
        self._lease_ms = lease_ms
        self._generation = generation
        self._monotonic = monotonic
        self._settle = client.register_script(source("settle"))
        self._beat = client.register_script(source("beat"))
        self._redate = client.register_script(source("redate"))
        self._adopt = client.register_script(source("adopt"))
        self._survey = survey or Survey(client).take
        self._clocks = RedisClock(client, now_ms)
        self._looks_ahead = True
        """Whether leases may end later than a lease that begins now: after a start, and after a clock was set."""
        self._server = ""
        self._at_hand_since = monotonic()

    def turn(self) -> int:
        """Examine every hold whose lease is over; return how many were billed or freed.

        Raises:
            MeteringUnavailable: Redis is unavailable.
        """
        with translated():
            return self._turn()

    def lose_touch(self) -> None:
        """Note that Redis is unavailable now: once it is back, every hold has a full lease."""
        self._at_hand_since = self._monotonic()

    def _turn(self) -> int:
        self._notice_restart()
        self._beat(keys=[redis_keys.RECLAIMER], args=[self._lease_ms])  # fails where renewals fail
        reading = self._clocks.read()
        if reading.jump_ms:
            self._looks_ahead = True
            self.lose_touch()
        now = reading.now
        if now is None:
            return 0
        states = self._survey()
        older = [bucket for bucket, content in states.items() if content.has_older_holds]
        if older:
            self._adopt_older(now, older)
        calls = calls_in_flight(self._redis, [name for name in states if states[name].has_calls or name in older])
        if self._looks_ahead:
            self._shorten_leases(calls, now)
        return sum(
            self._examine(bucket, call, now)
            for bucket, content in calls.items()
            for call in content
            if call.renewed + self._lease_ms <= now
        )

    def _shorten_leases(self, calls: Mapping[str, Sequence[InFlight]], now: int) -> None:
        """Shorten leases that end later than a lease that begins now: another clock dated them; workers may be dead."""
        for bucket, bucket_calls in calls.items():
            dated_ahead = [
                part for call in bucket_calls if call.renewed > now + APART_MS for part in (call.id, call.progress)
            ]
            if dated_ahead:
                self._redate(keys=[redis_keys.inflight(bucket)], args=[now, *dated_ahead])
        self._looks_ahead = False

    def _adopt_older(self, now: int, buckets: Sequence[str]) -> None:
        """Rewrite the holds that workers of the previous version have left behind."""
        with self._redis.pipeline(transaction=False) as batch:
            for bucket in buckets:
                batch.zrangebyscore(redis_keys.older_holds(bucket), "-inf", now)
            replies = batch.execute()
        for bucket, ids in zip(buckets, replies, strict=True):
            for hold_id in map(text, ids):
                hold = redis_keys.older_hold(bucket, hold_id)
                owner = text(self._redis.hget(hold, "owner") or b"")
                is_proven = bool(self._redis.exists(redis_keys.ended_worker(owner)))
                if is_proven or (self._is_patient and not self._beats(owner)):
                    names = [redis_keys.older_holds(bucket), hold, redis_keys.inflight(bucket)]
                    self._adopt(keys=names, args=[hold_id])

    def _notice_restart(self) -> None:
        server = str(self._redis.info("server").get("run_id", ""))
        if server != self._server:
            self._server, self._at_hand_since = server, self._monotonic()

    @property
    def _is_patient(self) -> bool:
        return (self._monotonic() - self._at_hand_since) * 1000 >= self._lease_ms

    def _examine(self, bucket: str, call: InFlight, now: int) -> bool:
        is_proven = bool(self._redis.exists(redis_keys.ended_worker(call.owner)))
        if not is_proven and not self._is_patient:
            return False
        is_dead = is_proven or now >= call.deadline
        beats = not is_dead and self._beats(call.owner)
        if call.is_suspect:
            return not beats and self._free(call, now)
        # A living worker renews its holds: a hold that was not renewed for a second lease belongs to no worker.
        is_nobodys = not beats or call.renewed + 2 * self._lease_ms <= now
        return is_nobodys and self._bill(call, now, closes=is_dead)

    def _beats(self, worker: str) -> bool:
        """Return whether a worker has a heartbeat; a heartbeat that another clock dated is shortened to a lease."""
        left_ms = self._redis.pttl(redis_keys.worker(worker))
        if left_ms > self._lease_ms:
            self._redis.pexpire(redis_keys.worker(worker), self._lease_ms)
        return left_ms > 0

    def _bill(self, call: InFlight, now: int, *, closes: bool) -> bool:
        facts = call.facts
        outcome = recovered(facts, Checkpoint(call.sofar, call.owes_input))
        record = usage_record(facts, admitted=call.admitted, grant=call.grant, outcome=outcome)
        due = facts.charge(outcome)
        line = json.dumps(record, separators=(",", ":"))
        return self._post(call, now, "live", closes, outcome.billed_output_tokens, outcome.input_tokens, due, line)

    def _free(self, call: InFlight, now: int) -> bool:
        return self._post(call, now, "suspect", True, 0, 0, NOTHING, "")

    def _post(
        self,
        call: InFlight,
        now: int,
        expects: str,
        closes: bool,
        tokens: int,
        input_tokens: int,
        due: Charge,
        record: str,
    ) -> bool:
        facts = call.facts
        arguments, thresholds = settlement(
            facts,
            generation=self._generation(),
            expects=expects,
            now=now,
            tokens=tokens,
            input_tokens=input_tokens,
            due=due,
            closes=closes,
            lapsed_with=call.progress,
        )
        reply = self._settle(keys=settle_keys(facts), args=[arguments, record, thresholds, "", ""])
        return isinstance(reply, bytes)
