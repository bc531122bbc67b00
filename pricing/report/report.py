"""A menu and its certificate as one self-contained HTML page, for people who decide on the menu or check it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from pricing.certificate import Verdict, verify
from pricing.charts import Axis, Point, Series, bar_chart, line_chart, shown
from pricing.comparisons.sensitivity import SHIFTS, sensitivity
from pricing.market.fields import NotAMarket
from pricing.market.market import Market
from pricing.market.worth import Valuation, valuation_of, worth_at
from pricing.mechanism.lasting import Advice, advise
from pricing.menus.menu import digest
from pricing.money import NANO
from pricing.report.market_section import break_even_rows, fit_charts, market_rows, notes_of
from pricing.report.page import PAGE

CURVES_MAX = 6
"""The most types whose worth is drawn; more curves could not be distinguished."""

TYPES_MARKED = 24
"""The most types that a chart marks individually."""

POINTS_MAX = 240
"""The most points of a drawn line."""


def report(market: Market, menu: Mapping[str, Any]) -> str:
    """Return the report of a computed menu as HTML: tiers, their takers, profit, worth, slacks and resumption.

    Args:
        market: the market of the menu.
        menu: a ``menu.json`` made by ``optimal_menu``.

    Raises:
        NotAMarket: the market cannot be priced, or the menu was made for another market.
    """
    if digest(json.loads(market.given)) != digest(menu["market"]):
        raise NotAMarket("The menu was made for another market, so its certificate says nothing about this one.")
    valuation = valuation_of(market)
    verdict = verify(menu)
    advice = advise(valuation, most=max(5, len(menu["totals"]["tiers_profit_nanousd"])))
    sections = [
        _summary(menu, verdict),
        _section("Tiers", _TIERS_TEXT, _tiers_table(menu)),
        _section("The market it is made for", _MARKET_TEXT, _market(market, menu)),
        _section("Who takes what", _CHOICE_TEXT, _choice_charts(menu, valuation) + _excluded(menu)),
        _section("Profit by number of tiers", advice.sentence, _profit_chart(menu, advice)),
        _section("Where the market is not as it was taken", _SHIFT_TEXT, _shifts(market, menu)),
        _section("What a cap is worth", _WORTH_TEXT, _worth_chart(menu, valuation)),
        _section("What a wrong choice costs", _SLACKS_TEXT, _slacks_table(menu, valuation)),
        _section("When callers resume", _resumption_text(menu), _advice_table(menu, advice)),
        _section("Certificate", _CERTIFICATE_TEXT, _certificate_table(menu, verdict)),
    ]
    title = f"Menu {menu['version']}"
    return PAGE.substitute(title=escape(title), created=escape(str(menu["created"])), body="\n".join(sections))


_TIERS_TEXT = (
    "One model, one speed; a tier is a cap on the tokens of a conversation and its price. "
    "The chance of an answer is that of the answer being no longer than the cap."
)
_MARKET_TEXT = "What the menu takes customers, answers and costs to be, and how that is known. Intervals are of 95 %."
_SHIFT_TEXT = (
    "Profit of this menu, customers choosing anew, where one thing is larger or smaller than it was taken to be; and the "
    "nearest shifts down and up at which it earns less than the best single plan does where all is as it was taken."
)
_CHOICE_TEXT = (
    "Customers differ in urgency r: an answer after t seconds is worth its value times what delay leaves of it. "
    "Patient customers are on the left. They buy the long caps; nobody gains by taking a tier that is meant for another."
)
_WORTH_TEXT = (
    "Worth u(N) of a conversation capped at N tokens, for some types, and the tiers as dots at their prices. "
    "A type takes the dot that lies furthest below its own curve, if one lies below it. "
    "Longer caps than are drawn stand at the right edge."
)
_SLACKS_TEXT = (
    "Slacks of own choice and participation, in nano-units: for the types that take a tier, the least that one of them "
    "loses by taking another instead. Next to nothing is usual downwards: a price is as high as the next smaller tier allows."
)
_CERTIFICATE_TEXT = (
    "Computed on the published whole numbers. The bound holds for every mechanism that is paid at the start, "
    "lotteries included, by weak duality with the multipliers written in the file; the gap is what a better mechanism could add at most."
)


def _section(title: str, text: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p>{body}</section>"


def _amount(nanousd: float) -> str:
    return np.format_float_positional(nanousd / NANO, 6, fractional=False, trim="-")


def _money(nanousd: float, currency: str) -> str:
    return f"{_amount(nanousd)} {currency}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'


def _summary(menu: Mapping[str, Any], verdict: Verdict) -> str:
    totals, currency = menu["totals"], menu["currency"]
    profit, single = totals["profit_nanousd"], totals["single_plan_profit_nanousd"]
    comparison = (
        f"{100 * (profit / single - 1):+.1f} % against one unlimited plan" if single > 0 else "no single plan earns"
    )
    first_best = totals["first_best_nanousd"]
    cards = [
        ("Profit for each conversation offered", _money(profit, currency), comparison),
        (
            "If callers resume",
            _money(totals["profit_if_resumed_nanousd"], currency),
            "when each does what is best for it",
        ),
        ("Kept by customers", _money(totals["customers_surplus_nanousd"], currency), "their worth less what they pay"),
    ]
    if first_best is not None:
        cards.append(("If every urgency were known", _money(first_best, currency), "the first best: no menu earns it"))
    cards_html = "".join(
        f"<div><h3>{escape(name)}</h3><strong>{escape(value)}</strong><span>{escape(note)}</span></div>"
        for name, value, note in cards
    )
    status = "The certificate holds." if verdict.ok else f"The certificate does not hold: {verdict.violation}"
    kind = "good" if verdict.ok else "bad"
    claim = f"This is {menu['certificate']['claim']}."
    return f'<p class="{kind}">{escape(status)} {escape(claim)}</p><div class="cards">{cards_html}</div>'


def _tiers_table(menu: Mapping[str, Any]) -> str:
    rows = []
    for tier in menu["tiers"]:
        cap, expected = tier["conversation_tokens_max"], tier["expected"]
        rows.append(
            [
                tier["name"],
                "no cap" if cap is None else f"{cap:,}",
                _amount(tier["price_nanousd"]),
                f"{100 * expected['share']:.1f} %",
                f"{100 * expected['p_answer']:.1f} %",
                f"{expected['tokens']:,.0f}",
                _amount(expected["cost_nanousd"]),
                _amount(expected["margin_nanousd"]),
            ]
        )
    head = ["Tier", "Cap, tokens", "Price", "Share", "Chance of an answer", "Tokens served", "Cost", "Margin"]
    return _table(
        [f"{heading}, {menu['currency']}" if heading in ("Price", "Cost", "Margin") else heading for heading in head],
        rows,
    )


def _market(market: Market, menu: Mapping[str, Any]) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in notes_of(market))
    listed = f"<ul>{notes}</ul>" if notes else ""
    return _table(["", "", "Interval"], market_rows(market, menu["currency"])) + listed + fit_charts(market)


def _shifts(market: Market, menu: Mapping[str, Any]) -> str:
    if not menu["tiers"]:
        return "<p>Nothing is sold.</p>"
    try:
        lines = sensitivity(market, menu)
    except NotAMarket as error:
        return f"<p>{escape(str(error))}</p>"
    head = [f"Profit, {menu['currency']}", *(f"{100 * shift:+g} %" for shift in SHIFTS), "Pays down to", "Pays up to"]
    series = [
        Series(
            line.thing, [(100 * shift, profit / NANO) for shift, profit in zip(line.shifts, line.profits, strict=True)]
        )
        for line in lines
    ]
    axis = Axis(f"profit, {menu['currency']}")
    chart = line_chart("Profit by shift", series, Axis("shift, %"), axis)
    return chart + _table(head, break_even_rows(lines, _amount))


def _choice_charts(menu: Mapping[str, Any], valuation: Valuation) -> str:
    by_name = {tier["name"]: tier for tier in menu["tiers"]}
    limits = [cap for tier in menu["tiers"] if (cap := tier["conversation_tokens_max"]) is not None]
    # "No cap" is drawn a little above the largest cap, because the longest answer may be a thousand times as long.
    longest = round(1.25 * max(limits)) if limits else int(valuation.steps.tokens[-1])
    caps, prices = [], []
    for entry in _thinned(menu["assignment"]):
        tier = by_name.get(entry["tier"])
        cap = 0 if tier is None else longest if (tier_cap := tier["conversation_tokens_max"]) is None else tier_cap
        caps.append((entry["urgency_per_s"], float(cap)))
        prices.append((entry["urgency_per_s"], 0.0 if tier is None else tier["price_nanousd"] / NANO))
    urgency = Axis("urgency r, 1/s", logarithmic=caps[0][0] > 0 and caps[-1][0] > 20 * caps[0][0])
    marks = {} if len(limits) == len(menu["tiers"]) else {float(longest): "no cap"}
    cap_chart = line_chart("Cap by urgency", _stepped(caps, urgency), urgency, Axis("cap, tokens", marks=marks))
    price_axis = Axis(f"price, {menu['currency']}")
    return cap_chart + line_chart("Price by urgency", _stepped(prices, urgency), urgency, price_axis)


def _stepped(points: list[Point], axis: Axis) -> list[Series]:
    """Return steps that begin left of the first point, with the types as dots where there are few types."""
    start = points[0][0] / 1.5 if axis.logarithmic else 0.0
    steps = Series("up to this urgency", [(start, points[0][1]), *points], "step")
    return [steps, Series("types", points, "dots")] if len(points) <= TYPES_MARKED else [steps]


def _thinned(entries: Sequence[Any]) -> list[Any]:
    """Return at most ``POINTS_MAX`` of the entries, evenly spread, the first and the last among them."""
    places = np.unique(np.linspace(0, len(entries) - 1, min(len(entries), POINTS_MAX)).round().astype(int))
    return [entries[place] for place in places]


def _excluded(menu: Mapping[str, Any]) -> str:
    share = menu["totals"]["excluded_share"]
    if share == 0:
        return "<p>Every type is served.</p>"
    urgencies = [entry["urgency_per_s"] for entry in menu["assignment"] if entry["tier"] is None]
    return (
        f"<p>{100 * share:.1f} % of conversations are not served: "
        f"those of an urgency from {min(urgencies):.4g} to {max(urgencies):.4g} per second.</p>"
    )


def _profit_chart(menu: Mapping[str, Any], advice: Advice) -> str:
    totals = menu["totals"]
    bars = [("single plan", totals["single_plan_profit_nanousd"] / NANO)]
    bars += [(f"{line.tiers} tier{'s' if line.tiers > 1 else ''}", line.profit / NANO) for line in advice.lines]
    benchmarks = [("full menu", totals["full_menu_profit_nanousd"]), ("first best", totals["first_best_nanousd"])]
    bars += [(name, profit / NANO) for name, profit in benchmarks if profit is not None]
    resumed = [None, *(line.profit_if_resumed / NANO for line in advice.lines), None, None]
    legend = '<ul class="legend"><li><i class="c0"></i>bought once</li><li><i class="c1"></i>if resumed</li></ul>'
    axis = Axis(f"profit, {menu['currency']}")
    return bar_chart("Profit by number of tiers", bars, axis, resumed) + legend


def _advice_table(menu: Mapping[str, Any], advice: Advice) -> str:
    rows = [
        [
            str(line.tiers),
            ", ".join("no cap" if cap is None else f"{cap:,}" for cap in line.caps_tokens),
            _money(line.profit, menu["currency"]),
            f"{100 * (1 - line.profit / advice.full_menu_profit):.2f} %" if advice.full_menu_profit > 0 else "–",
            _money(line.profit_if_resumed, menu["currency"]),
        ]
        for line in advice.lines
    ]
    return _table(["Tiers", "Caps, tokens", "Profit", "Lost against the full menu", "Profit if resumed"], rows)


def _resumption_text(menu: Mapping[str, Any]) -> str:
    gain = menu["totals"]["resume_gain_nanousd"]
    if gain <= 0:
        return "Nobody gains by sending a cut answer back and buying the next piece."
    return (
        f"A caller can send a cut answer back and buy the next piece. With this menu some gain by it, at most "
        f"{_money(gain, menu['currency'])} for each conversation; the last column is what is earned when all do. It can "
        "exceed the bound below, because a caller who buys in pieces pays for the next piece only while still waiting for it."
    )


def _worth_chart(menu: Mapping[str, Any], valuation: Valuation) -> str:
    steps = valuation.steps
    types = np.unique(np.linspace(0, len(valuation.share) - 1, CURVES_MAX).round().astype(int))
    # The curves end where at most 1 % of the answers are still running.
    last = max(1, int(np.searchsorted(-steps.survival, -0.01)))
    series = []
    for row in types.tolist():
        this_type = slice(row, row + 1)
        worth = np.cumsum(valuation.gains(this_type, valuation.left(this_type))[0])[:last] / NANO
        points = [(0.0, 0.0), *zip(steps.tokens[:last].tolist(), worth.tolist(), strict=True)]
        series.append(Series(f"r = {valuation.urgency_per_s[row]:.4g}/s", _thinned(points)))
    end = int(steps.tokens[last - 1])
    dots = [
        (
            float(min(end, end if (cap := tier["conversation_tokens_max"]) is None else cap)),
            tier["price_nanousd"] / NANO,
        )
        for tier in menu["tiers"]
    ]
    if dots:
        series.append(Series("tiers, at their prices", dots, "dots"))
    return line_chart("Worth by cap", series, Axis("cap, tokens"), Axis(f"worth, {menu['currency']}"))


def _slacks_table(menu: Mapping[str, Any], valuation: Valuation) -> str:
    """Return a table with the least loss, for the types of each tier, from taking another tier, or none.

    Its columns are the next smaller tier, the next larger tier, any other tier, and no tier.
    """
    steps, names = valuation.steps, [tier["name"] for tier in menu["tiers"]]
    caps = [tier["conversation_tokens_max"] for tier in menu["tiers"]]
    places = [len(steps.tokens) if cap is None else int(np.searchsorted(steps.tokens, cap, "right")) for cap in caps]
    takes = np.array([names.index(entry["tier"]) if entry["tier"] in names else -1 for entry in menu["assignment"]])
    gains = np.zeros((len(takes), len(names) + 1))
    gains[:, 1:] = worth_at(valuation, np.array(places, dtype=np.int64)) - [
        tier["price_nanousd"] for tier in menu["tiers"]
    ]
    rows = []
    for place, name in enumerate(["not served", *names]):
        takers_gains = gains[takes == place - 1]
        if not len(takers_gains):
            continue
        losses = (takers_gains[:, [place]] - takers_gains).min(axis=0)
        smaller = shown(losses[place - 1]) if place > 1 else "–"
        larger = shown(losses[place + 1]) if place < len(names) else "–"
        others = shown(np.delete(losses, [0, place]).min()) if len(names) > (place > 0) else "–"
        rows.append([name, smaller, larger, others, shown(losses[0]) if place else "–"])
    return _table(["Types that take", "The next smaller tier", "The next larger", "Any other", "Nothing"], rows)


def _certificate_table(menu: Mapping[str, Any], verdict: Verdict) -> str:
    certificate, currency = menu["certificate"], menu["currency"]
    bound, slacks = certificate["bound"], certificate["conditions"]
    before = certificate["profit_before_rounding"]
    envelope, surplus = before["by_envelope_nanousd"], before["by_virtual_surplus_nanousd"]
    full = bound["full_menu_gap_share"]
    rows = [
        ["Verified", "yes" if verdict.ok else str(verdict.violation)],
        [
            "Least loss of a type that takes another tier than its own",
            f"{shown(slacks['own_choice_slack_nanousd'])} nano-units",
        ],
        ["Least that a served type keeps", f"{shown(slacks['participation_slack_nanousd'])} nano-units"],
        ["Numerical error of a worth, at most", f"{slacks['worth_error_nanousd']:.2g} nano-units"],
        ["Profit before rounding, by prices", _money(before["by_prices_nanousd"], currency)],
        ["Profit before rounding, by virtual surplus", "–" if surplus is None else _money(surplus, currency)],
        ["Profit before rounding, by the envelope", "–" if envelope is None else _money(envelope, currency)],
        ["Lost by rounding", f"{shown(certificate['rounding']['loss_nanousd'])} nano-units"],
        ["Tiers merged by rounding", str(certificate["rounding"]["tiers_merged"])],
        ["No mechanism earns more than", _money(bound["upper_bound_nanousd"], currency)],
        ["Gap of this menu", f"{100 * bound['gap_share']:.6f} %"],
        ["Gap of the full menu", "–" if full is None else f"{100 * full:.6f} %"],
    ]
    return _table(["", ""], rows)
