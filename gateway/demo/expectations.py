"""Compares what customers did with what the menu expects of them, within the range that chance explains."""

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
"""How many standard errors a figure may be off."""

COUNT_LEAST = 20
"""The conversations that each tier must be expected to have before anything is judged: from there on a correct menu
fails by chance in less than one run of a thousand."""

NAMED = 3
ENDED_BY_ITSELF = "complete"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as the menu expects it and as the ledger has it.

    ``error`` is the standard error of ``observed`` if the menu is correct; 0 where the figure is not random.
    """

    name: str
    expected: float
    observed: float
    error: float
    shown: Callable[[float], str]

    @property
    def z(self) -> float:
        """How many standard errors ``observed`` is off."""
        if self.observed == self.expected:
            return 0.0
        off = self.observed - self.expected
        return off / self.error if self.error else math.copysign(math.inf, off)

    @property
    def is_off(self) -> bool:
        return abs(self.z) > Z_MOST

    def cells(self) -> list[str]:
        return [
            self.name,
            self.shown(self.expected),
            self.shown(self.observed),
            self.shown(2 * self.error) if self.error else "exact",
            f"{self.z:+.1f}",
        ]


@dataclass(slots=True)
class Conversations:
    """The sums in the ledger over the simulated customers' conversations, each of which is one call.

    ``prices`` are the tiers' prices of a conversation, ``customers`` the ids of the simulated customers.
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
        """Add a row of the ledger."""
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
    """The comparison of a menu's expectations with the ledger."""

    conversations: int
    is_enough: bool
    figures: tuple[Figure, ...]
    mischarged: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether no figure is off further than chance explains; too few conversations are no evidence."""
        return not self.mischarged and not (self.is_enough and any(figure.is_off for figure in self.figures))

    def lines(self) -> list[str]:
        """Return the comparison as a table, and the verdict in words."""
        if not self.conversations:
            return ["Nobody has talked, so there is nothing to compare with the menu."]
        rows = [["", "expected", "observed", "± 2 s.e.", "z"], *(figure.cells() for figure in self.figures)]
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


def judge(menu: Mapping[str, Any], observed: Conversations) -> Judgement:
    """Compare a menu's expected shares, answers within the cap and mean charge with the ledger.

    Shares and the mean charge refer to conversations that take place: types that no tier suits start none. Standard
    errors are those of independent conversations with the expected probabilities. The error of a share of answers
    within the cap is computed from the tier's actual number of conversations.
    """
    tiers, total = menu["tiers"], observed.total
    served = sum(tier["expected"]["share"] for tier in tiers)
    share = {tier["name"]: tier["expected"]["share"] / served for tier in tiers}
    figures: list[Figure] = []
    for name, expected in share.items():
        figures.append(_proportion(f"{name}: share", expected, observed.by_tier[name], total))
    for tier in tiers:
        name, expected = tier["name"], tier["expected"]["p_answer"]
        figures.append(
            _proportion(f"{name}: answers within the cap", expected, observed.answered[name], observed.by_tier[name])
        )
    figures.append(_mean_charge(menu, share, observed))
    return Judgement(
        conversations=total,
        is_enough=min((total * expected for expected in share.values()), default=0.0) >= COUNT_LEAST,
        figures=tuple(figures),
        mischarged=tuple(observed.mischarged),
    )


def _proportion(name: str, expected: float, count: int, total: int) -> Figure:
    observed = count / total if total else expected
    error = math.sqrt(max(0.0, expected * (1 - expected)) / max(total, 1))
    return Figure(name, expected, observed, error, lambda share: f"{share:.1%}")


def _mean_charge(menu: Mapping[str, Any], share: Mapping[str, float], observed: Conversations) -> Figure:
    prices = {tier["name"]: tier["price_nanousd"] for tier in menu["tiers"]}
    expected = sum(share[name] * price for name, price in prices.items())
    variance = sum(share[name] * (price - expected) ** 2 for name, price in prices.items())
    return Figure(
        "mean charge",
        expected,
        observed.charge_nanousd / observed.total if observed.total else expected,
        math.sqrt(variance / max(observed.total, 1)),
        lambda amount: written(round(amount), menu["currency"]),
    )
