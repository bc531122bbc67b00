"""Read ``market.json``: who buys, what an answer is worth, how long answers are, what serving costs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pricing.market.fields import NotAMarket, is_plain, mapping, number, numbers, whole
from pricing.market.population import types_of

FINISH_WITHIN = 1e-9
"""How far the sum of the probabilities of lengths may be from 1 and still count as 1."""

STEPS_MAX = 1 << 20

SIGMA_MAX = 3.0
"""The largest dispersion of value: of two customers, the first values an answer 1,000 times as much as the second, or
more, with probability 1/20."""

DELAYS = ("exponential", "hyperbolic", "linear", "sunk_linear")


@dataclass(frozen=True, slots=True)
class ExponentialLength:
    """Answers end at each token with the same probability: P(length > n) = e^(-n / mean_tokens)."""

    mean_tokens: float


@dataclass(frozen=True, slots=True)
class TableLength:
    """Answers have one of finitely many lengths; the probability missing from 1 is that of never finishing."""

    tokens: tuple[int, ...]
    probability: tuple[float, ...]


AnswerLength = ExponentialLength | TableLength


@dataclass(frozen=True, slots=True)
class Market:
    """A market as read: types sorted from patient to urgent, equal urgencies merged.

    ``value_sigma`` is the standard deviation of the logarithm of the value between customers of one urgency; their mean
    value is ``value_nanousd``. ``taste_nanousd`` is the scale of extreme-value shocks to the worth of each tier and of
    buying none. ``given`` is the JSON text of the market; the menu contains it, so that the menu can be checked from
    its file alone.
    """

    urgency_per_s: tuple[float, ...]
    share: tuple[float, ...]
    value_nanousd: tuple[float, ...]
    delay: str
    answer_length: AnswerLength
    tokens_per_s: float
    first_token_s: float
    cost_nanousd_per_token: float
    input_cost_nanousd_per_token: float
    cost_stops: bool
    cap_tokens_max: int | None
    currency: str
    given: str
    value_sigma: float = 0.0
    taste_nanousd: float = 0.0


def read_market(given: Mapping[str, Any]) -> Market:
    """Return the market that a ``market.json`` describes.

    Raises:
        NotAMarket: a field is missing, malformed or out of range, or the market has no finite menu.
    """
    if not isinstance(given, Mapping):
        raise NotAMarket("A market is an object.")
    urgency, share, value = zip(*types_of(given), strict=True)
    cost = number(given, "cost_nanousd_per_token", least=0.0)
    length = _answer_length(given)
    disconnect = given.get("cost_on_disconnect", "stops")
    if disconnect not in ("stops", "runs"):
        raise NotAMarket("cost_on_disconnect is 'stops' or 'runs'.")
    currency = given.get("currency")
    if not isinstance(currency, str) or not currency:
        raise NotAMarket("currency is a name such as 'USD'.")
    return Market(
        urgency_per_s=urgency,
        share=share,
        value_nanousd=value,
        delay=_delay(given, value),
        answer_length=length,
        tokens_per_s=number(given, "tokens_per_s", above=0.0),
        first_token_s=number(given, "first_token_s", least=0.0),
        cost_nanousd_per_token=cost,
        input_cost_nanousd_per_token=number(given, "input_cost_nanousd_per_token", least=0.0, missing=0.0),
        cost_stops=disconnect == "stops",
        cap_tokens_max=_cap(given, cost, length),
        currency=currency,
        given=_text(given),
        value_sigma=_sigma(given),
        taste_nanousd=number(given, "taste_nanousd", least=0.0, missing=0.0),
    )


def _sigma(fields: Mapping[str, Any]) -> float:
    sigma = number(fields, "value_sigma", least=0.0, missing=0.0)
    if sigma > SIGMA_MAX:
        raise NotAMarket(f"value_sigma is at most {SIGMA_MAX:g}: the standard deviation of the logarithm of the value.")
    return sigma


def _text(fields: Mapping[str, Any]) -> str:
    try:
        return json.dumps(fields, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NotAMarket("The market holds something that is not JSON.") from error


def _delay(fields: Mapping[str, Any], value: tuple[float, ...]) -> str:
    delay = mapping(fields, "delay").get("family")
    if delay not in DELAYS:
        raise NotAMarket(f"delay.family is one of {', '.join(DELAYS)}.")
    if delay == "sunk_linear" and value[0] != value[-1]:
        raise NotAMarket("With delay.family sunk_linear the value cannot depend on urgency.")
    return str(delay)


def _cap(fields: Mapping[str, Any], cost: float, length: AnswerLength) -> int | None:
    if fields.get("cap_tokens_max") is None:
        if cost > 0:
            raise NotAMarket("cap_tokens_max is required when cost_nanousd_per_token is above 0.")
        if isinstance(length, TableLength) and math.fsum(length.probability) < 1 - FINISH_WITHIN:
            raise NotAMarket("cap_tokens_max is required when some answers never finish.")
        return None
    cap = whole(fields["cap_tokens_max"], "cap_tokens_max")
    if isinstance(length, TableLength) and cap < length.tokens[0]:
        raise NotAMarket("cap_tokens_max is below the shortest answer, so no cap can sell anything.")
    return cap


def _answer_length(fields: Mapping[str, Any]) -> AnswerLength:
    length_fields, within = mapping(fields, "answer_length"), "answer_length."
    family = length_fields.get("family")
    if family == "exponential":
        return ExponentialLength(number(length_fields, "mean_tokens", within=within, above=0.0))
    if family not in ("table", "kaplan_meier"):
        raise NotAMarket("answer_length.family is 'exponential', 'table' or 'kaplan_meier'.")
    column = "probability" if family == "table" else "survival"
    values = numbers(length_fields, column, within=within, least=0.0)
    tokens = tuple(
        int(step)
        if is_plain(step) and step >= 1 and step == int(step)
        else whole(step, f"answer_length.tokens[{place}]")
        for place, step in enumerate(numbers(length_fields, "tokens", within=within))
    )
    if len(tokens) != len(values):
        raise NotAMarket(f"answer_length has tokens and {column}, two lists of the same length.")
    if len(tokens) > STEPS_MAX:
        raise NotAMarket(f"answer_length.tokens has more than {STEPS_MAX:,} entries.")
    if any(after <= before for before, after in pairwise(tokens)):
        raise NotAMarket("answer_length.tokens rise strictly.")
    if family == "table":
        return TableLength(tokens, _chances(values))
    return TableLength(tokens, _chances(_drops(values)))


def _drops(survival: list[float]) -> list[float]:
    """Return the probabilities of a survival curve: its drop at each length."""
    curve = [1.0, *survival]
    if any(after > before for before, after in pairwise(curve)):
        raise NotAMarket("answer_length.survival starts at most at 1 and falls weakly.")
    return [before - after for before, after in pairwise(curve)]


def _chances(probability: list[float]) -> tuple[float, ...]:
    total = math.fsum(probability)
    if total > 1 + FINISH_WITHIN:
        raise NotAMarket(f"The probabilities of answer_length sum to {total!r}, above 1.")
    if total <= 0:
        raise NotAMarket("answer_length gives no answer any probability.")
    return tuple(probability)
