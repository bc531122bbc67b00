"""Money is a whole number of nano-units of the installation's one currency."""

from __future__ import annotations

NANO = 10**9
"""Nano-units in one unit of currency: $1 is 1,000,000,000."""

MOST = 2**53 - 1
"""The largest amount or count accepted anywhere; up to it, whole numbers are exact in doubles, so in Lua and JSON too."""


def metered(tokens: int, nanousd_per_mtok: int) -> int:
    """Return the charge for ``tokens`` at a rate per million tokens.

    Args:
        tokens: a count, at least 0.
        nanousd_per_mtok: the rate in nano-units per million tokens, at least 0.

    Returns:
        Nano-units, rounded down; every rate is rounded by this rule.
    """
    return tokens * nanousd_per_mtok // 1_000_000


def metered_bound(tokens: int, nanousd_per_mtok: int) -> int:
    """Return an amount that no charge for up to ``tokens`` exceeds, in nano-units: tokens times rate, rounded up."""
    return -(-tokens * nanousd_per_mtok // 1_000_000)


def affordable(nanousd: int, nanousd_per_mtok: int) -> int:
    """Return the most tokens whose ``metered_bound`` fits into an amount.

    Args:
        nanousd: the amount in nano-units; a negative amount buys nothing.
        nanousd_per_mtok: the rate in nano-units per million tokens, above 0.
    """
    return max(nanousd, 0) * 1_000_000 // nanousd_per_mtok


def written(nanousd: int, currency: str) -> str:
    """Return an amount in decimal units of currency, exact to the nano-unit: ``0.0012 USD``."""
    sign = "-" if nanousd < 0 else ""
    units, rest = divmod(abs(nanousd), NANO)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{units}.{decimals} {currency}"
