"""Writes an estimate as the ``market.json`` that a menu is made for, with its value understated, and with its evidence."""

from __future__ import annotations

from typing import Any

from pricing.estimate.fit import Estimate
from pricing.market.market import read_market
from pricing.mechanism.uncertainty import FINE_DISCOUNTS, TIERS, Understated, understated

WIDE_DISCOUNTS = (0.25, 0.3, 0.34, 0.38, 0.42, 0.46, 0.5, 0.55, 0.6, 0.7, 0.8)
"""Further discounts for a value that choices leave open."""

DRAWS_KEPT = 20
"""The number of equally likely markets written with the estimate, over which menus are judged."""


def priced(estimate: Estimate) -> Understated:
    """Return the market with the best discount of its value, and the best number of tiers.

    Profit is linear in the distribution of urgency, so the menu that is best on average over the possible distributions
    is the menu of their average, and the estimate is that average. Understating the value allows for uncertain lengths
    and pace: slightly lower prices keep the customers to whom a tier is worth only just its price.
    """
    averaged = [read_market(draw) for draw in estimate.averaged]
    tiers: tuple[int | None, ...] = (1,) if estimate.lengths_differ else TIERS
    return understated(read_market(estimate.market), averaged, tiers=tiers, discounts=discounts_of(estimate))


def discounts_of(estimate: Estimate) -> tuple[float, ...]:
    """Return the discounts to try; they lower an estimated value to at most a fifth below the low end of its interval."""
    if estimate.value is None or estimate.value_known_by == "said":
        return FINE_DISCOUNTS
    least = 1 - 0.8 * estimate.value.low_nanousd / estimate.market["value_nanousd"]
    return (*FINE_DISCOUNTS, *(discount for discount in WIDE_DISCOUNTS if discount <= least))


def market_of(estimate: Estimate, value: Understated) -> dict[str, Any]:
    """Return ``market.json``: the market that a menu is made for, its value understated, with the field ``estimate``."""
    leaving, value_nanousd, by_choices = estimate.leaving, estimate.market["value_nanousd"], estimate.value
    low, high = (
        (value_nanousd, value_nanousd)
        if by_choices is None
        else (min(value_nanousd, by_choices.low_nanousd), max(value_nanousd, by_choices.high_nanousd))
    )
    return estimate.market | {
        "value_nanousd": value.market["value_nanousd"],
        "estimate": {
            "tiers": value.tiers,
            "value_understated_by": value.discount,
            "value": {
                "nanousd": value_nanousd,
                "low": low,
                "high": high,
                "known_by": estimate.value_known_by,
                "sigma": 0.0,
            },
            "draws": [_drawn(estimate.market, draw) for draw in estimate.averaged[:DRAWS_KEPT]],
            "sources": list(estimate.sources),
            "notes": list(estimate.notes),
            "set_aside": dict(estimate.set_aside),
            "choices": list(estimate.choices),
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
    """Return the fields in which a draw differs from the market, shares and survival to six digits.

    The shares are those of the market's types, in their order.
    """
    shares = {entry["urgency_per_s"]: entry["share"] for entry in draw["types"]}
    return {
        "value_nanousd": draw["value_nanousd"],
        "tokens_per_s": draw["tokens_per_s"],
        "first_token_s": draw["first_token_s"],
        "share": [_short(shares.get(entry["urgency_per_s"], 0.0)) for entry in market["types"]],
        "survival": [_short(entry) for entry in draw["answer_length"]["survival"]],
    }


def _short(number: float) -> float:
    return float(f"{number:.6g}")
