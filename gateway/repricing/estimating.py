"""The inputs of an estimate that no record contains, and the summary of its results."""

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
    "customers_holding_most": "customers who hold a third or more of the conversations",
    "customers_outsized": "customers with more than 1,000 times the usual conversations",
    "customers_contradicting": "customers whose choices no one urgency explains",
    "choices_unexplained": "choices of a tier that is best for nobody",
}


def stated_inputs(
    assumed: Market | None,
    value: float | None,
    cost: float | None,
    on_disconnect: str | None,
    *,
    is_estimated: bool = False,
) -> Given:
    """Return the inputs that no record contains: the arguments, or the assumed market's values where they are None.

    Args:
        assumed: a market that was assumed before.
        value: the value of an answer that arrives without a wait.
        cost: the cost of a token.
        on_disconnect: whether the model ``stops`` or ``runs`` after its customer has left.
        is_estimated: whether the value of an answer is to be estimated from choices, whatever was assumed.

    Raises:
        StartupError: the value of an answer is unknown.
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
    on_disconnect_assumed = "stops" if assumed.cost_stops else "runs"
    return Given(
        value_nanousd=None if is_estimated else worth if value is None else value,
        cost_nanousd_per_token=assumed.cost_nanousd_per_token if cost is None else cost,
        currency=assumed.currency,
        input_cost_nanousd_per_token=assumed.input_cost_nanousd_per_token,
        cost_on_disconnect=on_disconnect or on_disconnect_assumed,
        prior=assumed,
    )


def _understated_by(market: Market) -> float:
    """Return the share by which the value in a menu's market is below the estimated value."""
    estimate = json.loads(market.given).get("estimate", {})
    return float(estimate.get("value_understated_by", 0.0)) if isinstance(estimate, dict) else 0.0


def summary(statistics: Statistics, estimate: Estimate) -> list[str]:
    """Return the results of an estimate as lines of text."""
    intervals = estimate.market["intervals"]
    rate, reached = np.array(intervals["urgency"]["urgency_per_s"]), np.array(intervals["urgency"]["cumulative_share"])
    speed, first = intervals["tokens_per_s"], intervals["first_token_s"]
    cells = [["", "estimate", "95 % interval"]]
    cells.append(["tokens a second", f"{estimate.pace.tokens_per_s:.4g}", f"{speed[0]:.4g} to {speed[1]:.4g}"])
    cells.append(["first token after, s", f"{estimate.pace.first_token_s:.3g}", f"{first[0]:.3g} to {first[1]:.3g}"])
    for share in QUANTILES:
        low, middle, high = (
            rate[min(int(np.searchsorted(np.array(curve), share)), len(rate) - 1)]
            for curve in (
                intervals["urgency"]["cumulative_share_high"],
                reached,
                intervals["urgency"]["cumulative_share_low"],
            )
        )
        cells.append([f"urgency that {share:.0%} are below, 1/s", f"{middle:.3g}", f"{low:.3g} to {high:.3g}"])
    conversations, customers = int(statistics.customers.conversations.sum()), len(statistics.customers.conversations)
    lines = [
        f"{conversations:,} conversations of {customers:,} customers; urgency from {', '.join(estimate.sources)}.",
        *columns(cells),
        *estimate.notes,
    ]
    lines += [
        f"Set aside: {count:,} {REASONS.get(reason, reason.replace('_', ' '))}."
        for reason, count in sorted(estimate.set_aside.items())
    ]
    return lines
