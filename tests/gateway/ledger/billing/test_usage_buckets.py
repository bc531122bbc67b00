"""Claims about sums by bucket: what the database adds up is what a loop over the records does."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
from sqlalchemy import insert

from gateway.ledger.billing.usage_buckets import BucketSum, sums_by_bucket
from gateway.ledger.billing_tables import late_records
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from tests.gateway.ledger.records import NOON, record

HOUR, DAY = 3_600_000, 86_400_000
MIDNIGHT = NOON - NOON % DAY
START, END = MIDNIGHT + 7_000, MIDNIGHT + 4 * DAY + 5 * HOUR
LATE = {"call-000003": MIDNIGHT + 2 * DAY + 1, "call-000011": MIDNIGHT + 9 * DAY}


def mixed(number: int, draw: random.Random) -> dict[str, Any]:
    kind = draw.choice(("usage",) * 5 + ("correction", "fee", "credit"))
    is_call = kind in ("usage", "correction")
    return record(
        number,
        kind=kind,
        time=MIDNIGHT + draw.randrange(-DAY, 6 * DAY),
        customer=draw.choice(("cus_a", "cus_a", "cus_b")),
        tier=draw.choice(("t1", "t2", None)),
        key_id=draw.choice(("key_1", "key_2", None)),
        end_user=draw.choice(("ann", "bob", None)),
        model=draw.choice(("m1", "m2")) if is_call else None,
        endpoint=draw.choice(("/v1/chat/completions", "/v1/embeddings")) if kind == "usage" else None,
        input_tokens=draw.randrange(100) if is_call else 0,
        cached_tokens=draw.randrange(10) if is_call else 0,
        billed_output_tokens=draw.randrange(100) if is_call else 0,
        charge_nanousd=-draw.randrange(2**52) if kind == "credit" else draw.randrange(2**52),
    )


def added_up(
    records: list[dict[str, Any]], width: int, by: tuple[str, ...], only: dict[str, tuple[str, ...]], generates: bool
) -> list[BucketSum]:
    sums: dict[Any, list[int]] = defaultdict(lambda: [0] * 5)
    for one in records:
        at = LATE.get(one["id"], one["time"])
        if one["kind"] == "prepaid":
            continue
        is_of_a_model = one["kind"] in ("usage", "correction") and one["endpoint"] != "/v1/embeddings"
        if one["customer"] != "cus_a" or not START <= at < END or (generates and not is_of_a_model):
            continue
        if any(one.get(field) not in values for field, values in only.items()):
            continue
        found = sums[at - at % width, tuple(one.get(field) for field in by)]
        found[0] += one["kind"] == "usage"
        for place, name in enumerate(("input_tokens", "cached_tokens", "billed_output_tokens", "charge_nanousd"), 1):
            found[place] += one[name]
    order = sorted(sums, key=lambda one: (one[0], [(value is None, value or "") for value in one[1]]))
    return [BucketSum(*one, *sums[one]) for one in order]


@pytest.mark.parametrize(
    ("width", "by", "only", "generates"),
    [
        (DAY, (), {}, True),
        (HOUR, ("model", "tier"), {}, True),
        (60_000, (), {"model": ("m1",)}, True),
        (DAY, ("tier", "kind"), {}, False),
        (DAY, ("end_user", "key_id"), {"key_id": ("key_1", "key_2"), "end_user": ("ann",)}, False),
    ],
)
def test_sums_are_what_a_loop_adds_up(
    database: Database, width: int, by: tuple[str, ...], only: dict[str, tuple[str, ...]], generates: bool
) -> None:
    """Whatever the kind, credits below zero and sums beyond 2^63 included; what came late counts where it was written."""
    draw = random.Random(1)
    edges = (START - 1, START, MIDNIGHT + DAY - 1, MIDNIGHT + DAY, END - 1, END)
    at_edges = [{**mixed(800 + number, draw), "customer": "cus_a", "time": at} for number, at in enumerate(edges)]
    paid = record(900, customer="cus_a", kind="prepaid", time=START, charge_nanousd=0, tier="t9", prepaid_nanousd=5)
    records = append(database, [*(mixed(number, draw) for number in range(1, 800)), *at_edges, paid])
    late = [
        {"chain": "main", "seq": one["seq"], "customer": one["customer"], "counts": LATE[one["id"]]}
        for one in records
        if one["id"] in LATE
    ]
    with database.write() as connection:
        connection.execute(insert(late_records), late)

    found = sums_by_bucket(database, "cus_a", START, END, width, by=by, only=only, generates=generates)

    assert found == added_up(records, width, by, only, generates)
    assert len(found) > 4


def test_sums_beyond_what_sixty_four_bits_hold_are_exact(database: Database) -> None:
    append(database, [record(number, charge_nanousd=2**53 - 1, customer="cus_a") for number in range(1, 1_101)])

    [found] = sums_by_bucket(database, "cus_a", MIDNIGHT, MIDNIGHT + DAY, DAY, only={}, generates=False)

    assert found.charge_nanousd == 1_100 * (2**53 - 1) > 2**63
