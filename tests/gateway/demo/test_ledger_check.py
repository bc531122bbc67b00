"""The demo's verdict: the ledger and the model's own count agree to the token, or it says where they do not."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.demo.ledger_check import Comparison, Ledger, compare
from pricing.usage import UsageRecord

COUNT = {"finished": 2, "closed": 1, "live": 0, "prompt_tokens": 30, "completion_tokens": 157}


def record(call: str, finish: str, output_tokens: int, kind: str = "usage") -> UsageRecord:
    return {"id": call, "kind": kind, "finish": finish, "input_tokens": 10, "output_tokens": output_tokens}


def sent(tokens: int) -> dict[str, Any]:
    """Return the model's record of one call."""
    return {"prompt_tokens": 10, "completion_tokens": tokens}


def compared(records: list[UsageRecord], count: dict[str, Any], broken_off: dict[str, Any]) -> Comparison:
    """Return what comes out once all records were noted."""
    ledger = Ledger()
    for each in records:
        ledger.note(each)
    return compare(ledger, count, broken_off)


RECORDS = [record("a", "complete", 100), record("b", "cap", 50), record("c", "disconnect", 5)]


def test_equal_books_agree() -> None:
    """Calls that ended are equal in sum; the one broken off has no more tokens than the model sent."""
    comparison = compared(RECORDS, COUNT, {"c": sent(7)})

    assert comparison.agrees
    assert comparison.cut_short == 1
    assert comparison.lines()[-1] == "Ledger = model, to the token."
    assert str(comparison.ledger) == "2 calls, 20 input tokens, 150 output tokens"


@pytest.mark.parametrize("changed", [{"finished": 3}, {"prompt_tokens": 29}, {"completion_tokens": 158}])
def test_one_call_or_token_more_or_less_is_seen(changed: dict[str, int]) -> None:
    """The smallest difference in calls, input or output makes the books differ."""
    comparison = compared(RECORDS, {**COUNT, **changed}, {"c": sent(7)})

    assert not comparison.agrees
    assert comparison.lines()[-1] == "The books differ."


@pytest.mark.parametrize(("call", "count"), [(sent(4), 154), (None, 150)])
def test_a_broken_off_call_may_not_have_more_than_was_sent(call: dict[str, Any] | None, count: int) -> None:
    """A record with tokens the model never sent, or of a call it never had, is named."""
    known = 0 if call is None else 1
    whole = {**COUNT, "closed": known, "prompt_tokens": 20 + 10 * known, "completion_tokens": count}

    comparison = compared(RECORDS, whole, {"c": call})

    assert comparison.overbilled == ("c",)
    assert not comparison.agrees


def test_only_usage_is_compared() -> None:
    """Fees, credits and corrections are rows of the ledger but no calls of the model."""
    fee = record("d", "complete", 1, kind="fee")
    correction = record("c.1", "disconnect", 1, kind="correction")

    assert compared([*RECORDS, fee, correction], COUNT, {"c": sent(7)}).agrees
