"""Records that belong to no call: a fee, a credit, prepaid credit. Pure: turns the facts into the record to book."""

from __future__ import annotations

from typing import Literal

from pricing.usage import UsageRecord

COUNTS = ("choices", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "billed_output_tokens")
NOT_SAID = (
    *("conversation", "tier_chosen", "endpoint", "model", "cap_tokens", "requested_tokens", "finish", "usage_source"),
    *("ttft_ms", "duration_ms", "client_request_id"),
)


def posting(
    kind: Literal["fee", "credit", "prepaid"],
    *,
    record_id: str,
    customer: str,
    charge_nanousd: int,
    currency: str,
    now_ms: int,
    tier: str | None = None,
    menu_version: str | None = None,
    key_id: str | None = None,
    corrects: str | None = None,
    prepaid_nanousd: int | None = None,
) -> UsageRecord:
    """Return the record of a fee, a credit or prepaid credit, which counts no token and no call.

    Args:
        charge_nanousd: the amount that the record adds to the bill: negative for a credit, 0 for prepaid credit.
        corrects: the record that a credit is for.
        prepaid_nanousd: the amount that the customer paid in advance.
    """
    return {
        **dict.fromkeys(COUNTS, 0),
        **dict.fromkeys(NOT_SAID),
        "id": record_id,
        "kind": kind,
        "corrects": corrects,
        "time": now_ms,
        "settled": now_ms,
        "customer": customer,
        "key_id": key_id,
        "tier": tier,
        "menu_version": menu_version,
        "stream": False,
        "charge_nanousd": charge_nanousd,
        "currency": currency,
        "prepaid_nanousd": prepaid_nanousd,
    }
