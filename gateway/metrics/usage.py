"""What usage records come to in metrics: counted where they are booked, so that the two cannot differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from gateway.metrics.counters import Tally
from gateway.metrics.definitions import CAP_HITS, CHARGED, EXCESS, FIRST_TOKEN, REQUESTS, TOKENS
from pricing.usage import UsageRecord

UNANSWERED = "unanswered"
"""The outcome of an admitted call that the upstream did not answer; it has no record."""


def count_records(tally: Tally, records: Iterable[UsageRecord]) -> None:
    """Count records that have just been appended to the ledger; a correction downwards counts nothing."""
    tokens: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    calls: defaultdict[tuple[str, str], int] = defaultdict(int)
    charged = excess = 0
    for record in records:
        tier = record["tier"] or ""
        charged += max(record["charge_nanousd"], 0)
        tokens[tier, "input", record.get("input_source") or ""] += max(record["input_tokens"], 0)
        tokens[tier, "output", record["usage_source"] or ""] += max(record["billed_output_tokens"], 0)
        if record["kind"] == "usage":
            calls[tier, record["finish"] or ""] += 1
            if record["cap_tokens"] is not None:
                excess += max(record["output_tokens"] - record["cap_tokens"] * record["choices"], 0)
            if record["ttft_ms"] is not None:
                tally.observe(FIRST_TOKEN, record["ttft_ms"])
    tally.add(CHARGED, amount=charged)
    tally.add(EXCESS, amount=excess)
    for labels, amount in tokens.items():
        tally.add(TOKENS, *labels, amount=amount)
    for (tier, finish), amount in calls.items():
        tally.add(REQUESTS, tier, finish, amount=amount)
        if finish == "cap":
            tally.add(CAP_HITS, tier, amount=amount)
