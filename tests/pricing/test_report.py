"""The report is one page that loads nothing and agrees with the menu."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from pricing.market.market import read_market
from pricing.menus.menus import optimal_menu
from pricing.report.report import report
from tests.pricing import markets

pytestmark = pytest.mark.filterwarnings("error")


def menu_and_page(description: dict[str, Any], tiers: int | None = None) -> tuple[dict[str, Any], str]:
    market = read_market(description)
    menu = optimal_menu(market, tiers=tiers, bill="conversation", names=None, created="2025-01-01T00:00:00Z")
    return menu, report(market, menu)


def test_it_shows_every_tier_and_loads_nothing() -> None:
    """The page has no address and no script, and every chart is well-formed."""
    menu, page = menu_and_page(markets.lognormal() | {"cost_nanousd_per_token": 2e4})
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)

    assert not re.search(r"https?:|src=|url\(|<script|@import|href=", page)
    assert len(drawings) == 5
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).find("title") is not None
    for tier in menu["tiers"]:
        assert f"<td>{tier['conversation_tokens_max']:,}</td>" in page
    assert "The certificate holds." in page
    assert "nan" not in re.sub(r"[a-z]*nano[a-z-]*|finance", "", page)


@pytest.mark.parametrize(
    "changes",
    [
        {"types": [{"urgency_per_s": 0, "share": 1}]},
        {"cost_nanousd_per_token": 10**9, "cap_tokens_max": 500},
        {
            "types": None,
            "urgency": {"family": "uniform", "low_per_s": 0, "high_per_s": 0.3, "points": 400},
            "answer_length": {"family": "table", "tokens": [100, 200, 400, 800, 1600], "probability": [0.2] * 5},
        },
        {"delay": {"family": "sunk_linear"}},
    ],
    ids=["one type", "nobody is served", "many types", "waiting sinks"],
)
def test_every_market_can_be_drawn(changes: dict[str, Any]) -> None:
    menu, page = menu_and_page(markets.market(**changes), tiers=3)

    assert page.count("<svg") == 4 + bool(menu["tiers"])


def test_the_report_of_an_estimate_says_what_it_knows() -> None:
    """The page has value, cost, speed, intervals and notes, and does not call the menu the best of all mechanisms."""
    estimate = {
        "value_understated_by": 0.05,
        "notes": ["Nobody knows what is above 4,000 tokens."],
        "value": {"nanousd": 21_000_000, "low": 18_000_000, "high": 25_000_000, "known_by": "estimated", "sigma": 0.1},
    }
    intervals = {"tokens_per_s": [48.5, 51.25], "first_token_s": [0.39, 0.42]}
    _, page = menu_and_page(markets.market(estimate=estimate, intervals=intervals))

    for text in ("21,000,000", "18,000,000 to 25,000,000", "48.5 to 51.25", "0.39 to 0.42", "Cost of a token", "5 %"):
        assert text in page
    assert "Nobody knows what is above 4,000 tokens." in page
    assert "of all mechanisms" not in page


def test_an_uncapped_tier_does_not_flatten_the_caps() -> None:
    """The longest answer is ten million tokens; the axis ends a little above the largest cap, labelled "no cap"."""
    tokens = [100, 200, 400, 10_000_000]
    table = {"family": "table", "tokens": tokens, "probability": [0.4, 0.3, 0.2999, 0.0001]}
    menu, page = menu_and_page(markets.market(answer_length=table))
    chart = next(one for one in re.findall(r"<svg.*?</svg>", page, re.DOTALL) if "Cap by urgency" in one)

    assert menu["tiers"][-1]["conversation_tokens_max"] is None
    assert "no cap" in chart
    assert "10,000,000" not in chart


def test_it_says_what_a_wrong_choice_costs() -> None:
    """The certificate's least slacks are the least values of the table; the first and last tier have no neighbour."""
    menu, page = menu_and_page(markets.lognormal() | {"cost_nanousd_per_token": 2e4})
    section = page.split("What a wrong choice costs")[1].split("</section>")[0]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", section)[1:]]
    others = [float(row[3].replace(",", "")) for row in rows]
    nothing = [float(row[4].replace(",", "")) for row in rows]
    slacks = menu["certificate"]["conditions"]

    assert [row[0] for row in rows] == [tier["name"] for tier in menu["tiers"]]
    assert (rows[0][1], rows[-1][2]) == ("–", "–")
    assert min(others + nothing) == pytest.approx(slacks["own_choice_slack_nanousd"], rel=1e-3)
    assert min(nothing) == pytest.approx(slacks["participation_slack_nanousd"], rel=1e-3)
    assert not re.search(r"\de-\d+ USD", page)


def test_it_says_so_where_the_menu_was_changed_and_lets_no_text_become_markup() -> None:
    market = read_market(markets.market(currency="<b>&"))
    menu = optimal_menu(market, tiers=2, bill="conversation", names=None, created="2025-01-01T00:00:00Z")
    menu["tiers"][0]["price_nanousd"] += 1
    page = report(market, menu)

    assert "The certificate does not hold: tiers[t1].price_nanousd" in page
    assert "<b>" not in page
