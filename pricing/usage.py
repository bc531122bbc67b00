"""The usage record of a call: whole numbers and strings, one JSON object per line.

Usage records are all that the gateway passes to the pricing module, and the rows of every bill.
"""

from __future__ import annotations

from typing import Any

UsageRecord = dict[str, Any]
"""A record; its keys are FIELDS, its values whole numbers, strings, booleans or null."""

FIELDS: tuple[str, ...] = (
    "id",
    "kind",
    "corrects",
    "time",
    "settled",
    "customer",
    "key_id",
    "conversation",
    "tier",
    "tier_chosen",
    "menu_version",
    "endpoint",
    "model",
    "stream",
    "choices",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "billed_output_tokens",
    "cap_tokens",
    "requested_tokens",
    "finish",
    "usage_source",
    "ttft_ms",
    "duration_ms",
    "charge_nanousd",
    "currency",
    "client_request_id",
    "chain",
    "seq",
    "prev_hash",
    "hash",
    "end_user",
    "input_source",
    "usage_dispute",
    "conversation_cap_tokens",
    "conversation_is_included",
    "prepaid_nanousd",
)
"""Every field, in the order in which files show them. Times are milliseconds since 1970, UTC."""

FIELDS_IF_SAID: frozenset[str] = frozenset(
    {
        *("end_user", "input_source", "usage_dispute", "conversation_cap_tokens", "conversation_is_included"),
        "prepaid_nanousd",
    }
)
"""Fields that a record omits where they are empty, so that older records keep their hash."""

END_USER_MOST = 256
"""The most characters of an ``end_user``."""

WHOLE_FIELDS: frozenset[str] = frozenset(
    {
        "time",
        "settled",
        "choices",
        "input_tokens",
        "cached_tokens",
        "output_tokens",
        "reasoning_tokens",
        "billed_output_tokens",
        "cap_tokens",
        "requested_tokens",
        "ttft_ms",
        "duration_ms",
        "charge_nanousd",
        "seq",
        "conversation_cap_tokens",
        "prepaid_nanousd",
    }
)
"""The fields that are whole numbers (``requested_tokens`` and ``ttft_ms`` may be null).

``stream`` and ``conversation_is_included`` are booleans.
"""

KINDS = ("usage", "fee", "credit", "correction", "prepaid")

FINISHES = (
    "complete",
    "tool_calls",
    "cap",
    "caller_limit",
    "context",
    "filtered",
    "period",
    "disconnect",
    "upstream_error",
    "shutdown",
    "recovered",
)

INPUT_SOURCES = ("upstream", "tokenizer", "estimate")

SOURCES = ("upstream", "continuous", "drained", "tokenizer", "counted", "timed", "granted", "estimate", "checkpoint")

DISPUTES = ("itself", "text")
"""What an upstream's figures may contradict: themselves (each other), or the text of the same answer."""
