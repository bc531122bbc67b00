"""Compares the ledger with the upstream's own count, under the documented policy; nothing here does I/O."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.calls import AS_ASKED
from tests.faults.plans import Plan
from tests.faults.truth import UpstreamCall

Record = dict[str, Any]

LOST_S = 1.5
"""A killed worker costs the house at most the tokens of this time, while Valkey is available for renewals."""

SETTLED_S = 10.0
"""Within this time a caller has the answer whose settlement waits for Valkey, even on a busy machine."""

ANSWERED = frozenset({"complete", "tool_calls", "cap", "caller_limit", "context", "filtered", "period"})
SAID_IN_WHOLE = frozenset({"honest", "twice", "above", "wrong total"})
"""Usages that are believed in a whole answer."""

ABOVE = 1_000
"""By how many tokens an upstream overstates its usage."""


@dataclass(frozen=True)
class Heard:
    """What a caller received in one call."""

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
    """Tokens of killed workers' calls that were not billed."""
    breaches: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outages:
    """When Valkey was unavailable: (from, to) in monotonic seconds."""

    spans: tuple[tuple[float, float], ...] = ()

    def any(self, start: float, end: float) -> bool:
        """Return whether Valkey was unavailable at any time in between."""
        return any(away < end and start < back for away, back in self.spans)

    def since(self, end: float, up_s: float) -> float:
        """Return the latest moment from which Valkey was available for ``up_s`` seconds in all before ``end``."""
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
    records: Iterable[Record],
    calls: Mapping[str, UpstreamCall],
    received: Mapping[str, Heard],
    outages: Outages,
    way: str,
) -> Findings:
    """Return the disagreements between the ledger, the upstream's own count, and what callers received."""
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
    for call, truth in calls.items():
        if truth.was_answered and call not in rows:
            found.lost += 1
            found.breaches.append(f"{call} was answered and has no record")
    for call, record in rows.items():
        if record["kind"] == "usage":
            is_whole = way == AS_ASKED and not record["stream"]
            judge = _judge_whole if is_whole else _judge
            sentence = judge(record, billed[call], calls.get(call), received.get(call), outages, found)
            if sentence:
                found.breaches.append(f"{call} ({record['finish']}, {record['usage_source']}): {sentence}")
    for call, one in received.items():
        if one.was_whole and call not in rows:
            found.breaches.append(f"{call}: its caller has the whole answer, the ledger has nothing")
    return found


def _judge(
    record: Record, billed: int, truth: UpstreamCall | None, received: Heard | None, outages: Outages, found: Findings
) -> str | None:
    """Return what is wrong with one call, or None."""
    granted = record["cap_tokens"] * record["choices"]
    if billed > granted:
        return f"billed {billed}, granted {granted}"
    was_recovered = record["finish"] == "recovered"
    if truth is None:
        return None if was_recovered and billed == 0 else f"billed {billed}, never asked for"
    if was_recovered:
        found.recovered += 1
        has_left = received is not None and received.plan.leaves_after is not None
        generated = min(truth.tokens, granted)
        # Without the upstream's figure a call whose caller left owes up to its grant.
        most = granted if has_left else min(truth.tokens + _overstated(truth), granted)
        since = outages.since(truth.ended_at, LOST_S)
        may_lose = sum(at > since for at in truth.sent_at)
        found.tokens_lost += max(0, generated - billed)
        return (
            None if generated - may_lose <= billed <= most else f"billed {billed} of {generated}, may lose {may_lose}"
        )
    if record["finish"] in ("disconnect", "shutdown"):
        # Without the upstream's figure a chunk counts as one token, however many it has.
        chunks = -(-received.tokens // truth.request["metadata"]["per_chunk"]) if received is not None else 0
        least = chunks if record["stream"] else 0
        return None if least <= billed <= truth.tokens else f"billed {billed}, made {truth.tokens}, sent {least}"
    expected = _expected(record, truth, granted)
    return None if billed == expected else f"billed {billed}, expected {expected} of {truth.tokens}"


def _judge_whole(
    record: Record, billed: int, truth: UpstreamCall | None, received: Heard | None, outages: Outages, found: Findings
) -> str | None:
    """Return what is wrong with a call whose answer was requested whole, or None.

    Nothing of the answer is known before all of it has arrived, so a killed worker costs the house the whole answer. A
    worker that waited for Valkey to settle the call may have renewed the hold with the tokens of the answer.
    """
    granted = record["cap_tokens"] * record["choices"]
    if billed > granted:
        return f"billed {billed}, granted {granted}"
    if record["finish"] == "recovered":
        found.recovered += 1
        found.tokens_lost += 0 if truth is None else min(truth.tokens, granted) - billed
        if billed and (truth is None or not truth.was_answered or billed != min(_generated_whole(truth), granted)):
            return f"billed {billed}, of which nothing can be known"
        had = received is not None and received.was_whole
        was_away = truth is not None and outages.any(truth.ended_at, truth.ended_at + SETTLED_S)
        return "its caller has all of it, and Valkey was there to settle it" if had and not was_away else None
    if truth is None:
        return f"billed {billed}, never asked for"
    if record["finish"] not in ANSWERED:
        return f"billed {billed} for nothing" if billed else None
    expected = min(_generated_whole(truth), granted)
    return None if billed == expected else f"billed {billed}, expected {expected} of {truth.tokens}"


def _generated_whole(truth: UpstreamCall) -> int:
    """Return the tokens counted for a whole answer that has arrived."""
    if not truth.request["metadata"]["whole"] and truth.request["metadata"]["usage"] not in SAID_IN_WHOLE:
        return _guessed(truth.answer)
    return truth.tokens + _overstated(truth)


def _guessed(answer: bytes) -> int:
    """Return the estimate for a whole answer without a usage: one token for four characters of its text."""
    texts = "".join(choice["message"]["content"] for choice in json.loads(answer)["choices"])
    return -(-len(texts) // 4)


def _expected(record: Record, truth: UpstreamCall, granted: int) -> int:
    """Return the bill of a call whose worker survived and whose answer is whole or was broken off by the upstream."""
    if record["finish"] in ANSWERED:
        return min(truth.tokens + _overstated(truth), granted)
    return min(truth.tokens, granted) if record["stream"] else 0


def _overstated(truth: UpstreamCall) -> int:
    return ABOVE if truth.request["metadata"]["usage"] == "above" else 0
