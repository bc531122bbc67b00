"""A million mixed rows: all kinds and endings, thirty customers in thirty zones, and their sums, counted when made."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert

from gateway.billing.charges import prorated
from gateway.billing.postings import posting
from gateway.ledger.billing.closings import bounds_of
from gateway.ledger.database import Database
from gateway.ledger.tables import customers, menus
from pricing.money import metered
from pricing.usage import FINISHES, SOURCES, UsageRecord
from tests.gateway.ledger.records import ZONES

MONTHS = ("2024-02", "2024-03", "2024-04")
"""A leap month, a month of 31 days in which clocks go forward, and a month in which clocks go back."""

ZONE_OF = {f"cus_{number:02d}": zone for number, zone in enumerate(ZONES)}
PRICE, PERIOD_PRICE = {"t1": 900, "t2": 1_000}, {"t1": 31_000_007, "t2": 62_000_011}
OUTPUT_RATE, INPUT_RATE = 7_777_777, 333_333
MENU = {
    **{"created": "2024-01-01T00:00:00Z", "currency": "USD", "bill": "conversation"},
    "tiers": [
        {
            **{"name": "t1", "price_nanousd": PRICE["t1"], "period_price_nanousd": PERIOD_PRICE["t1"]},
            **{"output_nanousd_per_mtok": OUTPUT_RATE, "input_nanousd_per_mtok": INPUT_RATE},
        },
        {"name": "t2", "price_nanousd": PRICE["t2"], "period_price_nanousd": PERIOD_PRICE["t2"]},
    ],
}
DAY_MS = 86_400_000
CONVERSATIONS = 1_000
"""The number of names for a customer's conversations."""

LATE = 10
"""One row in ``LATE`` comes after its month was closed."""

Plan = NDArray[Any]
"""Rows in the order in which they are settled: customer, time, and which posting of an upgrade it is, 0 for none."""

