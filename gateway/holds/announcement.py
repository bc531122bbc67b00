"""A hold announced to a rebuilt Redis, by the worker that remembers the hold or the process that read it earlier."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.holds.hold import Facts
from gateway.holds.store import redis_keys
from gateway.holds.store.inflight import InFlight


@dataclass(frozen=True, slots=True)
class Announcement:
    """The input of the script ``announce``. Times in ms, money in nano-units."""

    facts: Facts
    owner: str
    deadline: int
    admitted: int
    grant: int
    tokens: int
    money: int
    sofar: int
    first: int
    was_charged: bool
    owes_input: bool

    def keys(self) -> list[str]:
        facts, bucket = self.facts, self.facts.bucket
        return [
            redis_keys.state(bucket),
            redis_keys.window(bucket, facts.customer, facts.period_start),
            redis_keys.conversation(bucket, facts.customer, facts.conversation),
            redis_keys.pace(bucket, facts.customer),
            redis_keys.inflight(bucket),
            redis_keys.settled(bucket),
            *(() if facts.end_user_window is None else (facts.end_user_window,)),
        ]

    def arguments(self, generation: str, now: int) -> list[bytes | str | int]:
        """Return the script's arguments; ``now`` is the sender's time, ms."""
        facts = self.facts
        return [
            generation,
            facts.id,
            self.owner,
            self.deadline,
            self.admitted,
            self.grant,
            self.tokens,
            self.money,
            facts.input_bound,
            self.sofar,
            self.first,
            "1" if self.was_charged else "0",
            facts.tier or "",
            facts.menu_version or "",
            facts.conversation_tokens_max,
            facts.to_json(),
            now,
            "1" if self.owes_input else "0",
        ]


def announcement(call: InFlight) -> Announcement:
    """Return the announcement of a live hold that was read from Redis."""
    return Announcement(
        facts=call.facts,
        owner=call.owner,
        deadline=call.deadline,
        admitted=call.admitted,
        grant=call.grant,
        tokens=call.tokens,
        money=call.money,
        sofar=call.sofar,
        first=call.first,
        was_charged=call.was_charged,
        owes_input=call.owes_input,
    )
