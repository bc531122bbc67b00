"""The report's section on the market of a menu: its figures, their sources, and where the menu breaks even."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pricing.charts import Axis, Series, line_chart
from pricing.comparisons.sensitivity import Line
from pricing.market.estimated import estimated
from pricing.market.market import ExponentialLength, Market

Row = Sequence[str]


def market_rows(market: Market, money: str) -> list[Row]:
    """Return the assumed figures of the market, a row for each, with an interval where the figure was estimated.

    Args:
        market: the menu's market.
        money: the name of the currency, such as "USD".
    """
    fields = json.loads(market.given)
    estimate = estimated(market)
    intervals: Mapping[str, Any] = fields.get("intervals") or {}
    values = sorted(set(market.value_nanousd))
    value = f"{values[-1]:,.0f}" if len(values) == 1 else f"{values[0]:,.0f} to {values[-1]:,.0f}"
    rows: list[Row] = [[f"Value of an answer at once, nano-{money}", value, "–"]]
    if estimate is not None and estimate.value is not None:
        source = {"said": "said by the operator", "assumed": "assumed", "estimated": "estimated"}[
            estimate.value.known_by
        ]
        interval = f"{estimate.value.low:,.0f} to {estimate.value.high:,.0f}"
        rows = [[f"Value of an answer, {source}, nano-{money}", f"{estimate.value.nanousd:,.0f}", interval]]
    if estimate is not None and estimate.understated_by:
        rows.append(["Understated in this market by", f"{100 * estimate.understated_by:g} %", "–"])
    rows.append([f"Cost of a token, nano-{money}", f"{market.cost_nanousd_per_token:,.6g}", "–"])
    rows.append(["Tokens a second", f"{market.tokens_per_s:,.4g}", _band(intervals.get("tokens_per_s"))])
    rows.append(["First token after, s", f"{market.first_token_s:,.3g}", _band(intervals.get("first_token_s"))])
    rows.append(["Answers", _lengths(market), "–"])
    if market.value_sigma:
        rows.append(["Dispersion of value, σ of its logarithm", f"{market.value_sigma:g}", "–"])
    rows.append(["Delay", market.delay, "–"])
    return rows + _urgency(market, intervals.get("urgency"))


def notes_of(market: Market) -> list[str]:
    """Return the notes of an estimate, and the sentence on an assumption."""
    fields, estimate = json.loads(market.given), estimated(market)
    notes = list(estimate.notes) if estimate is not None else []
    assumption = fields.get("assumption")
    return [*notes, assumption] if isinstance(assumption, str) else notes


def _band(interval: Any) -> str:
    if (
        not isinstance(interval, list)
        or len(interval) != 2
        or not all(isinstance(bound, int | float) for bound in interval)
    ):
        return "–"
    return f"{interval[0]:,.4g} to {interval[1]:,.4g}"


def _lengths(market: Market) -> str:
    length = market.answer_length
    if isinstance(length, ExponentialLength):
        return f"exponential, {length.mean_tokens:,.6g} tokens on average"
    reached = np.cumsum(length.probability)
    middle = length.tokens[min(int(np.searchsorted(reached, 0.5)), len(length.tokens) - 1)]
    return f"half of them within {middle:,} tokens, all that end within {length.tokens[-1]:,}"


def _urgency(market: Market, interval: Any) -> list[Row]:
    """Return the 10 %, 50 % and 90 % quantiles of urgency, with intervals where urgency was estimated."""
    rows: list[Row] = []
    rates, reached = np.array(market.urgency_per_s), np.cumsum(market.share)
    for level in (0.1, 0.5, 0.9):
        rate = rates[min(int(np.searchsorted(reached, level - 1e-12)), len(rates) - 1)]
        rows.append([f"Urgency that {100 * level:.0f} % are at most, 1/s", f"{rate:.3g}", _rates(interval, level)])
    return rows


def _rates(interval: Any, level: float) -> str:
    try:
        grid = np.array(interval["urgency_per_s"], dtype=float)
        curves = [np.array(interval[f"cumulative_share_{side}"], dtype=float) for side in ("high", "low")]
        low, high = (grid[min(int(np.searchsorted(curve, level)), len(grid) - 1)] for curve in curves)
    except (TypeError, KeyError, ValueError, IndexError):
        return "–"
    return f"{low:.3g} to {high:.3g}"


def fit_charts(market: Market) -> str:
    """Return charts of an estimate's lengths and urgency with their bands, and of its choices; empty without bands."""
    intervals = json.loads(market.given).get("intervals")
    charts = ""
    try:
        lengths = intervals["answer_length"]
        tokens = lengths["tokens"]
        bands = [
            Series(f"95 % band, {side}", list(zip(tokens, lengths[f"survival_{side}"], strict=True)))
            for side in ("low", "high")
        ]
        charts += line_chart("Answers longer than a cap", bands, Axis("tokens"), Axis("share of answers"))
        urgency = intervals["urgency"]
        rates = [max(rate, 1e-6) for rate in urgency["urgency_per_s"]]
        names = {
            "cumulative_share_low": "95 % band, low",
            "cumulative_share": "estimate",
            "cumulative_share_high": "95 % band, high",
        }
        lines = [
            Series(name, list(zip(rates, urgency[field], strict=True)))
            for field, name in names.items()
            if field in urgency
        ]
        charts += line_chart("Urgency", lines, Axis("urgency r, 1/s", logarithmic=True), Axis("share of conversations"))
        charts += _choices(json.loads(market.given)["estimate"]["choices"])
    except (TypeError, KeyError, ValueError):
        return charts
    return charts


def _choices(choices_by_menu: Sequence[Mapping[str, Any]]) -> str:
    """Return a chart of the observed and the predicted share of each menu's tiers, empty without observed choices."""
    series = [
        Series(f"{kind}, menu {number}", list(zip(map(float, menu["tiers"]), menu[kind], strict=True)), style)
        for number, menu in enumerate(choices_by_menu, start=1)
        for kind, style in (("observed", "dots"), ("predicted", "line"))
    ]
    return line_chart("What was taken", series, Axis("tier"), Axis("share of conversations")) if series else ""


def break_even_rows(lines: Sequence[Line], amount: Any) -> list[Row]:
    """Return a row for each shifted quantity: the profit at each shift, and the shifts at which a single plan earns more.

    The single plan's profit is its profit without a shift.
    """
    return [
        [
            line.thing,
            *(amount(profit) for profit in line.profits),
            "none" if line.below is None else f"{100 * line.below:+.1f} %",
            "none" if line.above is None else f"{100 * line.above:+.1f} %",
        ]
        for line in lines
    ]
