"""What the demo shows of what was learnt: the estimate in the model's own time, and profit as the true market has it."""

from __future__ import annotations

import json

import pytest

from gateway.cli.demo import PACKAGES, TO_LEARN
from gateway.demo.estimate_check import learnt_lines, profit_lines
from gateway.demo.expectations import Conversations
from gateway.demo.simulated_customers import law_of, people_of
from pricing.market.market import read_market
from pricing.menus.menu import Menu
from pricing.menus.menus import optimal_menu
from tests.gateway.ledger.records import record

MARKET = read_market(json.loads((PACKAGES / TO_LEARN).read_text()))
LAW = law_of(MARKET)
ESTIMATED = {
    "tokens_per_s": 160.0,
    "answer_length": {"tokens": [150, 300, 500], "survival": [0.7, 0.45, 0.3]},
    "estimate": {"sources": ["disconnects", "customer_choices"]},
    "intervals": {
        "tokens_per_s": [152.0, 168.0],
        "answer_length": {"tokens": [150, 300, 500], "survival_low": [0.6, 0.4, 0.2], "survival_high": [0.8, 0.5, 0.4]},
        "urgency": {
            "urgency_per_s": [0.01, 0.5, 2.0],
            "cumulative_share": [0.25, 0.6, 1.0],
            "cumulative_share_low": [0.1, 0.5, 1.0],
            "cumulative_share_high": [0.4, 0.7, 1.0],
        },
    },
}


def test_what_was_learnt_in_hurried_time_is_shown_in_the_models_own() -> None:
    """Eight of the model's seconds in one: 160 tokens a second are 20, and an urgency of 0.5/s is 0.0625."""
    head, *rows = learnt_lines(ESTIMATED, MARKET, LAW, 8)

    assert head == "What was learnt, from disconnects, customer choices:"
    assert rows[1].split()[-5:] == ["20.0", "19.0", "to", "21.0", "20.0"]
    assert rows[2].split()[-5:] == ["70.0%", "60.0%", "to", "80.0%", "60.7%"]
    assert rows[5].split()[-5:] == ["25.0%", "10.0%", "to", "40.0%", "20.0%"]
    assert rows[6].split()[-5:] == ["60.0%", "50.0%", "to", "70.0%", "50.0%"]


def test_the_best_menu_earns_all_and_another_its_share() -> None:
    """By the true market a certified menu earns what its totals say; the ledger's mean stands beside it."""
    best = optimal_menu(MARKET, tiers=3, bill="conversation", names=None, created="2026-01-01T00:00:00Z")
    cheap = Menu.from_json(best | {"tiers": [best["tiers"][0] | {"price_nanousd": 1, "conversation_tokens_max": None}]})
    seen = [Conversations({"t1": 1}, {"cus_acme"}), Conversations({}, set())]
    seen[0].note(record(tier="t1", charge_nanousd=1))

    lines = profit_lines((cheap, Menu.from_json(best)), seen, people_of(MARKET, 60), LAW, best)

    profit = best["totals"]["profit_nanousd"]
    assert lines[1].split()[-2] == "0.000000001"
    assert float(lines[2].split()[-2]) == pytest.approx(profit / 1e9, rel=1e-3)
    assert lines[-1] == "The menu earned 0% of what could be earned before, and 100% after."
