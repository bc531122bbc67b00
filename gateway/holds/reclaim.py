"""Takes back what dead workers held: bills the tokens of the last renewal, and frees the rest once nobody can use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import redis

from gateway.clock import APART_MS
from gateway.holds import keys
from gateway.holds.book import settle_keys, settlement
from gateway.holds.clocks import Clocks
from gateway.holds.connect import fields, translated
from gateway.holds.hold import Checkpoint, Facts, recovered, usage_record
from gateway.holds.offer import NOTHING, Charge
from gateway.holds.scripts import source

AT_ONCE = 100
"""Lapsed holds of one bucket that are looked at in a turn."""


@dataclass(frozen=True, slots=True)
class Lapsed:
    """A hold whose lease is over, as it was read."""

    facts: Facts
    is_suspect: bool
    owner: str
    deadline: int
    admitted: int
    grant: int
    sofar: str
    owes_input: bool

    @classmethod
    def read(cls, hold: Mapping[str, str]) -> Lapsed:
        return cls(
            facts=Facts.from_json(hold["facts"]),
            is_suspect=hold["state"] == "suspect",
            owner=hold["owner"],
            deadline=int(hold["deadline"]),
            admitted=int(hold["admitted"]),
            grant=int(hold["grant"]),
            sofar=hold["sofar"],
            owes_input=hold.get("owes_input") == "1",
        )


class Reclaimer:
    """Any number may run: each verb is idempotent, and one that finds a hold renewed since it looked leaves it alone.

    A hold is let lapse only by a reclaimer that has had Redis at hand for a whole lease, because while Redis was away,
    or read-only, or its clock was set, no worker could renew. A worker that is proven dead needs no such patience.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        lease_ms: int,
        generation: Callable[[], str],
        monotonic: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._redis = client
        self._lease_ms = lease_ms
        self._generation = generation
        self._monotonic = monotonic
        self._settle = client.register_script(source("settle"))
        self._beat = client.register_script(source("beat"))
        self._clocks = Clocks(client, now_ms)
        self._looks_ahead = True
        """Whether leases may end later than any that is given now: after a start, and once a clock was set."""
        self._server = ""
        self._at_hand_since = monotonic()

    def turn(self) -> int:
        """Look at every hold whose lease is over; return how many were billed or freed.

        Raises:
            MeteringUnavailable: Redis is not to be had.
        """
        with translated():
            return self._turn()

    def lose_touch(self) -> None:
        """Take note that Redis is not to be had just now, whoever found out: once it is back, every hold has a full lease."""
        self._at_hand_since = self._monotonic()

    def _turn(self) -> int:
        self._notice_restart()
        self._beat(keys=[keys.RECLAIMER], args=[self._lease_ms])  # fails where renewals do
        reading = self._clocks.read()
        if reading.jump_ms:
            self._looks_ahead = True
            self.lose_touch()
        now = reading.now
        if now is None:
            return 0
        if self._looks_ahead:
            self._shorten_leases(now)
        with self._redis.pipeline(transaction=False) as batch:
            for bucket in keys.ALL_BUCKETS:
                batch.zrangebyscore(keys.holds(bucket), "-inf", now, start=0, num=AT_ONCE, withscores=True)
            found = batch.execute()
        lapsed = [
            (bucket, name.decode(), int(until))
            for bucket, names in zip(keys.ALL_BUCKETS, found, strict=True)
            for name, until in names
        ]
        return sum(self._look_at(bucket, hold_id, until, now) for bucket, hold_id, until in lapsed)

    def _shorten_leases(self, now: int) -> None:
        """Let no lease end later than one that is given now: it was given by another clock, and its worker may be dead."""
        latest = now + self._lease_ms
        with self._redis.pipeline(transaction=False) as batch:
            for bucket in keys.ALL_BUCKETS:
                batch.zrangebyscore(keys.holds(bucket), latest + APART_MS, "+inf")
            found = batch.execute()
            for bucket, names in zip(keys.ALL_BUCKETS, found, strict=True):
                if names:
                    batch.zadd(keys.holds(bucket), dict.fromkeys(names, latest), xx=True)
            batch.execute()
        self._looks_ahead = False

    def _notice_restart(self) -> None:
        server = str(self._redis.info("server").get("run_id", ""))
        if server != self._server:
            self._server, self._at_hand_since = server, self._monotonic()

    @property
    def _is_patient(self) -> bool:
        return (self._monotonic() - self._at_hand_since) * 1000 >= self._lease_ms

    def _look_at(self, bucket: str, hold_id: str, until: int, now: int) -> bool:
        hold = fields(self._redis.hgetall(keys.hold(bucket, hold_id)))
        if not hold:
            self._redis.zrem(keys.holds(bucket), hold_id)
            return False
        lapsed = Lapsed.read(hold)
        is_proven = bool(self._redis.exists(keys.gone(lapsed.owner)))
        if not is_proven and not self._is_patient:
            return False
        is_dead = is_proven or now >= lapsed.deadline
        beats = not is_dead and self._beats(lapsed.owner)
        if not lapsed.is_suspect:
            # A worker that lives renews what is its own. What it has not for a second lease is nobody's.
            return (not beats or until + self._lease_ms <= now) and self._bill(lapsed, now, closes=is_dead)
        if not beats:
            return self._free(lapsed, now)
        self._redis.zadd(keys.holds(bucket), {hold_id: now + self._lease_ms}, xx=True)
        return False

    def _beats(self, worker: str) -> bool:
        """Return whether a worker's heartbeat is there; one that another clock left lasts a lease from now at most."""
        left_ms = self._redis.pttl(keys.worker(worker))
        if left_ms > self._lease_ms:
            self._redis.pexpire(keys.worker(worker), self._lease_ms)
        return left_ms > 0

    def _bill(self, lapsed: Lapsed, now: int, *, closes: bool) -> bool:
        facts = lapsed.facts
        came_to = recovered(facts, Checkpoint(int(lapsed.sofar), lapsed.owes_input))
        record = usage_record(facts, admitted=lapsed.admitted, grant=lapsed.grant, outcome=came_to)
        due = facts.charge(came_to)
        line = json.dumps(record, separators=(",", ":"))
        return self._post(lapsed, now, "live", closes, came_to.billed_output_tokens, came_to.input_tokens, due, line)

    def _free(self, lapsed: Lapsed, now: int) -> bool:
        return self._post(lapsed, now, "suspect", True, 0, 0, NOTHING, "")

    def _post(
        self,
        lapsed: Lapsed,
        now: int,
        expects: str,
        closes: bool,
        tokens: int,
        input_tokens: int,
        due: Charge,
        record: str,
    ) -> bool:
        facts = lapsed.facts
        told = settlement(
            facts,
            generation=self._generation(),
            expects=expects,
            lease_ms=self._lease_ms,
            now=now,
            tokens=tokens,
            input_tokens=input_tokens,
            due=due,
            closes=closes,
            lapsed_with=lapsed.sofar,
        )
        reply = self._settle(keys=settle_keys(facts), args=[told, record, "", ""])
        return bool(reply[0] == b"done")