SUMMED = (
    *("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "billed_output_tokens"),
    *("charge_nanousd", "prepaid_nanousd"),
)


class Witness:
    """The sums of the rows by several fields, added up as the rows are made: no sum is read from a ledger."""

    def __init__(self) -> None:
        self.whole = dict.fromkeys(SUMMED, 0)
        self.by: dict[str, dict[Any, int]] = defaultdict(lambda: defaultdict(int))
        """Charges, by field of the record."""
        self.conversations: dict[tuple[str, str | None], list[int]] = defaultdict(lambda: [0, 0])
        """Billed tokens and charges of each conversation of a customer, and of its records without a conversation."""

    def see(self, record: UsageRecord) -> None:
        for name in SUMMED:
            self.whole[name] += record.get(name) or 0
        for name in ("customer", "tier", "key_id", "end_user", "kind", "menu_version"):
            self.by[name][record.get(name)] += record["charge_nanousd"]
        totals = self.conversations[record["customer"], record.get("conversation")]
        totals[0] += record["billed_output_tokens"]
        totals[1] += record["charge_nanousd"]


def prepare(database: Database) -> None:
    """Add the customers and their menus to an empty ledger."""
    empty = {column.name: None for column in customers.columns}
    columns = {"name": "c", "tier_since": 0, "status": "active", "period": "month", "overrides": "{}", "created": 0}
    people = [
        {**empty, **columns, "id": name, "timezone": zone, "rev": 1, "projected": True}
        for name, zone in ZONE_OF.items()
    ]
    menu_rows = [
        {"version": name, "source": "manual", "created": 0, "body": json.dumps({**MENU, "version": name})}
        for name in ("m1", "m2")
    ]
    with database.write() as connection:
        connection.execute(insert(customers), people)
        connection.execute(insert(menus), menu_rows)


def planned(count: int, *, is_settled: bool, people: int = len(ZONE_OF), months: Sequence[str] = MONTHS) -> Plan:
    """Return the customer and the time of each row, in the order in which the rows come to the ledger.

    Half are within a day of a month's end, half anywhere in the months. Each customer upgrades in the middle of each
    month: three rows.

    Args:
        is_settled: in the order of time, as a gateway books rows, with the late rows last, also in order; else in no
            order.
    """
    draw = np.random.default_rng(5)
    bounds = np.array([[bounds_of(month, zone) for month in months] for zone in ZONES[:people]])
    upgrades = [
        (customer, time, part)
        for customer in range(people)
        for start, end in bounds[customer]
        for part, time in enumerate((start, (start + end) // 2, (start + end) // 2), start=1)
    ]
    owner = draw.integers(people, size=count - len(upgrades))
    edges = bounds.reshape(people, -1)[owner, draw.integers(2 * len(months), size=len(owner))]
    near = edges + draw.integers(-DAY_MS, DAY_MS, size=len(owner))
    first, last = bounds[owner, 0, 0], bounds[owner, -1, 1]
    anywhere = first + (draw.random(len(owner)) * (last - first)).astype(np.int64)
    mixed = np.stack([owner, np.where(draw.random(len(owner)) < 0.5, near, anywhere), np.zeros_like(owner)], axis=1)
    plan = draw.permutation(np.concatenate([np.array(upgrades), mixed]))
    if not is_settled:
        return plan
    late = draw.random(count) < 1 / LATE
    order = np.lexsort((plan[:, 2], plan[:, 1], late))
    return plan[order]


def rows(plan: Plan, first: int, *, seed: int = 5, months: Sequence[str] = MONTHS) -> Iterator[UsageRecord]:
    """Yield the rows of a part of a plan; the part begins with row ``first``."""
    draw, people = random.Random(seed + first), list(ZONE_OF)
    for number, (owner, time_ms, part) in enumerate(plan.tolist(), start=first):
        customer = people[owner]
        if part:
            yield _upgrade(customer, time_ms, part, months)
        else:
            kind = draw.choices(("usage", "correction", "fee", "credit", "prepaid"), (900, 50, 20, 25, 5))[0]
            yield (_call if kind in ("usage", "correction") else _posted)(draw, kind, number, customer, time_ms)


def _call(draw: random.Random, kind: str, number: int, customer: str, time_ms: int) -> UsageRecord:
    tokens, input_tokens, tier = draw.randrange(2_000), draw.randrange(4_000), draw.choice(("t1", "t2"))
    is_metered = tier == "t1" and tokens > 0
    charge = metered(tokens, OUTPUT_RATE) + metered(input_tokens, INPUT_RATE) if is_metered else 0
    if tokens and draw.random() < 0.3:
        charge += PRICE[tier]
    if kind == "correction" and draw.random() < 0.5:
        charge = -charge
    return {
        **{"id": f"req_{number:012d}", "kind": kind, "corrects": None, "time": time_ms, "settled": time_ms + 9},
        **{"customer": customer, "key_id": draw.choice(("key_1", "key_2")), "tier": tier, "tier_chosen": None},
        **{"conversation": f"c{draw.randrange(CONVERSATIONS)}", "menu_version": draw.choice(("m1", "m2"))},
        **{"endpoint": "/v1/chat/completions", "model": "aligned-1", "stream": True, "choices": 1},
        **{"input_tokens": input_tokens, "cached_tokens": input_tokens // 3, "output_tokens": tokens},
        **{"reasoning_tokens": tokens // 5, "billed_output_tokens": tokens, "cap_tokens": 4_096},
        **{"requested_tokens": None, "finish": draw.choice(FINISHES), "usage_source": draw.choice(SOURCES)},
        **{"ttft_ms": 3, "duration_ms": 9, "charge_nanousd": charge, "currency": "USD", "client_request_id": None},
        "end_user": draw.choice((None, "ann", "bob")),
    }


def _posted(draw: random.Random, kind: Any, number: int, customer: str, time_ms: int) -> UsageRecord:
    amount = draw.choice((5_000, 70))
    charge = {"fee": amount, "credit": -amount, "prepaid": 0}[kind]
    return posting(
        kind,
        record_id=f"req_{number:012d}",
        customer=customer,
        charge_nanousd=charge,
        currency="USD",
        now_ms=time_ms,
        prepaid_nanousd=1_000_000 + amount if kind == "prepaid" else None,
    )


def _upgrade(customer: str, time_ms: int, part: int, months: Sequence[str]) -> UsageRecord:
    """Return the fee of a month, the credit for half of it, or the fee of the better tier for the other half."""
    [(start, end)] = [
        bounds for month in months if (bounds := bounds_of(month, ZONE_OF[customer]))[0] <= time_ms < bounds[1]
    ]
    remaining_ms = end - time_ms
    kind, tier, amount = {
        1: ("fee", "t1", PERIOD_PRICE["t1"]),
        2: ("credit", "t1", -prorated(PERIOD_PRICE["t1"], remaining_ms, end - start)),
        3: ("fee", "t2", prorated(PERIOD_PRICE["t2"], remaining_ms, end - start)),
    }[part]
    return posting(
        "fee" if kind == "fee" else "credit",
        record_id=f"fee_{customer}_{start}_{part}",
        customer=customer,
        charge_nanousd=amount,
        currency="USD",
        now_ms=time_ms,
        tier=tier,
        menu_version="m1",
        corrects=f"fee_{customer}_{start}_1" if part == 2 else None,
    )
