"""The library for economists: markets, fits and menus, each with a summary, a table, a plot and its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pricing.certificate import Verdict, verify
from pricing.charts import Axis, Series, drawing
from pricing.comparisons.frontiers import WEIGHTS, Frontier
from pricing.comparisons.frontiers import frontier as places_of
from pricing.comparisons.models import Model
from pricing.comparisons.models import compare_models as compared_models
from pricing.comparisons.sensitivity import Line
from pricing.comparisons.sensitivity import sensitivity as shifted
from pricing.estimate.as_market import market_of, priced
from pricing.estimate.fit import Estimate
from pricing.estimate.fit import fit as estimated_of
from pricing.estimate.given import Given
from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.records import seen_in_records
from pricing.market.fields import NotAMarket
from pricing.market.market import read_market
from pricing.market.neighbourhood import Neighbourhood
from pricing.market.worth import valuation_of, worth_at
from pricing.menus.menu import Menu as Sold
from pricing.menus.menu import NotAMenu
from pricing.menus.menus import optimal_menu as computed_menu
from pricing.menus.objectives import Further
from pricing.report import pictures
from pricing.report.menu_table import held_lines
from pricing.report.report import report
from pricing.shown import Shown, columns, length_of, types_of

__all__ = [
    "CannotEstimate",
    "Fit",
    "Frontier",
    "Market",
    "Menu",
    "NotAMarket",
    "NotAMenu",
    "compare_models",
    "fit",
    "frontier",
    "optimal_menu",
]

CREATED = "1970-01-01T00:00:00Z"
"""The creation time of a menu for which the caller states none, because the library reads no clock."""

DOTS_MOST = 40
"""The most types that a plot marks individually."""


class Market(Shown):
    """Who buys, what an answer is worth, how long answers are, what serving costs.

    ``pricing.Market(types=[(0.01, 0.3), (0.05, 0.4), (0.15, 0.3)], mean_tokens=400, tokens_per_s=50)``
    """

    def __init__(
        self,
        *,
        types: Sequence[tuple[float, float]] | None = None,
        mean_tokens: float | None = None,
        lengths: Mapping[int, float] | None = None,
        tokens_per_s: float,
        value_nanousd: float = 1_000_000_000,
        first_token_s: float = 0.0,
        cost_nanousd_per_token: float = 0.0,
        delay: str = "exponential",
        currency: str = "USD",
        **further: Any,
    ) -> None:
        """Create a market; amounts are in billionths of the currency.

        Args:
            types: urgency r per second and share of conversations of each type; with exponential delay, an answer that
                comes after t seconds is worth value · e^(-r t). ``urgency`` in ``further`` may replace ``types``.
            mean_tokens: mean length of answers that end at each token with the same probability; or
            lengths: the probability of each length, by its number of tokens.
            tokens_per_s: speed of generation.
            value_nanousd: worth of an answer that comes at once.
            first_token_s: time to the first token, less the time of one token.
            cost_nanousd_per_token: cost of serving a token; above 0 it requires ``cap_tokens_max`` in ``further``.
            delay: ``exponential``, ``hyperbolic``, ``linear`` or ``sunk_linear``.
            currency: currency of all amounts.
            further: any other field of ``market.json``.

        Raises:
            NotAMarket: the market cannot be priced; the message says why.
        """
        if (mean_tokens is None) == (lengths is None) and "answer_length" not in further:
            raise NotAMarket("Answers have either mean_tokens or lengths.")
        fields: dict[str, Any] = {
            "value_nanousd": value_nanousd,
            "delay": {"family": delay},
            "tokens_per_s": tokens_per_s,
            "first_token_s": first_token_s,
            "cost_nanousd_per_token": cost_nanousd_per_token,
            "currency": currency,
        }
        fields |= types_of(types) | length_of(mean_tokens, lengths) | further
        self._market = read_market(fields)

    @classmethod
    def from_json(cls, given: Mapping[str, Any] | str) -> Market:
        """Return the market of a ``market.json``, as text or as an object.

        Raises:
            NotAMarket: the input is not a market.
        """
        market = cls.__new__(cls)
        market._market = read_market(json.loads(given) if isinstance(given, str) else given)
        return market

    def to_json(self) -> dict[str, Any]:
        """Return the market as ``market.json``."""
        parsed: dict[str, Any] = json.loads(self._market.given)
        return parsed

    def to_columns(self) -> dict[str, list[Any]]:
        """Return a row for each type: urgency per second, share of conversations, worth of an immediate answer."""
        market = self._market
        return {
            "urgency_per_s": list(market.urgency_per_s),
            "share": list(market.share),
            "value_nanousd": list(market.value_nanousd),
        }

    def summary(self) -> str:
        """Return the market in a few lines."""
        valuation = valuation_of(self._market)
        steps = valuation.steps
        mean = float(np.dot(steps.survival, steps.size))
        finished = float(steps.probability.sum())
        return "\n".join(
            [
                f"A market of {len(valuation.share)} types, urgency {valuation.urgency_per_s[0]:.4g} to "
                f"{valuation.urgency_per_s[-1]:.4g} per second, {self._market.delay} delay.",
                f"Answers take {mean:,.0f} tokens on average at {steps.tokens_per_s:g} a second; {finished:.1%} end.",
                f"A token costs {valuation.cost_per_token:g} nano-{self._market.currency} to serve.",
            ]
        )

    def plot(self) -> str:
        """Return worth by cap for some types, as a drawing: SVG text."""
        valuation = valuation_of(self._market)
        last = len(valuation.steps.tokens)
        caps = np.unique(np.linspace(1, last, min(last, pictures.CURVE_POINTS)).round().astype(np.int64))
        worth = worth_at(valuation, caps)
        rows = np.unique(np.linspace(0, len(worth) - 1, min(len(worth), 5)).round().astype(int))
        tokens = valuation.steps.tokens[caps - 1].tolist()
        series = [
            Series(f"r = {valuation.urgency_per_s[row]:.4g}/s", list(zip(tokens, worth[row].tolist(), strict=True)))
            for row in rows
        ]
        return drawing("Worth of a capped conversation", series, Axis("cap, tokens"), Axis("nano-units"))


class Menu(Shown):
    """A computed menu with its certificate."""

    def __init__(self, given: Mapping[str, Any] | str) -> None:
        """Return the menu of a ``menu.json``, as text or as an object.

        Raises:
            NotAMenu: the input is not a menu.
        """
        self._given: dict[str, Any] = dict(json.loads(given) if isinstance(given, str) else given)
        Sold.from_json(self._given)

    @property
    def profit(self) -> float:
        """Return the profit of a conversation offered, nano-units."""
        return float(self._given["totals"]["profit_nanousd"])

    @property
    def market(self) -> Market:
        """Return the market that the menu was computed for."""
        return Market.from_json(self._given["market"])

    def to_json(self) -> dict[str, Any]:
        """Return the menu as ``menu.json``: what a gateway publishes."""
        copied: dict[str, Any] = json.loads(json.dumps(self._given))
        return copied

    def to_columns(self) -> dict[str, list[Any]]:
        """Return a row for each tier, the smallest first.

        Its columns are name, cap (None for no cap), price, the share of conversations that takes the tier, tokens
        served, the chance of an answer within the cap, and margin.
        """
        tiers = self._given["tiers"]
        return {
            "tier": [tier["name"] for tier in tiers],
            "cap_tokens": [tier["conversation_tokens_max"] for tier in tiers],
            "price_nanousd": [tier["price_nanousd"] for tier in tiers],
            **{
                name: [tier["expected"][name] for tier in tiers]
                for name in ("share", "tokens", "p_answer", "margin_nanousd")
            },
        }

    def summary(self) -> str:
        """Return the tiers, the menu's profit with the profit of a single plan and the bound, and the claim."""
        totals, certificate = self._given["totals"], self._given["certificate"]
        table = self.to_columns()
        rows = [list(map(_text, row)) for row in zip(*table.values(), strict=True)]
        bound = certificate["bound"]
        lines = [
            f"Menu {self._given['version']}, {certificate['claim']}:",
            *columns([list(table), *rows]),
            f"Profit of a conversation offered: {totals['profit_nanousd']:,.0f} nano-{self._given['currency']}; "
            f"best single plan {totals['single_plan_profit_nanousd']:,.0f}, no more than "
            f"{bound['upper_bound_nanousd']:,.0f} (gap {bound['gap_share']:.2%}).",
        ]
        lines += held_lines(certificate)
        if totals["resume_gain_nanousd"] > 0:
            lines.append(f"If cut answers are sent back and bought on: {totals['profit_if_resumed_nanousd']:,.0f}.")
        return "\n".join(lines)

    def plot(self) -> str:
        """Return the cap that each type takes, as a drawing: SVG text."""
        caps = {tier["name"]: tier["conversation_tokens_max"] for tier in self._given["tiers"]}
        longest = valuation_of(read_market(self._given["market"])).steps.tokens[-1]
        points = [
            (entry["urgency_per_s"], float(0 if entry["tier"] is None else caps[entry["tier"]] or longest))
            for entry in self._given["assignment"]
        ]
        series = [Series("cap taken", points, "step")]
        if len(points) <= DOTS_MOST:
            series.append(Series("types", points, "dots"))
        return drawing("Caps by urgency", series, Axis("urgency r, 1/s"), Axis("cap, tokens"))

    def verify(self) -> Verdict:
        """Return whether every figure is right, checked from the menu alone."""
        return verify(self._given)

    def sensitivity(self) -> list[Line]:
        """Return the menu's profit where value, cost, pace, length or urgency differ from the market's."""
        return shifted(read_market(self._given["market"]), self._given)

    def report(self) -> str:
        """Return the complete report: one page of HTML that loads nothing."""
        return report(read_market(self._given["market"]), self._given)


