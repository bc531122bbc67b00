"""Who buys: types with their shares, listed individually or cut out of a distribution of urgency."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from pricing.market.fields import NotAMarket, is_plain, mapping, number, numbers, whole

SHARES_WITHIN = 1e-9
"""How far the sum of shares may be from 1."""

TYPES_MAX = 100_000

Type = tuple[float, float, float]
"""(urgency in 1/s, share, value of an answer in nano-units)."""


def types_of(given: Mapping[str, Any]) -> list[Type]:
    """Return the types of a market from patient to urgent; equal urgencies are one type.

    Either ``types`` lists them, or ``urgency`` names a distribution: type k of n is the right end of the k-th of n
    cells of equal probability, so that the types' cumulative shares lie on the distribution itself.

    Raises:
        NotAMarket: both fields are absent, a field is malformed, or the value rises with urgency.
    """
    if "types" in given and "urgency" in given:
        raise NotAMarket("A market has types or urgency, not both.")
    listed = _distribution(mapping(given, "urgency")) if "urgency" in given else _listed(given)
    if len(listed) > TYPES_MAX:
        raise NotAMarket(f"The market has more than {TYPES_MAX:,} types.")
    total = math.fsum(share for _, share, _ in listed)
    if abs(total - 1) > SHARES_WITHIN:
        raise NotAMarket(f"The shares of types sum to {total!r}, not to 1.")
    return _valued(given, _merged(listed))


def _listed(market_fields: Mapping[str, Any]) -> list[tuple[float, float, float | None]]:
    listed = market_fields.get("types")
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise NotAMarket("types is a list of at least one {urgency_per_s, share}.")
    types: list[tuple[float, float, float | None]] = []
    for place, entry in enumerate(listed):
        if type(entry) is dict and "value_nanousd" not in entry:
            fields: tuple[Any, Any] = entry.get("urgency_per_s"), entry.get("share")
            if all(map(is_plain, fields)):
                types.append((float(fields[0]), float(fields[1]), None))
                continue
        if not isinstance(entry, Mapping):
            raise NotAMarket(f"types[{place}] is an object {{urgency_per_s, share}}.")
        within = f"types[{place}]."
        value = number(entry, "value_nanousd", within=within, above=0.0) if "value_nanousd" in entry else None
        urgency = number(entry, "urgency_per_s", within=within, least=0.0)
        types.append((urgency, number(entry, "share", within=within, above=0.0), value))
    return types


def _merged(listed: list[tuple[float, float, float | None]]) -> list[tuple[float, float, float | None]]:
    shares: dict[float, list[float]] = {}
    values: dict[float, float | None] = {}
    for urgency, share, value in listed:
        if values.setdefault(urgency, value) != value:
            raise NotAMarket(f"Types of the same urgency {urgency:g}/s have different values.")
        shares.setdefault(urgency, []).append(share)
    return [(urgency, math.fsum(shares[urgency]), values[urgency]) for urgency in sorted(shares)]


def _valued(market_fields: Mapping[str, Any], types: list[tuple[float, float, float | None]]) -> list[Type]:
    """Return the types with their values: their own values, those of ``value_by_urgency``, or the market's value."""
    own_values = [value for _, _, value in types]
    if any(value is not None for value in own_values):
        if None in own_values or "value_nanousd" in market_fields or "value_by_urgency" in market_fields:
            raise NotAMarket("value_nanousd is given for every type or once for the market, not both.")
        values = [value for value in own_values if value is not None]
    elif "value_by_urgency" in market_fields:
        values = _interpolated(mapping(market_fields, "value_by_urgency"), [urgency for urgency, _, _ in types])
    else:
        values = [number(market_fields, "value_nanousd", above=0.0)] * len(types)
    if any(after > before for before, after in pairwise(values)):
        raise NotAMarket(
            "The value rises with urgency: then neither the patient nor the urgent want long conversations more, "
            "and no menu of caps can tell them apart."
        )
    return [(urgency, share, value) for (urgency, share, _), value in zip(types, values, strict=True)]


