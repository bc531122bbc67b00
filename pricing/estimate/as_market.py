"""An estimate as the ``market.json`` that a menu is made for: its value understated, how it is known beside it."""

from __future__ import annotations

from typing import Any

from pricing.estimate.fit import Estimate
from pricing.market import read_market
from pricing.uncertainty import Understated, understated

DRAWS_KEPT = 20
"""Equally likely markets that are written beside the estimate, for menus to be judged over."""


def priced(estimate: Estimate) -> Understated:
    """Return by how much the value is to be understated, whatever the number of tiers.

    Profit is linear in the distribution of urgency, so the menu that is best on average over what it may be is that
    of its average, which is what the estimate is. What the lengths and the pace leave uncertain is met by understating
    the value: prices a little lower keep those for whom it is only just worth it.
    """
    return understated(read_market(estimate.market), [read_market(one) for one in estimate.averaged])


def market_of(estimate: Estimate, value: Understated) -> dict[str, Any]:
    """Return ``market.json``: the market that a menu is made for, its value understated, and how it is known."""
    leaving, said, told = estimate.leaving, estimate.market["value_nanousd"], estimate.value
    low, high = (said, said) if told is None else (min(said, told.low_nanousd), max(said, told.high_nanousd))
    return estimate.market | {
        "value_nanousd": value.market["value_nanousd"],
        "estimate": {
            "tiers": value.tiers,
            "value_understated_by": value.discount,
            "value": {"nanousd": said, "low": low, "high": high, "known_by": "said", "sigma": 0.0},
            "draws": [_drawn(estimate.market, one) for one in estimate.averaged[:DRAWS_KEPT]],
            "sources": list(estimate.sources),
            "notes": list(estimate.notes),
            "set_aside": dict(estimate.set_aside),
            "unseen_worth_nanousd": estimate.unseen_worth_nanousd,
            "identified_to_tokens": estimate.length.identified_to_tokens,
            "tests": {
                "equal_lengths_p": estimate.length.p_value,
                "constant_rate_p": leaving.hazard_p,
                "steady_rate_p": leaving.dispersion_p,
                "time_outs_s": list(leaving.spikes_s),
            },
        },
    }


def _drawn(market: dict[str, Any], draw: dict[str, Any]) -> dict[str, Any]:
    """Return what a draw has of its own, to six digits: its shares are of the market's types, in their order."""
    shares = {one["urgency_per_s"]: one["share"] for one in draw["types"]}
    return {
        "value_nanousd": draw["value_nanousd"],
        "tokens_per_s": draw["tokens_per_s"],
        "first_token_s": draw["first_token_s"],
        "share": [_short(shares.get(one["urgency_per_s"], 0.0)) for one in market["types"]],
        "survival": [_short(one) for one in draw["answer_length"]["survival"]],
    }


def _short(number: float) -> float:
    return float(f"{number:.6g}")
