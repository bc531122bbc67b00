"""A hold told again to a Redis that has been rebuilt, by the worker that remembers it or by who read it before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.holds import keys
from gateway.holds.hold import Facts


@dataclass(frozen=True, slots=True)
class Announcement:
    """What the script ``announce`` is told. Times in ms, money in nano-units."""

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
            keys.state(bucket),
            keys.window(bucket, facts.customer, facts.period_start),
            keys.conversation(bucket, facts.customer, facts.conversation),
            keys.pace(bucket, facts.customer),
            keys.hold(bucket, facts.id),
            keys.holds(bucket),
            keys.mark(bucket, facts.id),
            *(() if facts.end_user_window is None else (facts.end_user_window,)),
        ]

    def arguments(self, generation: str, lease_ms: int, now: int) -> list[bytes | str | int]:
        """Return what the script is told at ``now`` by the clock of who tells it, ms."""
        facts = self.facts
        return [
            generation,
            facts.id,
            self.owner,
            lease_ms,
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
            facts.price_nanousd,
            facts.to_json(),
            now,
            "1" if self.owes_input else "",
        ]


def announcement(hold: Mapping[str, str]) -> Announcement:
    """Return the announcement of a live hold as it stands in Redis."""
    return Announcement(
        facts=Facts.from_json(hold["facts"]),
        owner=hold["owner"],
        deadline=int(hold["deadline"]),
        admitted=int(hold["admitted"]),
        grant=int(hold["grant"]),
        tokens=int(hold["tokens"]),
        money=int(hold["money"]),
        sofar=int(hold["sofar"]),
        first=int(hold["first"]),
        was_charged=hold["charged"] == "1",
        owes_input=hold.get("owes_input") == "1",
    )
