"""What an estimate is made with and comes to: what the operator says, the market as a file, a summary in sentences."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from gateway.errors import StartupError
from gateway.local.columns import columns
from pricing.estimate.fit import Estimate, Given
from pricing.estimate.statistics import Statistics
from pricing.market import Market, read_market
from pricing.uncertainty import Understated, understated

QUANTILES = (0.1, 0.5, 0.9)

DRAWS_KEPT = 20
"""Equally likely markets that are written beside the estimate, for menus to be judged over."""

REASONS = {
    "customers_impossible": "customers with impossible sums",
    "customers_outsized": "customers with more than 1,000 times the usual conversations",
    "customers_contradicting": "customers whose choices no one urgency explains",
    "choices_unexplained": "choices of a tier that is best for nobody",
}


def given_of(assumed: Market | None, value: float | None, cost: float | None, on_disconnect: str | None) -> Given:
    """Return what no record tells: what is said, else what a market that was assumed before says.

    Raises:
        StartupError: nobody says what an answer is worth.
    """
    if assumed is None:
        if value is None:
            raise StartupError(
                "No record tells what an answer is worth: say it with --value-nanousd, or give a --market.", exit_code=2
            )
        return Given(value, cost or 0.0, cost_on_disconnect=on_disconnect or "stops")
    worth = float(np.dot(assumed.share, assumed.value_nanousd)) / (1 - _understated_by(assumed))
    stands = "stops" if assumed.cost_stops else "runs"
    return Given(
        value_nanousd=worth if value is None else value,
        cost_nanousd_per_token=assumed.cost_nanousd_per_token if cost is None else cost,
        currency=assumed.currency,
        input_cost_nanousd_per_token=assumed.input_cost_nanousd_per_token,
        cost_on_disconnect=on_disconnect or stands,
        prior=assumed,
    )


def _understated_by(market: Market) -> float:
    """Return by how much the value of a market that a menu was made from is below what it was taken to be."""
    beside = json.loads(market.given).get("estimate", {})
    return float(beside.get("value_understated_by", 0.0)) if isinstance(beside, dict) else 0.0


def priced(estimate: Estimate) -> Understated:
    """Return by how much the value is to be understated, whatever the number of tiers.

    Profit is linear in the distribution of urgency, so the menu that is best on average over what it may be is that
    of its average, which is what the estimate is. What the lengths and the pace leave uncertain is met by understating
    the value: prices a little lower keep those for whom it is only just worth it.
    """
    return understated(read_market(estimate.market), [read_market(one) for one in estimate.averaged])


def market_of(estimate: Estimate, value: Understated) -> dict[str, Any]:
    """Return ``market.json``: the market that a menu is made for, its value understated, and how it is known."""
    leaving, said = estimate.leaving, estimate.market["value_nanousd"]
    return estimate.market | {
        "value_nanousd": value.market["value_nanousd"],
        "estimate": {
            "tiers": value.tiers,
            "value_understated_by": value.discount,
            "value": {"nanousd": said, "low": said, "high": said, "known_by": "said", "sigma": 0.0},
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


def summary(seen: Statistics, estimate: Estimate) -> list[str]:
    """Return what was found, in lines."""
    beside = estimate.market["intervals"]
    rate, reached = np.array(beside["urgency"]["urgency_per_s"]), np.array(beside["urgency"]["cumulative_share"])
    speed, first = beside["tokens_per_s"], beside["first_token_s"]
    cells = [["", "estimate", "95 % interval"]]
    cells.append(["tokens a second", f"{estimate.pace.tokens_per_s:.4g}", f"{speed[0]:.4g} to {speed[1]:.4g}"])
    cells.append(["first token after, s", f"{estimate.pace.first_token_s:.3g}", f"{first[0]:.3g} to {first[1]:.3g}"])
    for share in QUANTILES:
        low, middle, high = (
            rate[min(int(np.searchsorted(np.array(curve), share)), len(rate) - 1)]
            for curve in (
                beside["urgency"]["cumulative_share_high"],
                reached,
                beside["urgency"]["cumulative_share_low"],
            )
        )
        cells.append([f"urgency that {share:.0%} are below, 1/s", f"{middle:.3g}", f"{low:.3g} to {high:.3g}"])
    conversations, customers = int(seen.customers.conversations.sum()), len(seen.customers.conversations)
    said = [
        f"{conversations:,} conversations of {customers:,} customers; urgency from {', '.join(estimate.sources)}.",
        *columns(cells),
        *estimate.notes,
    ]
    said += [
        f"Set aside: {count:,} {REASONS.get(reason, reason.replace('_', ' '))}."
        for reason, count in sorted(estimate.set_aside.items())
    ]
    return said
