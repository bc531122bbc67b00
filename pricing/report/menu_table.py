"""A computed menu as text in columns: its tiers and the shares that take them, its profit, and other menus' profits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pricing.money import written


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows with equal numbers of cells as lines: the first column left-aligned, all others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return ["  ".join(line).rstrip() for line in lines]


def tier_lines(menu: Mapping[str, Any]) -> list[str]:
    """Return a head and a line for each tier, or a sentence for a menu that sells nothing."""
    if not menu["tiers"]:
        return ["Nothing is sold: no cap is worth to anyone what it costs to serve."]
    head = ["tier", "cap", "price", "share", "answers within the cap"]
    rows = [head, *(_cells(tier, menu["currency"]) for tier in menu["tiers"])]
    if menu["bill"] == "subscription":
        rows = [[*row, *fees] for row, fees in zip(rows, _fees(menu), strict=True)]
    return columns(rows)


def earning_lines(menu: Mapping[str, Any]) -> list[str]:
    """Return the profit of a conversation offered, and the profits of other menus for the same market."""
    totals, bound = menu["totals"], menu["certificate"]["bound"]
    rows = [
        ["Profit of a conversation offered", amount(menu, totals["profit_nanousd"])],
        ["of the best single plan", amount(menu, totals["single_plan_profit_nanousd"])],
        ["at most, by the certificate", amount(menu, bound["upper_bound_nanousd"])],
    ]
    if totals["full_menu_profit_nanousd"] is not None:
        rows.insert(2, ["of the full menu, a cap for each type", amount(menu, totals["full_menu_profit_nanousd"])])
    robust = menu["certificate"].get("robust")
    if robust is not None:
        rows.append(["on average over the market and those near it", amount(menu, robust["average_nanousd"])])
    return [*columns(rows), *held_lines(menu["certificate"]), *resumption_lines(menu)]


def held_lines(certificate: Mapping[str, Any]) -> list[str]:
    """Return sentences on a robust menu's profit in markets near the assumed market, and on the aims that it misses."""
    robust = certificate.get("robust")
    if robust is None or "one_price" not in robust:
        return []  # The menu is not robust, or an earlier release without these claims made it.
    held, one_price = robust["held"], robust["one_price"]["share_on_average"]
    beside = (
        f"{one_price:.1%} of what the best" if one_price > 1.0005 else "as much as the best and no more than the best"
    )
    line = (
        f"In the markets near it the menu keeps at least {held['elsewhere_share']:.1%} of the profit of a single plan made for "
        f"that market, {held['elsewhere_share_on_average']:.1%} on average; over all of them it earns {beside} single plan of "
        "one price does."
    )
    if held["as_taken_share"] is not None:
        line += f" Where the market is as taken it keeps {held['as_taken_share']:.1%} of the most profitable menu."
    return [line, *_missed(held, certificate["wishes"]["robust"])]


def _missed(held: Mapping[str, Any], aims: Mapping[str, Any]) -> list[str]:
    """Return a line on the claims that a robust menu does not make, no line where it makes all claims."""
    claims = {
        "as_taken": f"at most {aims['loss_max']:.0%} lost where the market is as taken",
        "elsewhere": f"at least {aims['single_share_min']:.0%} in each market near it",
        "on_average": "more than those single plans on average",
    }
    missed = [name for claim, name in claims.items() if not held["claims"][claim]]
    if not missed:
        return []
    line = f"Not claimed of this menu: {'; '.join(missed)}."
    elsewhere, as_taken = held["elsewhere_share_at_most"], held["as_taken_share_at_most"]
    if elsewhere is not None and elsewhere < aims["single_share_min"]:
        return [f"{line} No menu of as many tiers keeps more than {elsewhere:.1%} in each market near it."]
    if as_taken is not None and as_taken < 1 - aims["loss_max"]:
        return [f"{line} No menu of as many tiers that keeps that elsewhere keeps more than {as_taken:.1%} as taken."]
    return [f"{line} No menu that was tried does."]


def resumption_lines(menu: Mapping[str, Any]) -> list[str]:
    """Return lines on customers who send cut answers back to buy the next piece, no line where no customer gains by it."""
    totals = menu["totals"]
    if totals["resume_gain_nanousd"] <= 0:
        return []
    return [
        "Customers who send cut answers back to buy the next piece gain up to "
        f"{amount(menu, totals['resume_gain_nanousd'])} a conversation;",
        f"if all did, the profit would be {amount(menu, totals['profit_if_resumed_nanousd'])}.",
    ]


def amount(menu: Mapping[str, Any], nanousd: float) -> str:
    """Return an amount of a menu, rounded to a whole nano-unit."""
    return written(round(nanousd), menu["currency"])


def cap_text(cap_tokens: int | None) -> str:
    """Return a cap in words."""
    return "none" if cap_tokens is None else f"{cap_tokens} tokens"


def _cells(tier: Mapping[str, Any], currency: str) -> list[str]:
    expected = tier["expected"]
    return [
        tier["name"],
        cap_text(tier["conversation_tokens_max"]),
        written(tier["price_nanousd"], currency),
        f"{expected['share']:.1%}",
        f"{expected['p_answer']:.1%}",
    ]


def _fees(menu: Mapping[str, Any]) -> list[list[str]]:
    tiers = menu["tiers"]
    fees = [
        [written(tier["period_price_nanousd"], menu["currency"]), f"{tier['included_conversations']}"] for tier in tiers
    ]
    return [["fee of a period", "conversations in it"], *fees]
