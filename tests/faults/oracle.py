"""Compares the ledger with what the upstream knows, under the documented policy; nothing here does I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.plans import Plan
from tests.faults.truth import Told

Record = dict[str, Any]

LOST_S = 1.5
"""A killed worker costs the house at most the tokens of this long, while Valkey is there to renew with."""

ANSWERED = frozenset({"complete", "tool_calls", "cap", "caller_limit", "context", "filtered", "period"})
ABOVE = 1_000
"""By so much does an upstream overstate its usage."""


@dataclass(frozen=True)
class Heard:
    """What a caller got of one call."""

    plan: Plan
    call: str
    tokens: int
    status: int
    was_whole: bool


@dataclass
class Findings:
    """What a soak found. ``breaches`` are sentences; none means that every promise held."""

    records: int = 0
    recovered: int = 0
    corrections: int = 0
    tokens: int = 0
    lost: int = 0
    """Answered calls without a record."""
    doubled: int = 0
    tokens_lost: int = 0
    """Tokens of killed workers' calls that were made after the last renewal."""
    breaches: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outages:
    """When Valkey was away: (from, to) in monotonic seconds."""

    spans: tuple[tuple[float, float], ...] = ()

    def since(self, end: float, up_s: float) -> float:
        """Return the latest moment from which on Valkey was there for ``up_s`` seconds before ``end``."""
        moment = end
        for start, stop in sorted(self.spans, reverse=True):
            if start >= moment:
                continue
            up = moment - min(stop, moment)
            if up >= up_s:
                break
            up_s, moment = up_s - up, start
        return moment - up_s


def compare(
    records: Iterable[Record], calls: Mapping[str, Told], heard: Mapping[str, Heard], outages: Outages
) -> Findings:
    """Return what is wrong between the ledger, the upstream's own count, and what callers got."""
    found, rows, billed = Findings(), {}, Counter[str]()
    for record in records:
        found.records += 1
        if record["id"] in rows:
            found.doubled += 1
            found.breaches.append(f"{record['id']} is in the ledger twice")
        rows[record["id"]] = record
        billed[record["corrects"] or record["id"]] += record["billed_output_tokens"]
        found.corrections += record["kind"] == "correction"
    found.tokens = sum(billed.values())
    for call, told in calls.items():
        if told.was_answered and call not in rows:
            found.lost += 1
            found.breaches.append(f"{call} was answered and has no record")
    for call, record in rows.items():
        if record["kind"] == "usage":
            sentence = _judge(record, billed[call], calls.get(call), heard.get(call), outages, found)
            if sentence:
                found.breaches.append(f"{call} ({record['finish']}, {record['usage_source']}): {sentence}")
    for call, one in heard.items():
        if one.was_whole and call not in rows:
            found.breaches.append(f"{call}: its caller has the whole answer, the ledger has nothing")
    return found


def _judge(
    record: Record, billed: int, told: Told | None, heard: Heard | None, outages: Outages, found: Findings
) -> str | None:
    """Return what is wrong with one call, or None."""
    granted = record["cap_tokens"] * record["choices"]
    if billed > granted:
        return f"billed {billed}, granted {granted}"
    was_recovered = record["finish"] == "recovered"
    if told is None:
        return None if was_recovered and billed == 0 else f"billed {billed}, never asked for"
    if was_recovered:
        found.recovered += 1
        made, most = min(told.tokens, granted), min(told.tokens + _overstated(told), granted)
        since = outages.since(told.ended_at, LOST_S)
        may_lose = sum(at > since for at in told.sent_at)
        found.tokens_lost += max(0, made - billed)
        return None if made - may_lose <= billed <= most else f"billed {billed} of {made}, may lose {may_lose}"
    if record["finish"] in ("disconnect", "shutdown"):
        # Without the upstream's figure a chunk counts as one token, however many it has.
        chunks = -(-heard.tokens // told.asked["metadata"]["per_chunk"]) if heard is not None else 0
        least = chunks if record["stream"] else 0
        return None if least <= billed <= told.tokens else f"billed {billed}, made {told.tokens}, sent {least}"
    expected = _expected(record, told, granted)
    return None if billed == expected else f"billed {billed}, expected {expected} of {told.tokens}"


def _expected(record: Record, told: Told, granted: int) -> int:
    """Return what a call is billed whose worker lived, its answer whole or broken off by the upstream."""
    if record["finish"] in ANSWERED:
        return min(told.tokens + _overstated(told), granted)
    return min(told.tokens, granted) if record["stream"] else 0


def _overstated(told: Told) -> int:
    return ABOVE if told.asked["metadata"]["usage"] == "above" else 0
