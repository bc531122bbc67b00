"""Read the ``estimate`` of an estimated market: number of tiers, interval of the value, joint draws and notes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pricing.market.fields import NotAMarket, mapping, number, numbers, whole
from pricing.market.market import Market, read_market

KNOWN_BY = ("said", "assumed", "estimated")


@dataclass(frozen=True, slots=True)
class Value:
    """What an immediate answer is worth, as far as it is known.

    Attributes:
        nanousd: the value with which the market was estimated, before it is understated.
        low, high: its 95 % interval; equal to ``nanousd`` where the value was stated and no choice informs it.
        known_by: ``said`` by the operator, ``assumed`` from an earlier market, or ``estimated`` from choices.
        sigma: standard deviation of the logarithm of the value between customers, 0 where all have the same value.
    """

    nanousd: float
    low: float
    high: float
    known_by: str
    sigma: float


@dataclass(frozen=True, slots=True)
class Estimated:
    """The field ``estimate`` of a ``market.json``.

    Attributes:
        tiers: how many tiers earn the most on average over the draws; None is the full menu.
        understated_by: the share by which the market's value lies below ``Value.nanousd``.
        value: what an answer is worth, None in files of earlier versions.
        draws: equally likely markets, each with its own value, lengths, pace and distribution of urgency.
        notes: sentences that say which quantities are not identified, which records were not used, and why.
    """

    tiers: int | None
    understated_by: float
    value: Value | None
    draws: tuple[Market, ...]
    notes: tuple[str, ...]


def estimated(market: Market) -> Estimated | None:
    """Return the field ``estimate`` of an estimated market, None for a market that was not estimated.

    Raises:
        NotAMarket: a field of ``estimate`` is malformed.
    """
    market_fields = json.loads(market.given)
    if "estimate" not in market_fields:
        return None
    fields = mapping(market_fields, "estimate")
    notes = fields.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise NotAMarket("estimate.notes is a list of sentences.")
    tiers = fields.get("tiers")
    draws = fields.get("draws", [])
    if not isinstance(draws, list) or not all(isinstance(draw, Mapping) for draw in draws):
        raise NotAMarket("estimate.draws is a list of objects.")
    understated_by = number(fields, "value_understated_by", within="estimate.", missing=0.0, least=0.0)
    if understated_by >= 1:
        raise NotAMarket("estimate.value_understated_by is below 1.")
    return Estimated(
        tiers=None if tiers is None else whole(tiers, "estimate.tiers"),
        understated_by=understated_by,
        value=_value(fields),
        draws=tuple(_drawn(market_fields, draw, f"estimate.draws[{place}].") for place, draw in enumerate(draws)),
        notes=tuple(notes),
    )


def _value(fields: Mapping[str, Any]) -> Value | None:
    if "value" not in fields:
        return None
    value, within = mapping(fields, "value"), "estimate.value."
    if value.get("known_by") not in KNOWN_BY:
        raise NotAMarket(f"estimate.value.known_by is one of {', '.join(KNOWN_BY)}.")
    low, nanousd, high = (number(value, name, within=within, above=0.0) for name in ("low", "nanousd", "high"))
    if not low <= nanousd <= high:
        raise NotAMarket("estimate.value.nanousd lies from low to high.")
    sigma = number(value, "sigma", within=within, missing=0.0, least=0.0)
    return Value(nanousd, low, high, str(value["known_by"]), sigma)


def _drawn(market_fields: Mapping[str, Any], draw: Mapping[str, Any], within: str) -> Market:
    """Return a draw as a market: the file's market with the draw's value, lengths, pace and shares."""
    types, length = market_fields.get("types"), mapping(market_fields, "answer_length")
    if not isinstance(types, list) or length.get("family") != "kaplan_meier":
        raise NotAMarket("estimate.draws stand beside types and an answer_length of the family kaplan_meier.")
    shares = numbers(draw, "share", within=within, least=0.0)
    survival = numbers(draw, "survival", within=within, least=0.0)
    if len(shares) != len(types) or len(survival) != len(length.get("tokens", ())):
        raise NotAMarket(f"{within}share has an entry for each type and {within}survival one for each length.")
    total = sum(shares)
    if total <= 0:
        raise NotAMarket(f"{within}share has something above 0.")
    common_fields = {name: field for name, field in market_fields.items() if name not in ("estimate", "intervals")}
    return read_market(
        common_fields
        | {"types": [entry | {"share": share / total} for entry, share in zip(types, shares, strict=True) if share > 0]}
        | {"answer_length": {"family": "kaplan_meier", "tokens": length["tokens"], "survival": survival}}
        | {name: number(draw, name, within=within) for name in ("value_nanousd", "tokens_per_s", "first_token_s")}
    )
