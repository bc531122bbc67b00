"""Turns usage that Redis counts beyond an older ledger into records that replace the missing records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import redis

from gateway.holds.maintenance.redis_upkeep import window_in
from gateway.holds.periods import period_at
from gateway.holds.store.clients import text
from gateway.holds.store.packing import window_state
from gateway.holds.store.projection import Projection
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Spent, spent_in
from pricing.usage import UsageRecord

COUNTS = ("choices", "input_tokens", "cached_tokens", "reasoning_tokens")
UNKNOWN = (
    *("corrects", "key_id", "conversation", "tier", "tier_chosen", "menu_version", "endpoint", "model", "cap_tokens"),
    *("requested_tokens", "finish", "usage_source", "ttft_ms", "duration_ms", "client_request_id"),
)


def corrections(
    database: Database, client: redis.Redis, *, head: int, now_ms: int, currency: str
) -> Iterator[UsageRecord]:
    """Yield a correction for each window that counts more than the ledger, which ends at ``head``.

    Nothing may be settled meanwhile, and no record may wait in a stream. The calls behind the corrections are unknown.
    """
    projection = Projection(client)
    for name in client.scan_iter(match="{b??}:window:*", count=1000):
        window = window_in(text(name))
        if window is None:
            continue
        for customer in projection.customers([window[0]]):
            period = period_at(customer.period, customer.timezone, window[1])
            if period[0] != window[1]:
                continue  # the window began in another zone or kind of period: the present period counts its records
            counted = window_state(client, name)
            booked = spent_in(database, {customer.id: period})[customer.id]
            tokens = max(counted.used - booked.tokens, 0)
            charge = max(counted.spend_used - booked.charge_nanousd, 0)
            if tokens or charge:
                yield _correction(customer.id, period, Spent(tokens, charge), head, now_ms, currency)


def _correction(
    customer: str, period: tuple[int, int], missing: Spent, head: int, now_ms: int, currency: str
) -> UsageRecord:
    start, end = period
    digest = hashlib.sha256(f"{customer}:{start}:{head}".encode()).hexdigest()
    return {
        **dict.fromkeys(COUNTS, 0),
        **dict.fromkeys(UNKNOWN),
        "id": f"missing_{digest[:40]}",
        "kind": "correction",
        "time": min(max(now_ms, start), end - 1),
        "settled": now_ms,
        "customer": customer,
        "stream": False,
        "output_tokens": missing.tokens,
        "billed_output_tokens": missing.tokens,
        "charge_nanousd": missing.charge_nanousd,
        "currency": currency,
    }
