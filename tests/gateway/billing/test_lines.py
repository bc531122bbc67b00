"""Invoice lines: what a charge is made of, and lines that come to what the records charged, to the nano-unit."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.billing.charges import Parts, parts_of
from gateway.billing.lines import Lines, tokens_charged
from gateway.holds.offer import charge
from pricing.menus.menu import Tier
from pricing.money import metered

RATES = Tier("t1", price_nanousd=900, input_nanousd_per_mtok=333_333, output_nanousd_per_mtok=7_777_777)
PRICE = Tier("t2", price_nanousd=1_000)


def terms(version: str | None, tier: str | None) -> Tier | None:
    return {("m1", "t1"): RATES, ("m1", "t2"): PRICE}.get((version or "", tier or ""))


def test_a_charge_falls_into_the_parts_it_was_made_of() -> None:
    """For any call: its price where its conversation's went onto it, its input and its output, rounded as it was charged."""
    draw = random.Random(1)
    for _ in range(2_000):
        tokens, input_tokens = draw.randrange(5_000), draw.randrange(20_000)
        due = charge(900, 333_333, 7_777_777, tokens=tokens, input_tokens=input_tokens, owes_input=draw.random() < 0.5)
        for amount in (due.first, due.again):
            parts = parts_of(amount, tokens, input_tokens, RATES)

            assert parts.rest == 0
            assert parts.price + parts.input + parts.output == amount
            assert parts.price == (900 if amount != due.again else 0)


@pytest.mark.parametrize(
    ("amount", "wanted"),
    [
        (0, Parts()),  # observing, nothing is charged
        (900 + 7_777 + 10, Parts(900, 10, 7_777)),  # a spend limit left the rest of the input to the house
        (7_777 + 10, Parts(0, 10, 7_777)),
        (900 + 7_777, Parts(900, 0, 7_777)),  # and here all of it
        (5, Parts(rest=5)),  # it is of other terms
    ],
)
def test_what_was_charged_is_never_lost(amount: int, wanted: Parts) -> None:
    assert parts_of(amount, 1_000, 1_000, RATES) == wanted
    assert parts_of(7, 1_000, 1_000, None) == Parts(rest=7)


def test_a_charge_that_fits_with_its_price_and_without_has_it() -> None:
    assert parts_of(900 + 7_777 + 10, 1_000, 20_000, RATES) == Parts(900, 10, 7_777)


def test_an_input_line_counts_the_tokens_that_were_charged() -> None:
    """All of a call's, or the fewest that are charged what a spend limit left of them."""
    rate = RATES.input_nanousd_per_mtok or 0

    assert tokens_charged(333, 1_001, rate) == 1_001
    assert tokens_charged(10, 1_001, rate) == 31
    assert (metered(31, rate), metered(30, rate)) == (10, 9)


def test_an_included_conversation_has_its_line_beside_what_its_tokens_cost() -> None:
    lines = Lines(terms)
    add(lines, 9, charge=7_777, tokens=1_000, is_included=True)
    add(lines, 4, charge=0, tokens=5)

    shown = [(line["kind"], line["unit_nanousd"], line["quantity"], line["amount_nanousd"]) for line in lines.lines()]

    assert shown == [("conversations", 0, 1, 0), ("output", 7_777_777, 1_000, 7_777)]
    assert (lines.first_seq, lines.last_seq) == (4, 9)


def add(lines: Lines, number: int, **changes: Any) -> int:
    row: dict[str, Any] = {
        **{"record_id": f"r{number}", "kind": "usage", "seq": number, "tier": "t1", "menu_version": "m1", "charge": 0},
        **{"tokens": 0, "input_tokens": 0, "is_included": None},
        **changes,
    }
    lines.add(**row)
    return int(row["charge"])


def test_lines_say_what_how_much_and_of_which_records() -> None:
    lines = Lines(terms)
    add(lines, 1, charge=900 + 7_777 + 333, tokens=1_000, input_tokens=1_000)
    add(lines, 2, charge=7_777, tokens=1_000, input_tokens=2)
    add(lines, 3, charge=0, tokens=5, is_included=True, tier="t2")
    add(lines, 4, charge=5_000, kind="fee", tier="t2")
    add(lines, 5, charge=80, kind="fee", tier=None, menu_version=None)
    add(lines, 6, charge=-40, kind="credit")
    add(lines, 7, charge=3, kind="correction", tokens=-5)

    shown = [
        (line["kind"], line["tier"], line["quantity"], line["unit_nanousd"], line["amount_nanousd"], line["records"])
        for line in lines.lines()
    ]
    assert shown == [
        ("subscription", "t2", 1, 5_000, 5_000, 1),
        ("conversations", "t1", 1, 900, 900, 1),
        ("conversations", "t2", 1, 0, 0, 1),
        ("input", "t1", 1_000, 333_333, 333, 1),
        ("output", "t1", 2_000, 7_777_777, 15_554, 2),
        ("fee", None, 1, 80, 80, 1),
        ("correction", "t1", 1, None, 3, 1),
        ("credit", "t1", 1, -40, -40, 1),
    ]
    output = lines.lines()[4]
    assert (output["first_record"], output["last_record"]) == ("r1", "r2")
    assert (lines.records, lines.first_seq, lines.last_seq) == (7, 1, 7)


@pytest.mark.parametrize("seed", range(3))
def test_lines_come_to_what_the_records_charged(seed: int) -> None:
    """Whatever they charged, also where no terms tell it."""
    draw, lines, total = random.Random(seed), Lines(terms), 0
    for number in range(3_000):
        changes = {
            **{"kind": draw.choice(("usage", "usage", "usage", "correction", "fee", "credit"))},
            **{"tier": draw.choice(("t1", "t2", "t9", None)), "tokens": draw.randrange(3_000)},
            **{"input_tokens": draw.randrange(3_000), "charge": draw.choice((0, draw.randrange(2**53), -5, 1_000))},
            **{"is_included": draw.choice((None, True)), "menu_version": draw.choice(("m1", "m2"))},
        }
        total += add(lines, number, **changes)

    assert sum(line["amount_nanousd"] for line in lines.lines()) == lines.total_nanousd == total
    assert all(isinstance(line["amount_nanousd"], int) for line in lines.lines())
