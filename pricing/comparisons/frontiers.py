"""The frontier of profit against customers' surplus: the best menu at each weight of surplus, each with its bound."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pricing.charts import Axis, Series, drawing
from pricing.market.market import Market
from pricing.menus.menus import optimal_menu
from pricing.menus.objectives import Further
from pricing.shown import Shown, columns

CREATED = "1970-01-01T00:00:00Z"

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Weights of customers' surplus against profit at which a menu is computed."""


@dataclass(frozen=True, slots=True)
class Place:
    """One menu of the frontier. Amounts are nano-units for each conversation offered.

    Attributes:
        surplus_weight: the weight of a unit of customers' surplus against a unit of profit.
        profit: the operator's profit.
        surplus: customers' surplus.
        aim: profit plus weighted surplus, which the menu maximises.
        bound: upper bound on the aim of any mechanism that is paid at the start.
        tiers: the number of tiers.
        version: the version of the menu, which is optimal for its weight and can be verified alone.
    """

    surplus_weight: float
    profit: float
    surplus: float
    aim: float
    bound: float
    tiers: int
    version: str


@dataclass(frozen=True, slots=True, repr=False)
class Frontier(Shown):
    """The places, from the most profitable menu to the menu with the largest customers' surplus."""

    places: tuple[Place, ...]
    currency: str

    def to_columns(self) -> dict[str, list[Any]]:
        """Return a row for each place."""
        rows = [asdict(place) for place in self.places]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def to_json(self) -> dict[str, Any]:
        """Return the places as plain JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def summary(self) -> str:
        """Return the places as a table in lines of text."""
        head = ["weight of surplus", "profit", "customers keep", "together, weighed", "no more than", "tiers"]
        rows = [
            [
                f"{place.surplus_weight:g}",
                *(f"{amount:,.0f}" for amount in (place.profit, place.surplus, place.aim, place.bound)),
                str(place.tiers),
            ]
            for place in self.places
        ]
        return "\n".join([f"Nano-{self.currency} for each conversation offered:", *columns([head, *rows])])

    def plot(self) -> str:
        """Return profit against what customers keep, as a drawing: SVG text."""
        points = [(place.surplus, place.profit) for place in self.places]
        series = [Series("the best menus", points), Series("one for each weight of surplus", points, "dots")]
        unit = f"nano-{self.currency}"
        return drawing(
            "Profit against what customers keep", series, Axis(f"customers keep, {unit}"), Axis(f"profit, {unit}")
        )


def frontier(market: Market, *, tiers: int | None = None, weights: Sequence[float] = WEIGHTS) -> Frontier:
    """Return the best menus at several weights of customers' surplus, from the smallest weight to the largest.

    Each menu is exact among menus of caps, as ``README.md``, "What else an operator may want", derives, and its own
    multipliers bound its aim among all mechanisms. Between two neighbours, no menu of caps lies above the lines of
    constant aim through them.

    Args:
        market: who buys, and what serving costs.
        tiers: the most tiers; None is the full menu.
        weights: weights of customers' surplus, from 0 to 1.

    Raises:
        NotAMarket, NotAMenu: a menu cannot be computed; the message says why.
    """
    places = []
    for weight in sorted(weights):
        menu = optimal_menu(
            market,
            tiers=tiers,
            bill="conversation",
            names=None,
            created=CREATED,
            further=Further(surplus_weight=weight),
        )
        totals = menu["totals"]
        profit, surplus = totals["profit_nanousd"], totals["customers_surplus_nanousd"]
        places.append(
            Place(
                surplus_weight=weight,
                profit=profit,
                surplus=surplus,
                aim=profit + weight * surplus,
                bound=menu["certificate"]["bound"]["upper_bound_nanousd"],
                tiers=len(menu["tiers"]),
                version=menu["version"],
            )
        )
    return Frontier(tuple(places), market.currency)
