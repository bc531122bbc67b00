"""The display of a running demo: the use of each tier so far, as a few lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pricing.money import written
from pricing.report.menu_table import columns


@dataclass(slots=True)
class Row:
    """The sums of one tier's customers, as they observed them; ``held_tokens`` are held now, as the gateway reports."""

    customers: int = 0
    calls: int = 0
    capped: int = 0
    left: int = 0
    tokens: int = 0
    charge_nanousd: int = 0
    held_tokens: int = 0
    refusals: Counter[str] = field(default_factory=Counter)


class Board:
    """Collects events of the demo; :meth:`lines` shows them."""

    def __init__(self, tiers: Iterable[str], currency: str) -> None:
        self._rows = {tier: Row() for tier in tiers}
        self._currency = currency

    def row(self, tier: str) -> Row:
        return self._rows[tier]

    @property
    def held_tokens(self) -> int:
        return sum(row.held_tokens for row in self._rows.values())

    def lines(self) -> list[str]:
        """Return a table with a line for each tier, a line for all, and a line for refusals where there were any."""
        cells = [["tier", "customers", "calls", "at cap", "tokens", "held", "charged"]]
        cells += [self._cells(tier, row) for tier, row in self._rows.items()]
        cells.append(self._cells("all", self._total()))
        return [*columns(cells), *self._refused()]

    def short(self) -> str:
        """Return the sums in one line."""
        total = self._total()
        shares = ", ".join(f"{tier} {row.calls}" for tier, row in self._rows.items())
        return "; ".join(
            [
                f"{total.calls} calls ({shares})",
                f"{total.tokens} tokens",
                f"{total.capped} at their cap",
                *[f"{total.left} hung up"] * bool(total.left),
                f"{total.held_tokens} held",
                f"{written(total.charge_nanousd, self._currency)} charged",
                *self._refused(),
            ]
        )

    def _cells(self, name: str, row: Row) -> list[str]:
        counts = (row.customers, row.calls, row.capped, row.tokens, row.held_tokens)
        return [name, *map(str, counts), written(row.charge_nanousd, self._currency)]

    def _total(self) -> Row:
        rows = self._rows.values()
        return Row(
            customers=sum(row.customers for row in rows),
            calls=sum(row.calls for row in rows),
            capped=sum(row.capped for row in rows),
            left=sum(row.left for row in rows),
            tokens=sum(row.tokens for row in rows),
            charge_nanousd=sum(row.charge_nanousd for row in rows),
            held_tokens=self.held_tokens,
        )

    def _refused(self) -> list[str]:
        refusals = sum((row.refusals for row in self._rows.values()), Counter[str]())
        return [f"refused: {', '.join(f'{code} {count}' for code, count in sorted(refusals.items()))}"] * bool(refusals)