class Fit(Shown):
    """A market estimated from usage records, with its intervals and notes."""

    def __init__(self, estimate: Estimate) -> None:
        self.estimate = estimate
        self._given = market_of(estimate, priced(estimate))

    @property
    def market(self) -> Market:
        """Return the market that menus are made for, its value understated by the share that is best over the draws."""
        return Market.from_json(self._given)

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as ``market.json``, with intervals and draws."""
        copied: dict[str, Any] = json.loads(json.dumps(self._given))
        return copied

    def to_columns(self) -> dict[str, list[Any]]:
        """Return a row for each grid point of urgency: cumulative share of conversations with its 95 % band."""
        urgency = self._given["intervals"]["urgency"]
        names = ("urgency_per_s", "cumulative_share", "cumulative_share_low", "cumulative_share_high")
        return {name: list(urgency[name]) for name in names}

    def summary(self) -> str:
        """Return the sources, the figures and all notes of the estimate."""
        pace, fields = self.estimate.pace, self._given["estimate"]
        lines = [
            f"Urgency from {', '.join(self.estimate.sources)}.",
            f"{pace.tokens_per_s:.4g} tokens a second, the first after {pace.first_token_s:.3g} s.",
            f"The estimate bears {fields['tiers'] or 'as many as there are types'} tiers; value understated by "
            f"{fields['value_understated_by']:.1%}.",
        ]
        return "\n".join([*lines, *self.estimate.notes])

    def plot(self, of: str = "urgency") -> str:
        """Return ``urgency`` or ``lengths`` with its 95 % band, or ``choices`` observed and predicted: SVG text."""
        if of == "choices" and not self.estimate.choices:
            raise ValueError("Nobody was seen to choose a tier.")
        svg: str = {"urgency": pictures.urgency, "lengths": pictures.lengths, "choices": pictures.choices}[of](
            self._given
        )
        return svg


def fit(
    records: Iterable[Mapping[str, Any]],
    menus: Iterable[Mapping[str, Any]],
    *,
    value_nanousd: float | None = None,
    cost_nanousd_per_token: float = 0.0,
    currency: str | None = None,
    own_tiers: bool = False,
    lengths_may_differ: bool = False,
    without_holders: bool = False,
    draws: int = 60,
    seed: int = 0,
) -> Fit:
    """Return the market estimated from usage records, in one call.

    Args:
        records: usage records, roughly in the order of their time.
        menus: the menus that the records name, each a ``menu.json``.
        value_nanousd: worth of an answer that comes at once; None to estimate it from the tiers that customers took.
        cost_nanousd_per_token: cost of serving a token.
        currency: currency of all amounts; None for the currency of the records.
        own_tiers: whether customers chose the tier of their account themselves.
        lengths_may_differ: whether to continue where lengths depend on tier or urgency; the menu then has one tier.
        without_holders: whether to leave out the few customers who hold a third or more of the conversations.
        draws: how many equally likely markets to draw.
        seed: seed of the random numbers.

    Raises:
        CannotEstimate: the records are too few or contradict themselves; the message says how.
    """
    parsed = [Sold.from_json(dict(menu)) for menu in menus]
    observed = seen_in_records(records, {menu.version: menu for menu in parsed}, own_tiers=own_tiers)
    inputs = Given(
        value_nanousd,
        cost_nanousd_per_token,
        currency=currency,
        lengths_may_differ=lengths_may_differ,
        without_holders=without_holders,
    )
    return Fit(estimated_of(observed, inputs, draws=draws, random=np.random.default_rng(seed)))


def optimal_menu(
    market: Market | Fit,
    *,
    tiers: int | None = None,
    robust: bool | None = None,
    near: Neighbourhood | None = None,
    objective: str = "profit",
    created: str = CREATED,
    **further: Any,
) -> Menu:
    """Return the best menu of a market; by default a fit's menu is robust and has as many tiers as the fit supports.

    Args:
        market: a known market, or a fit.
        tiers: the most tiers; None is the full menu, or for a fit, as many as the fit supports.
        robust: whether to maximise the average over the market and markets near it; None means yes for a fit with
            objective ``profit`` and no ``further`` objective.
        near: how near these markets are.
        objective: ``profit`` or ``profit_if_resumed``.
        created: creation time, RFC 3339.
        further: ``surplus_weight``, ``everyone``, ``terms``, ``worse_off``: see ``pricing.menus.objectives.Further``.

    Raises:
        NotAMarket, NotAMenu: the menu cannot be computed; the message says why.
    """
    market_fields = market.to_json()
    is_robust = isinstance(market, Fit) and objective == "profit" and not further if robust is None else robust
    requested = Further(robust=(near or Neighbourhood()) if is_robust else None, **further)
    tiers_max = tiers if tiers is not None else market_fields.get("estimate", {}).get("tiers")
    computed = computed_menu(
        read_market(market_fields),
        tiers=tiers_max,
        bill="conversation",
        names=None,
        created=created,
        objective=objective,
        further=requested,
    )
    return Menu(computed)


def frontier(market: Market | Fit, *, tiers: int | None = None, weights: Sequence[float] = WEIGHTS) -> Frontier:
    """Return the best menus, from the most profitable to the one with the largest customers' surplus, with a plot."""
    return places_of(read_market(market.to_json()), tiers=tiers, weights=weights)


def compare_models(markets: Mapping[str, Market | Fit], *, tiers: int | None = None) -> list[Model]:
    """Return the profit of each model's best menu, the best model first.

    Raises:
        NotAMarket: there are fewer than two markets, or they differ in currency.
    """
    return compared_models({name: read_market(market.to_json()) for name, market in markets.items()}, tiers=tiers)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:,.0f}" if value > 10 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
