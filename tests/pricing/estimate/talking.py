"""Customers of a known market who talk under a gateway's menu: yields usage records, one for each call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pricing.market.answers import Floats, Ints
from tests.pricing.estimate.simulated import FIRST_S, SPEED, Truth, answers_of

NOON = 1_767_268_800_000
DAY_MS = 86_400_000

CALL: dict[str, Any] = {
    "kind": "usage",
    "corrects": None,
    "key_id": "key_1",
    "endpoint": "/v1/chat/completions",
    "model": "aligned-1",
    "stream": True,
    "choices": 1,
    "input_tokens": 10,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
    "requested_tokens": None,
    "usage_source": "upstream",
    "charge_nanousd": 0,
    "currency": "USD",
    "client_request_id": None,
}
"""The fields that all calls share."""


def menu_of(caps: tuple[int | None, ...], prices: tuple[int, ...], version: str = "m1") -> dict[str, Any]:
    """Return a menu typed by hand."""
    return {
        "version": version,
        "created": "2026-01-01T00:00:00Z",
        "currency": "USD",
        "bill": "conversation",
        "tiers": [
            {"name": f"t{place}", "conversation_tokens_max": cap, "price_nanousd": price}
            for place, (cap, price) in enumerate(zip(caps, prices, strict=True), start=1)
        ],
    }


def talk(
    truth: Truth,
    menu: Mapping[str, Any],
    *,
    customers: int,
    conversations: int,
    random: np.random.Generator,
    days: int = 14,
    named: bool = True,
) -> Iterator[dict[str, Any]]:
    """Yield the records of customers who each take their best tier, and leave when their patience ends.

    Args:
        truth: the market.
        menu: the tiers on sale; a customer without a tier worth its price leaves no record.
        customers: their number.
        conversations: the number for each customer.
        days: the number of days of the conversations, from NOON on.
        named: whether they name the tier with each conversation, or have taken it for their account.
    """
    kinds = random.choice(len(truth.share), customers, p=truth.share)
    taken = _best(truth, menu)[kinds]
    owner = np.repeat(np.arange(customers), conversations)[np.repeat(taken, conversations) >= 0]
    urgency = np.array(truth.urgency_per_s)[kinds][owner]
    caps = np.array([10**9 if one is None else one for one in (t["conversation_tokens_max"] for t in menu["tiers"])])
    lengths = np.ceil(truth.median_tokens * np.exp(truth.sigma * random.standard_normal(len(owner)))).astype(np.int64)
    served = np.minimum(lengths, caps[taken[owner]])
    whole_s = FIRST_S + (served - 1) / SPEED
    patience = random.exponential(size=len(owner)) / urgency
    left = patience < whole_s
    tokens = np.where(left, np.clip(np.floor((patience - FIRST_S) * SPEED) + 1, 0, served), served).astype(np.int64)
    times = np.sort(random.integers(0, days * DAY_MS, len(owner))) + NOON
    for number, row in enumerate(random.permutation(len(owner)).tolist()):
        tier = menu["tiers"][int(taken[owner[row]])]["name"]
        duration = round(1000 * min(float(patience[row]), float(whole_s[row])))
        ended = "complete" if lengths[row] <= served[row] and lengths[row] < caps[taken[owner[row]]] else "cap"
        yield {
            **CALL,
            "id": f"req_{number:08d}",
            "time": int(times[number]),
            "settled": int(times[number]) + duration,
            "customer": f"cus_{owner[row]:06d}",
            "conversation": f"c{number}",
            "tier": tier,
            "tier_chosen": tier if named else None,
            "menu_version": menu["version"],
            "output_tokens": int(tokens[row]),
            "billed_output_tokens": int(tokens[row]),
            "cap_tokens": int(min(caps[taken[owner[row]]], 16384)),
            "finish": "disconnect" if left[row] else ended,
            "ttft_ms": 400 if duration >= 400 else None,
            "duration_ms": duration,
        }


def _best(truth: Truth, menu: Mapping[str, Any]) -> Ints:
    """Return the index of the tier that each type takes, -1 for none."""
    answers = answers_of(truth)
    gains: list[Floats] = [np.zeros(len(truth.share))]
    for tier in menu["tiers"]:
        worth = [answers.worth(r, tier["conversation_tokens_max"]) for r in truth.urgency_per_s]
        gains.append(np.array(worth) - tier["price_nanousd"])
    best: Ints = np.argmax(gains, axis=0) - 1
    return best
