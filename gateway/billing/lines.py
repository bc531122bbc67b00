"""The lines of an invoice, from one pass over the records that count in it. Pure; memory grows with the lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gateway.billing.charges import parts_of, tokens_for
from pricing.menus.menu import Tier

KINDS = ("subscription", "conversations", "input", "cached_input", "output", "reasoning", "fee", "correction", "credit")
"""The kinds of lines, in the order in which an invoice has them."""

UNITS: Mapping[str, str] = {
    "subscription": "period",
    "conversations": "conversation",
    "input": "tokens",
    "output": "tokens",
    "fee": "fee",
    "correction": "correction",
    "credit": "credit",
}
"""The unit of each kind of line. The price of tokens is per million."""

PART = "part of a period"
"""The unit of a subscription's line whose charge is not the price of a whole period."""

TermsOf = Callable[[str | None, str | None], Tier | None]
"""Returns the tier with a menu version and a name, or None where the tier is not known."""


@dataclass(slots=True)
class Line:
    """One line: a quantity of one kind at one price, and the records that make it up."""

    kind: str
    tier: str | None
    menu_version: str | None
    quantity: int
    unit: str
    unit_nanousd: int | None
    amount_nanousd: int
    records: int
    first_record: str
    last_record: str


class Lines:
    """Adds records up to lines. The lines add up to the charges of all records, to the nano-unit."""

    def __init__(self, terms_of: TermsOf) -> None:
        self._terms_of = terms_of
        self._lines: dict[tuple[str, str | None, str | None, int | None], Line] = {}
        self.total_nanousd = 0
        self.records = 0
        self.first_seq: int | None = None
        self.last_seq: int | None = None

    def add(
        self,
        record_id: str,
        kind: str,
        seq: int,
        tier: str | None,
        menu_version: str | None,
        charge: int,
        tokens: int,
        input_tokens: int,
        is_included: bool | None,
    ) -> None:
        """Add one record; records come oldest first. Prepaid credit charges nothing and is in no line."""
        self.records += 1
        self.total_nanousd += charge
        self.first_seq = seq if self.first_seq is None or seq < self.first_seq else self.first_seq
        self.last_seq = seq if self.last_seq is None or seq > self.last_seq else self.last_seq
        where = tier, menu_version
        if kind == "usage":
            self._add_call(record_id, where, charge, tokens, input_tokens, is_included=bool(is_included))
        elif kind == "correction":
            self._put("correction", where, None, 1, charge, record_id)
        elif kind == "fee":
            self._put("fee" if tier is None else "subscription", where, charge, 1, charge, record_id)
            terms = self._terms_of(menu_version, tier)
            if terms is not None and charge != terms.period_price_nanousd:
                self._lines["subscription", *where, charge].unit = PART
        elif kind == "credit":
            self._put("credit", where, charge, 1, charge, record_id)

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines in the order in which an invoice has them."""
        return [asdict(line) for _, line in sorted(self._lines.items(), key=_order)]

    def _add_call(
        self,
        record_id: str,
        where: tuple[str | None, str | None],
        charge: int,
        tokens: int,
        input_tokens: int,
        *,
        is_included: bool,
    ) -> None:
        if is_included:
            self._put("conversations", where, 0, 1, 0, record_id)
        if charge == 0:
            return
        terms = self._terms_of(where[1], where[0])
        parts = parts_of(charge, tokens, input_tokens, terms)
        if parts.rest or terms is None:
            self._put("correction", where, None, 1, charge, record_id)
            return
        if parts.price:
            self._put("conversations", where, parts.price, 1, parts.price, record_id)
        if parts.input:
            rate = terms.input_nanousd_per_mtok or 0
            self._put("input", where, rate, tokens_charged(parts.input, input_tokens, rate), parts.input, record_id)
        if parts.output:
            self._put("output", where, terms.output_nanousd_per_mtok, tokens, parts.output, record_id)

    def _put(
        self,
        kind: str,
        where: tuple[str | None, str | None],
        unit_nanousd: int | None,
        quantity: int,
        amount: int,
        record_id: str,
    ) -> None:
        key = (kind, *where, unit_nanousd)
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = Line(kind, *where, quantity, UNITS[kind], unit_nanousd, amount, 1, record_id, record_id)
            return
        line.quantity += quantity
        line.amount_nanousd += amount
        line.records += 1
        line.last_record = record_id


def tokens_charged(amount: int, tokens: int, rate: int) -> int:
    """Return how many of a call's input tokens an amount pays for: all, unless a spend limit left some uncharged."""
    return tokens if tokens * rate // 1_000_000 == amount else tokens_for(amount, rate)


def _order(item: tuple[tuple[str, str | None, str | None, int | None], Line]) -> tuple[Any, ...]:
    (kind, tier, menu_version, unit_nanousd), _ = item
    return KINDS.index(kind), tier or "", menu_version or "", unit_nanousd or 0
