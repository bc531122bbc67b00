"""Usage records for tests: one that is whole, and variations of it."""

from __future__ import annotations

import json
from typing import Any

import redis

from gateway.holds.store import redis_keys
from gateway.ledger.tables import customers
from pricing.usage import UsageRecord

NOON = 1_767_268_800_000  # 2026-01-01T12:00:00Z

ZONES = (
    *("Pacific/Kiritimati", "Pacific/Apia", "Pacific/Auckland", "Pacific/Chatham", "Australia/Lord_Howe", "Asia/Tokyo"),
    *(
        "Australia/Sydney",
        "Asia/Shanghai",
        "Asia/Kathmandu",
        "Asia/Kolkata",
        "Asia/Tehran",
        "Asia/Dubai",
        "Asia/Beirut",
    ),
    *("Europe/Moscow", "Africa/Cairo", "Europe/Athens", "Europe/Berlin", "Europe/London", "Africa/Casablanca", "UTC"),
    *("Atlantic/Azores", "America/Noronha", "America/Sao_Paulo", "America/St_Johns", "America/Halifax"),
    *("America/New_York", "America/Mexico_City", "America/Denver", "America/Los_Angeles", "Pacific/Pago_Pago"),
)
"""Thirty time zones: both sides of the date line, half and quarter hours, with and without daylight-saving time."""


def settled_call(number: int = 1, **changes: Any) -> UsageRecord:
    """Return what a settlement writes about its call: everything but charge, settling time and place in the chain."""
    record: UsageRecord = {
        "id": f"call-{number:06d}",
        "kind": "usage",
        "corrects": None,
        "time": NOON + number,
        "customer": "cus_acme",
        "key_id": "key_1",
        "conversation": "c1",
        "tier": "t2",
        "tier_chosen": None,
        "menu_version": "m1",
        "endpoint": "/v1/chat/completions",
        "model": "aligned-1",
        "stream": True,
        "choices": 1,
        "input_tokens": 20,
        "cached_tokens": 0,
        "output_tokens": 100,
        "reasoning_tokens": 0,
        "billed_output_tokens": 100,
        "cap_tokens": 400,
        "requested_tokens": None,
        "finish": "complete",
        "usage_source": "upstream",
        "ttft_ms": 250,
        "duration_ms": 1_500,
        "currency": "USD",
        "client_request_id": None,
        "end_user": "ann",
        "input_source": "upstream",
        "usage_dispute": "text",
    }
    return {**record, **changes}


def record(number: int = 1, **changes: Any) -> UsageRecord:
    """Return a record as it is handed to the book."""
    beside = {"charge_nanousd": 5_000, "settled": NOON + number + 1_500}
    conversation = {"conversation_cap_tokens": 4_000, "conversation_is_included": True}
    return {**settled_call(number), **beside, **conversation, **changes}


def settle(client: redis.Redis, call: UsageRecord, charge: int | str = 5_000) -> str:
    """Add a call to its customer's usage stream, as the settling script does; return the stream."""
    stream = redis_keys.usage(redis_keys.bucket_of(call["customer"]))
    client.xadd(stream, {"record": json.dumps(call), "charge": str(charge), "cap": "4000", "included": "1"})
    return stream


def customer_row(name: str, period: str = "month", timezone: str = "UTC") -> dict[str, Any]:
    """Return a row of the table of customers."""
    empty = {column.name: None for column in customers.columns}
    values = {"id": name, "name": name, "period": period, "timezone": timezone, "tier_since": 0, "status": "active"}
    return {**empty, **values, "overrides": "{}", "created": 0, "rev": 1, "projected": True}
