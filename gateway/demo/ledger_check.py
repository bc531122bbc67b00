"""Checks that the ledger agrees with the simulated model: the same calls, and the same tokens to the token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pricing.usage import UsageRecord

CUT_SHORT = frozenset({"disconnect", "upstream_error", "shutdown", "recovered"})
"""Endings in which tokens are lost between model and gateway: the model sent them, but they were not received."""


@dataclass(frozen=True, slots=True)
class Totals:
    """The calls and tokens of one side."""

    calls: int
    input_tokens: int
    output_tokens: int

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def __sub__(self, other: Totals) -> Totals:
        return Totals(
            self.calls - other.calls,
            self.input_tokens - other.input_tokens,
            self.output_tokens - other.output_tokens,
        )

    def __str__(self) -> str:
        return f"{self.calls} calls, {self.input_tokens} input tokens, {self.output_tokens} output tokens"


@dataclass(slots=True)
class Ledger:
    """The ledger's calls: one sum of the calls that ran to their end, and a list of those that were broken off."""

    whole: Totals = Totals(0, 0, 0)
    cut_short: list[UsageRecord] = field(default_factory=list)

    def note(self, record: UsageRecord) -> None:
        """Add a row; fees, credits and corrections are rows of the ledger but no calls of the model."""
        if record["kind"] != "usage":
            return
        if record["finish"] in CUT_SHORT:
            self.cut_short.append(record)
        else:
            self.whole += Totals(1, record["input_tokens"], record["output_tokens"])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides' calls that ran to their end, and the calls that were broken off, each bounded separately."""

    ledger: Totals
    model: Totals
    cut_short: int
    overbilled: tuple[str, ...]
    """Broken-off calls with more tokens in the ledger than the model sent (0 if the model does not know the call)."""

    @property
    def agrees(self) -> bool:
        return self.ledger == self.model and not self.overbilled

    def lines(self) -> list[str]:
        """Return the comparison in words."""
        sentences = [f"ledger  {self.ledger}", f"model   {self.model}"]
        if self.cut_short:
            sentences.append(
                f"{self.cut_short} more calls were broken off; each has at most the tokens that the model sent."
            )
        sentences += [f"{call} has more tokens in the ledger than the model sent." for call in self.overbilled]
        return [*sentences, "Ledger = model, to the token." if self.agrees else "The books differ."]


def compare(ledger: Ledger, count: Mapping[str, Any], broken_off: Mapping[str, Mapping[str, Any] | None]) -> Comparison:
    """Compare the ledger with the simulated model's own count.

    Args:
        ledger: its calls since the model was started.
        count: the model's totals.
        broken_off: for each call that was cut short the model's own record of it, None where the model has none.
    """
    known = [call for call in broken_off.values() if call is not None]
    everything = Totals(
        count["finished"] + count["closed"] + count["live"], count["prompt_tokens"], count["completion_tokens"]
    )
    return Comparison(
        ledger=ledger.whole,
        model=everything - Totals(len(known), _sum(known, "prompt_tokens"), _sum(known, "completion_tokens")),
        cut_short=len(ledger.cut_short),
        overbilled=tuple(record["id"] for record in ledger.cut_short if _exceeds(record, broken_off[record["id"]])),
    )


def _sum(calls: Iterable[Mapping[str, Any]], name: str) -> int:
    return sum(call[name] for call in calls)


def _exceeds(record: UsageRecord, call: Mapping[str, Any] | None) -> bool:
    sent = 0 if call is None else call["completion_tokens"]
    return bool(record["output_tokens"] > sent)
