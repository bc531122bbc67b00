"""What usage records come to in metrics: counted where they are booked, so that the two cannot differ."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.observing.metrics import CAP_HITS, CHARGED, EXCESS, FIRST_TOKEN, REQUESTS, TOKENS
from gateway.observing.tally import Tally
from pricing.usage import UsageRecord

UNANSWERED = "unanswered"
"""The outcome of an admitted call that the upstream did not answer; it has no record."""


def count_records(tally: Tally, records: Iterable[UsageRecord]) -> None:
    """Count records that have just been appended to the ledger."""
    for record in records:
        tier, source = record["tier"] or "", record["usage_source"] or ""
        tally.add(CHARGED, amount=record["charge_nanousd"])
        tally.add(TOKENS, tier, "input", record.get("input_source") or "", amount=record["input_tokens"])
        tally.add(TOKENS, tier, "output", source, amount=record["billed_output_tokens"])
        if record["kind"] == "usage":
            _count_call(tally, tier, record)


def _count_call(tally: Tally, tier: str, record: UsageRecord) -> None:
    tally.add(REQUESTS, tier, record["finish"] or "")
    if record["finish"] == "cap":
        tally.add(CAP_HITS, tier)
    if record["cap_tokens"] is not None:
        tally.add(EXCESS, amount=record["output_tokens"] - record["cap_tokens"] * record["choices"])
    if record["ttft_ms"] is not None:
        tally.observe(FIRST_TOKEN, record["ttft_ms"])
