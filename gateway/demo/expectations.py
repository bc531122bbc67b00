"""Whether customers did what the menu expects of them, and how far from it chance alone would take them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from pricing.money import written
from pricing.report.menu_table import columns
from pricing.usage import UsageRecord

Z_MOST = 4.0
"""The standard errors by which a figure may be off."""

COUNT_LEAST = 20
"""Conversations that each tier must be expected to have had before anything is judged: from there on a menu that is
right fails by chance in less than one run of a thousand."""

NAMED = 3
ENDED_BY_ITSELF = "complete"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure as the menu expects it and as the ledger has it.

    ``error`` is the standard error of ``seen`` if the menu is right; 0 where chance has no part in it.
    """

    name: str
    expected: float
    seen: float
    error: float
    shown: Callable[[float], str]

    @property
    def z(self) -> float:
        """How many standard errors ``seen`` is off."""
        if self.seen == self.expected:
            return 0.0
        off = self.seen - self.expected
        return off / self.error if self.error else math.copysign(math.inf, off)

    @property
    def is_off(self) -> bool:
        return abs(self.z) > Z_MOST

    def cells(self) -> list[str]:
        return [
            self.name,
            self.shown(self.expected),
            self.shown(self.seen),
            self.shown(2 * self.error) if self.error else "exact",
            f"{self.z:+.1f}",
        ]


@dataclass(slots=True)
class Conversations:
    """What the ledger has of the simulated customers' conversations, each of which is one call.

    ``prices`` are the tiers' prices of a conversation, ``customers`` the ids of those who take part.
    """

    prices: Mapping[str, int]
    customers: Container[str]
    by_tier: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    charge_nanousd: int = 0
    mischarged: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.by_tier.total()

    def note(self, record: UsageRecord) -> None:
        """Add one row of the ledger."""
        if record["customer"] not in self.customers:
            return
        self.charge_nanousd += record["charge_nanousd"]
        if record["kind"] != "usage":
            return
        tier = record["tier"]
        self.by_tier[tier] += 1
        self.answered[tier] += record["finish"] == ENDED_BY_ITSELF
        price = self.prices.get(tier) if record["billed_output_tokens"] else 0
        if record["charge_nanousd"] != price:
            self.mischarged.append(record["id"])


@dataclass(frozen=True, slots=True)
class Judgement:
    """The comparison of a menu's expectations with what happened."""

    conversations: int
    is_enough: bool
    figures: tuple[Figure, ...]
    mischarged: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing is off further than chance explains; too few conversations are no evidence of anything."""
        return not self.mischarged and not (self.is_enough and any(figure.is_off for figure in self.figures))

    def lines(self) -> list[str]:
        """Return the comparison as a table, and in words how wide it is."""
        if not self.conversations:
            return ["Nobody has talked, so there is nothing to compare with the menu."]
        rows = [["", "expected", "seen", "± 2 s.e.", "z"], *(figure.cells() for figure in self.figures)]
        return [
            f"{self.conversations} conversations in the ledger, and what the menu expects of them:",
            *columns(rows),
            self._charged(),
            self._verdict(),
        ]

    def _charged(self) -> str:
        if not self.mischarged:
            return "Each of them was charged the price of its tier, once."
        return (
            f"{len(self.mischarged)} were not charged their tier's price, first {', '.join(self.mischarged[:NAMED])}."
        )

    def _verdict(self) -> str:
        if not self.is_enough:
            return f"These are too few to judge by: each tier must expect {COUNT_LEAST} conversations."
        off = [figure.name for figure in self.figures if figure.is_off]
        if off:
            return f"Off by more than {Z_MOST:g} standard errors: {', '.join(off)}."
        return (
            f"Nothing is off by more than {Z_MOST:g} standard errors; by chance alone something would be in less than "
            "one run of a thousand."
        )


def judge(menu: Mapping[str, Any], seen: Conversations) -> Judgement:
    """Compare a menu's expected shares, answers within the cap and mean charge with what the ledger has.

    Shares and the mean charge are of conversations that are held at all: types whom no tier suits hold none. Standard
    errors are those of independent conversations with the expected probabilities. A share of answers within the cap
    has that of the tier's conversations that there were.
    """
    tiers, total = menu["tiers"], seen.total
    served = sum(tier["expected"]["share"] for tier in tiers)
    share = {tier["name"]: tier["expected"]["share"] / served for tier in tiers}
    figures: list[Figure] = []
    for name, expected in share.items():
        figures.append(_proportion(f"{name}: share", expected, seen.by_tier[name], total))
    for tier in tiers:
        name, expected = tier["name"], tier["expected"]["p_answer"]
        figures.append(
            _proportion(f"{name}: answers within the cap", expected, seen.answered[name], seen.by_tier[name])
        )
    figures.append(_mean_charge(menu, share, seen))
    return Judgement(
        conversations=total,
        is_enough=min((total * expected for expected in share.values()), default=0.0) >= COUNT_LEAST,
        figures=tuple(figures),
        mischarged=tuple(seen.mischarged),
    )


def _proportion(name: str, expected: float, count: int, total: int) -> Figure:
    seen = count / total if total else expected
    error = math.sqrt(max(0.0, expected * (1 - expected)) / max(total, 1))
    return Figure(name, expected, seen, error, lambda share: f"{share:.1%}")


def _mean_charge(menu: Mapping[str, Any], share: Mapping[str, float], seen: Conversations) -> Figure:
    prices = {tier["name"]: tier["price_nanousd"] for tier in menu["tiers"]}
    expected = sum(share[name] * price for name, price in prices.items())
    variance = sum(share[name] * (price - expected) ** 2 for name, price in prices.items())
    return Figure(
        "mean charge",
        expected,
        seen.charge_nanousd / seen.total if seen.total else expected,
        math.sqrt(variance / max(seen.total, 1)),
        lambda amount: written(round(amount), menu["currency"]),
    )
