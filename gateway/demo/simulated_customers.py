"""The demo's customers: how urgent each is, how often each calls, and which tier each takes from a menu."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.errors import StartupError
from gateway.simulator.model_server import Law
from pricing.market.market import ExponentialLength, Market
from pricing.menus.menu import Tier

CUSTOMERS = 20
EVERY_S = 20.0
"""The mean time from one conversation of a customer to its next."""


@dataclass(frozen=True, slots=True)
class Person:
    """A simulated customer. An answer that is complete after t seconds is worth value·e^(-urgency·t) to it.

    Seconds are the model's own: a demo that runs twenty times as fast has twenty of them in one real second. A customer
    in a hurry values late answers less. Unless ``hangs_up``, it reads every answer that it has paid for to the end.
    """

    name: str
    urgency_per_s: float
    value_nanousd: float
    conversations_per_s: float
    is_streaming: bool
    chooses_each_time: bool
    """Names its tier with every conversation, instead of once for its account."""
    hangs_up: bool = False
    """Leaves an answer at the rate of its urgency, as the estimators assume that customers do."""

    def worth(self, cap_tokens: int | None, law: Law) -> float:
        """Return the worth of a conversation with this cap before it starts, in nano-units.

        The sum over n up to the cap of value·e^(-urgency·t(n))·f(n) with t(n) = first_token_s + n/tokens_per_s and
        f(n) = b^(n-1)·(1-b), b = e^(-1/mean_tokens): a geometric series.
        """
        b = math.exp(-1 / law.mean_tokens)
        delay = math.exp(-self.urgency_per_s / law.tokens_per_s)
        unfinished = 0.0 if cap_tokens is None else (b * delay) ** cap_tokens
        at_once = self.value_nanousd * math.exp(-self.urgency_per_s * law.first_token_s)
        return at_once * (1 - b) * delay * (1 - unfinished) / (1 - b * delay)

    def choose(self, tiers: Iterable[Tier], law: Law) -> Tier | None:
        """Return the tier that leaves the most of a conversation's worth after its price; None where each costs more.

        Of two tiers that are equally good it takes the tier with the larger cap.
        """

        def rest(tier: Tier) -> tuple[float, float]:
            cap = tier.conversation_tokens_max
            return self.worth(cap, law) - tier.price_nanousd, math.inf if cap is None else cap

        best = max(tiers, key=rest, default=None)
        return None if best is None or rest(best)[0] < 0 else best


def people_of(
    market: Market, customers: int = CUSTOMERS, *, every_s: float = EVERY_S, hang_up: bool = False
) -> tuple[Person, ...]:
    """Return about ``customers`` people, at least one of each type, who together talk in the market's shares.

    Args:
        market: the market whose types they are.
        customers: about how many people.
        every_s: the mean time from one conversation of a customer to its next.
        hang_up: whether they leave when their patience ends.
    """
    people: list[Person] = []
    for urgency, share, value in zip(market.urgency_per_s, market.share, market.value_nanousd, strict=True):
        count = max(1, round(share * customers))
        people += [
            Person(
                name=f"urgency {urgency:g}/s, no. {number}",
                urgency_per_s=urgency,
                value_nanousd=value,
                conversations_per_s=share * customers / every_s / count,
                is_streaming=hang_up or number % 2 == 1,
                chooses_each_time=number % 3 == 0,
                hangs_up=hang_up,
            )
            for number in range(1, count + 1)
        ]
    return tuple(people)


def visitor_of(market: Market) -> Person:
    """Return the visitor at the terminal: it has a key, starts no conversations, and has the average urgency."""
    urgency = sum(rate * share for rate, share in zip(market.urgency_per_s, market.share, strict=True))
    return Person("you", urgency, market.value_nanousd[0], 0.0, is_streaming=False, chooses_each_time=False)


def law_of(market: Market) -> Law:
    """Return the law of a model that answers as the market describes.

    Raises:
        StartupError: its answers are not exponential, or their worth does not fall exponentially.
    """
    length = market.answer_length
    if not isinstance(length, ExponentialLength) or market.delay != "exponential":
        raise StartupError("The demo's customers know markets with exponential lengths and delays only.", exit_code=2)
    return Law(tokens_per_s=market.tokens_per_s, mean_tokens=length.mean_tokens, first_token_s=market.first_token_s)