def _interpolated(curve: Mapping[str, Any], urgency: list[float]) -> list[float]:
    """Return the values at some urgencies, on straight lines between the curve's points and flat beyond them."""
    within = "value_by_urgency."
    knots = numbers(curve, "urgency_per_s", within=within, least=0.0)
    values = numbers(curve, "value_nanousd", within=within, above=0.0)
    if len(knots) != len(values) or any(after <= before for before, after in pairwise(knots)):
        raise NotAMarket("value_by_urgency has urgency_per_s, rising, and as many value_nanousd.")
    return [_line(knots, values, rate) for rate in urgency]


def _line(knots: list[float], values: list[float], rate: float) -> float:
    above = bisect_right(knots, rate)
    if above == 0 or above == len(knots):
        return values[0 if above == 0 else -1]
    fraction = (rate - knots[above - 1]) / (knots[above] - knots[above - 1])
    return values[above - 1] + fraction * (values[above] - values[above - 1])


def _distribution(law: Mapping[str, Any]) -> list[tuple[float, float, float | None]]:
    family = law.get("family")
    if family == "uniform":
        low = number(law, "low_per_s", within="urgency.", least=0.0)
        high = number(law, "high_per_s", within="urgency.", above=low)
        return _cut([low, high], [1.0], _points(law))
    if family == "piecewise":
        edges = numbers(law, "edges_per_s", within="urgency.", least=0.0)
        shares = numbers(law, "share", within="urgency.", least=0.0)
        if len(edges) != len(shares) + 1 or any(after <= before for before, after in pairwise(edges)):
            raise NotAMarket("urgency has edges_per_s, rising, and one share for each piece between them.")
        _sum_to_one(shares)
        return _cut(edges, shares, _points(law))
    if family == "empirical":
        return _empirical(law)
    raise NotAMarket("urgency.family is 'uniform', 'piecewise' or 'empirical'.")


def _points(law: Mapping[str, Any]) -> int:
    points = whole(law.get("points"), "urgency.points")
    if points > TYPES_MAX:
        raise NotAMarket(f"urgency.points is at most {TYPES_MAX:,}.")
    return points


def _sum_to_one(shares: list[float]) -> None:
    total = math.fsum(shares)
    if abs(total - 1) > SHARES_WITHIN:
        raise NotAMarket(f"The shares of urgency sum to {total!r}, not to 1.")


def _cut(edges: list[float], shares: list[float], points: int) -> list[tuple[float, float, float | None]]:
    """Return the right ends of equally likely cells of a density that is constant between edges."""
    cumulative = [0.0, *accumulate(shares)]
    cumulative = [min(1.0, mass / cumulative[-1]) for mass in cumulative]
    types: list[tuple[float, float, float | None]] = []
    for point in range(1, points + 1):
        quantile = point / points
        piece = bisect_left(cumulative, quantile, 1)
        fraction = (quantile - cumulative[piece - 1]) / (cumulative[piece] - cumulative[piece - 1])
        types.append((edges[piece - 1] + fraction * (edges[piece] - edges[piece - 1]), 1 / points, None))
    return types


def _empirical(law: Mapping[str, Any]) -> list[tuple[float, float, float | None]]:
    """Return observed urgencies with their weights, or the right ends of equally likely cells of their distribution."""
    observed = numbers(law, "observed_per_s", within="urgency.", least=0.0)
    weights = numbers(law, "weight", within="urgency.", above=0.0) if "weight" in law else [1.0] * len(observed)
    if len(weights) != len(observed):
        raise NotAMarket("urgency has as many weight as observed_per_s.")
    total = math.fsum(weights)
    pairs = sorted(zip(observed, weights, strict=True))
    if "points" not in law:
        return [(urgency, weight / total, None) for urgency, weight in pairs]
    points = _points(law)
    cumulative = [mass / total for mass in accumulate(weight for _, weight in pairs)]
    last = len(pairs) - 1
    # A cell that ends exactly at an observation must end there however the sums are rounded.
    ends = (min(last, bisect_left(cumulative, point / points - 1e-12)) for point in range(1, points + 1))
    return [(pairs[end][0], 1 / points, None) for end in ends]
