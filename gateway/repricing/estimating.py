"""What an estimate is made with and comes to: what the operator says, the market as a file, a summary in sentences."""

from __future__ import annotations

import json

import numpy as np

from gateway.errors import StartupError
from pricing.estimate.fit import Estimate
from pricing.estimate.given import Given
from pricing.estimate.observations.statistics import Statistics
from pricing.market.market import Market
from pricing.report.menu_table import columns

QUANTILES = (0.1, 0.5, 0.9)

REASONS = {
    "customers_impossible": "customers with impossible sums",
    "customers_like_programs": "customers all of whose answers are of one length, as programs' are",
    "customers_holding_most": "customers who hold most of the conversations",
    "customers_outsized": "customers with more than 1,000 times the usual conversations",
    "customers_contradicting": "customers whose choices no one urgency explains",
    "choices_unexplained": "choices of a tier that is best for nobody",
}


def given_of(
    assumed: Market | None,
    value: float | None,
    cost: float | None,
    on_disconnect: str | None,
    *,
    is_estimated: bool = False,
) -> Given:
    """Return what no record tells: what is said, else what a market that was assumed before says.

    Args:
        assumed: that market.
        value: worth of an answer at once.
        cost: of a token.
        on_disconnect: what a model does whose customer has left.
        is_estimated: whether choices are to tell the value, whatever was assumed.

    Raises:
        StartupError: nobody says what an answer is worth.
    """
    if assumed is None:
        if value is None and not is_estimated:
            raise StartupError(
                "Nobody says what an answer is worth: say it with --value-nanousd, give a --market, or have it told by "
                "the tiers that customers took, with --estimate-value.",
                exit_code=2,
            )
        return Given(value, cost or 0.0, cost_on_disconnect=on_disconnect or "stops")
    worth = float(np.dot(assumed.share, assumed.value_nanousd)) / (1 - _understated_by(assumed))
    stands = "stops" if assumed.cost_stops else "runs"
    return Given(
        value_nanousd=None if is_estimated else worth if value is None else value,
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
