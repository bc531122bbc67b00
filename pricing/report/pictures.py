"""Pictures of an estimate: urgency and lengths with their bands, and the observed and predicted choices of tiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pricing.charts import Axis, Series, drawing

CURVE_POINTS = 120
"""The most points of a drawn curve."""

Json = Mapping[str, Any]


def urgency(given: Json) -> str:
    """Return the distribution of urgency of an estimated ``market.json`` with its 95 % band: SVG text."""
    bands = given["intervals"]["urgency"]
    rates = [max(rate, 1e-6) for rate in bands["urgency_per_s"]]
    names = ("cumulative_share", "cumulative_share_low", "cumulative_share_high")
    series = [Series(name.replace("_", " "), _few(rates, bands[name])) for name in names if name in bands]
    return drawing("Urgency", series, Axis("urgency r, 1/s", logarithmic=True), Axis("share of conversations"))


def lengths(given: Json) -> str:
    """Return the share of answers that are longer than each length, with its 95 % band: SVG text."""
    band, curve = given["intervals"]["answer_length"], given["answer_length"]
    series = [Series("longer", _few(curve["tokens"], curve["survival"]))]
    series += [Series(f"longer, {side}", _few(band["tokens"], band[f"survival_{side}"])) for side in ("low", "high")]
    return drawing("Answers longer than a cap", series, Axis("tokens"), Axis("share of answers"))


def choices(given: Json) -> str:
    """Return the observed and the predicted share of each tier, where 0 is no tier: SVG text.

    The tiers of several menus follow one another.
    """
    choices_by_menu = given["estimate"]["choices"]
    observed = [share for menu in choices_by_menu for share in menu["observed"]]
    predicted = [share for menu in choices_by_menu for share in menu["predicted"]]
    tiers = [float(tier) for menu in choices_by_menu for tier in menu["tiers"]]
    places = [float(place) for place in range(len(tiers))]
    series = [
        Series("observed", list(zip(places, observed, strict=True)), "dots"),
        Series("predicted", list(zip(places, predicted, strict=True)), "step"),
    ]
    return drawing("What was taken", series, Axis("tier, menu by menu"), Axis("share"))


def _few(x_values: list[float], y_values: list[float]) -> list[tuple[float, float]]:
    places = np.unique(np.linspace(0, len(x_values) - 1, min(len(x_values), CURVE_POINTS)).round().astype(int)).tolist()
    return [(float(x_values[place]), float(y_values[place])) for place in places]
