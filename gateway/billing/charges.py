"""Splits a charge into its parts by the terms: the conversation's price, input, output. Pure; one rounding rule.

Each call is rounded down separately, part by part (``pricing.money.metered``), both where it is charged and here. So
sums over calls are sums of whole nano-units, and no sum is ever rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

from pricing.menus.menu import Tier
from pricing.money import metered


@dataclass(slots=True)
class Parts:
    """The parts of one call's charge, nano-units; they add up to the charge.

    ``rest`` is the part that the terms do not explain, as where the call's tier is no longer known.
    """

    price: int = 0
    input: int = 0
    output: int = 0
    rest: int = 0


def parts_of(charge: int, tokens: int, input_tokens: int, tier: Tier | None) -> Parts:
    """Return the parts of the charge of one call that was billed ``tokens`` and ``input_tokens``.

    The price is part of only one call of a conversation. Where spend is limited, input beyond its hold is not charged,
    so its part may be less than the price of its tokens.
    """
    if charge == 0:
        return Parts()
    if tier is None:
        return Parts(rest=charge)
    output = metered(tokens, tier.output_nanousd_per_mtok or 0)
    most = metered(input_tokens, tier.input_nanousd_per_mtok or 0)
    by_meter = output + most
    if charge == by_meter:
        return Parts(0, most, output)
    if charge == tier.price_nanousd + by_meter:
        return Parts(tier.price_nanousd, most, output)
    for price in (tier.price_nanousd, 0):
        if 0 <= charge - price - output < most:
            return Parts(price, charge - price - output, output)
    return Parts(rest=charge)


def prorated(amount: int, part_ms: int, whole_ms: int) -> int:
    """Return the share of an amount for a part of its time, counted in whole seconds; rounded down, like every rate."""
    return amount * (part_ms // 1000) // (whole_ms // 1000)


def tokens_for(amount: int, nanousd_per_mtok: int) -> int:
    """Return the smallest number of tokens whose charge at a rate reaches an amount."""
    return -(-amount * 1_000_000 // nanousd_per_mtok)
