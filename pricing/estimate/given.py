"""The operator's inputs, which no record contains: worth, costs, currency, and tolerated departures from the model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.statistics import Statistics
from pricing.market.fields import LEAST
from pricing.market.market import Market
from pricing.money import MOST

CURRENCY = "USD"
"""The currency where neither the records nor the operator state one."""


@dataclass(frozen=True, slots=True)
class Given:
    """The operator's inputs, which no record contains.

    Attributes:
        value_nanousd: worth of an answer that comes at once, v; None to estimate it from the tiers taken.
        cost_nanousd_per_token: cost of serving a token, c.
        currency: currency of all money; None for the currency of the records.
        input_cost_nanousd_per_token: cost of a token of the prompt.
        cost_on_disconnect: ``stops`` or ``runs``.
        lengths_may_differ: whether customers may differ in length by tier or urgency; the menu then has one tier.
        without_holders: whether the few customers who hold a third or more of the conversations are set aside.
        prior: an assumed market, which supplies the types that every menu in force excluded.
    """

    value_nanousd: float | None
    cost_nanousd_per_token: float
    currency: str | None = None
    input_cost_nanousd_per_token: float = 0.0
    cost_on_disconnect: str = "stops"
    lengths_may_differ: bool = False
    without_holders: bool = False
    prior: Market | None = None

    def __post_init__(self) -> None:
        """Refuse an impossible worth or cost."""
        for name, amount, least in (
            ("The value of an answer", self.value_nanousd, LEAST),
            ("The cost of a token", self.cost_nanousd_per_token, 0.0),
            ("The cost of an input token", self.input_cost_nanousd_per_token, 0.0),
        ):
            if amount is not None and not least <= amount <= MOST:
                raise CannotEstimate(
                    f"{name} is {'a number above' if least else 'at least'} 0 and at most {MOST}, not {amount:g}."
                )

    def in_currency_of(self, seen: Statistics) -> Given:
        """Return the inputs with their currency: the stated one, else that of the records, else ``CURRENCY``.

        Raises:
            CannotEstimate: the operator stated another currency.
        """
        if None not in (self.currency, seen.currency) and self.currency != seen.currency:
            raise CannotEstimate(f"Worth and costs are in {self.currency}, the records in {seen.currency}.")
        return replace(self, currency=self.currency or seen.currency or CURRENCY)
