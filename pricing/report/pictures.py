"""Pictures of an estimate: urgency and lengths with their bands, and what was taken beside what the estimate predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pricing.charts import Axis, Series, drawing

CURVE_POINTS = 120
"""How many points a curve is drawn by."""

Json = Mapping[str, Any]


def urgency(given: Json) -> str:
    """Return the distribution of urgency of an estimated ``market.json`` with its 95 % band: SVG text."""
    table = given["intervals"]["urgency"]
    rates = [max(rate, 1e-6) for rate in table["urgency_per_s"]]
    names = ("cumulative_share", "cumulative_share_low", "cumulative_share_high")
    series = [Series(name.replace("_", " "), _few(rates, table[name])) for name in names if name in table]
    return drawing("Urgency", series, Axis("urgency r, 1/s", logarithmic=True), Axis("share of conversations"))


def lengths(given: Json) -> str:
    """Return which share of answers is longer than each length, with its 95 % band: SVG text."""
    band, curve = given["intervals"]["answer_length"], given["answer_length"]
    series = [Series("longer", _few(curve["tokens"], curve["survival"]))]
    series += [Series(f"longer, {side}", _few(band["tokens"], band[f"survival_{side}"])) for side in ("low", "high")]
    return drawing("Answers longer than a cap", series, Axis("tokens"), Axis("share of answers"))


def choices(given: Json) -> str:
    """Return the share that took each tier, none of them being 0, beside what the estimate predicts: SVG text.

    Tiers of several menus follow one another.
    """
    taken = given["estimate"]["choices"]
    observed = [share for one in taken for share in one["observed"]]
    predicted = [share for one in taken for share in one["predicted"]]
    tiers = [float(tier) for one in taken for tier in one["tiers"]]
    places = [float(place) for place in range(len(tiers))]
    series = [
        Series("observed", list(zip(places, observed, strict=True)), "dots"),
        Series("predicted", list(zip(places, predicted, strict=True)), "step"),
    ]
    return drawing("What was taken", series, Axis("tier, menu by menu"), Axis("share"))


def _few(across: list[float], up: list[float]) -> list[tuple[float, float]]:
    places = np.unique(np.linspace(0, len(across) - 1, min(len(across), CURVE_POINTS)).round().astype(int)).tolist()
    return [(float(across[place]), float(up[place])) for place in places]
