"""Who buys: types with their shares, listed one by one or cut out of a distribution of urgency."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from pricing.market.fields import NotAMarket, mapping, number, numbers, whole

SHARES_WITHIN = 1e-9
"""How far shares may be from summing to one."""

TYPES_MAX = 100_000

Type = tuple[float, float, float]
"""(urgency in 1/s, share, value of an answer in nano-units)."""


def types_of(given: Mapping[str, Any]) -> list[Type]:
    """Return the types of a market from patient to urgent; equal urgencies are one type.

    They are listed in ``types``, or ``urgency`` names a distribution: type k of n is the right end of the k-th of n
    cells of equal probability, so that the types' cumulative shares lie on the distribution itself.

    Raises:
        NotAMarket: neither is given, or one is malformed, or the value rises with urgency.
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


def _listed(given: Mapping[str, Any]) -> list[tuple[float, float, float | None]]:
    listed = given.get("types")
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise NotAMarket("types is a list of at least one {urgency_per_s, share}.")
    types: list[tuple[float, float, float | None]] = []
    for place, one in enumerate(listed):
        if not isinstance(one, Mapping):
            raise NotAMarket(f"types[{place}] is an object {{urgency_per_s, share}}.")
        within = f"types[{place}]."
        value = number(one, "value_nanousd", within=within, above=0.0) if "value_nanousd" in one else None
        urgency = number(one, "urgency_per_s", within=within, least=0.0)
        types.append((urgency, number(one, "share", within=within, above=0.0), value))
    return types


def _merged(listed: list[tuple[float, float, float | None]]) -> list[tuple[float, float, float | None]]:
    shares: dict[float, list[float]] = {}
    values: dict[float, float | None] = {}
    for urgency, share, value in listed:
        if values.setdefault(urgency, value) != value:
            raise NotAMarket(f"Types of the same urgency {urgency:g}/s have different values.")
        shares.setdefault(urgency, []).append(share)
    return [(urgency, math.fsum(shares[urgency]), values[urgency]) for urgency in sorted(shares)]


def _valued(given: Mapping[str, Any], types: list[tuple[float, float, float | None]]) -> list[Type]:
    """Return the types with their values: their own, or from ``value_by_urgency``, or the one of the market."""
    own = [value for _, _, value in types]
    if any(value is not None for value in own):
        if None in own or "value_nanousd" in given or "value_by_urgency" in given:
            raise NotAMarket("value_nanousd is given for every type or once for the market, not both.")
        values = [value for value in own if value is not None]
    elif "value_by_urgency" in given:
        values = _interpolated(mapping(given, "value_by_urgency"), [urgency for urgency, _, _ in types])
    else:
        values = [number(given, "value_nanousd", above=0.0)] * len(types)
    if any(after > before for before, after in pairwise(values)):
        raise NotAMarket(
            "The value rises with urgency: then neither the patient nor the urgent want long conversations more, "
            "and no menu of caps can tell them apart."
        )
    return [(urgency, share, value) for (urgency, share, _), value in zip(types, values, strict=True)]


def _interpolated(given: Mapping[str, Any], urgency: list[float]) -> list[float]:
    """Return values at given urgencies on the straight lines between the points given, flat beyond them."""
    within = "value_by_urgency."
    places = numbers(given, "urgency_per_s", within=within, least=0.0)
    values = numbers(given, "value_nanousd", within=within, above=0.0)
    if len(places) != len(values) or any(after <= before for before, after in pairwise(places)):
        raise NotAMarket("value_by_urgency has urgency_per_s, rising, and as many value_nanousd.")
    return [_line(places, values, one) for one in urgency]


def _line(places: list[float], values: list[float], at: float) -> float:
    above = bisect_right(places, at)
    if above == 0 or above == len(places):
        return values[0 if above == 0 else -1]
    part = (at - places[above - 1]) / (places[above] - places[above - 1])
    return values[above - 1] + part * (values[above] - values[above - 1])


def _distribution(given: Mapping[str, Any]) -> list[tuple[float, float, float | None]]:
    family = given.get("family")
    if family == "uniform":
        low = number(given, "low_per_s", within="urgency.", least=0.0)
        high = number(given, "high_per_s", within="urgency.", above=low)
        return _cut([low, high], [1.0], _points(given))
    if family == "piecewise":
        edges = numbers(given, "edges_per_s", within="urgency.", least=0.0)
        shares = numbers(given, "share", within="urgency.", least=0.0)
        if len(edges) != len(shares) + 1 or any(after <= before for before, after in pairwise(edges)):
            raise NotAMarket("urgency has edges_per_s, rising, and one share for each piece between them.")
        _sum_to_one(shares)
        return _cut(edges, shares, _points(given))
    if family == "empirical":
        return _empirical(given)
    raise NotAMarket("urgency.family is 'uniform', 'piecewise' or 'empirical'.")


def _points(given: Mapping[str, Any]) -> int:
    points = whole(given.get("points"), "urgency.points")
    if points > TYPES_MAX:
        raise NotAMarket(f"urgency.points is at most {TYPES_MAX:,}.")
    return points


def _sum_to_one(shares: list[float]) -> None:
    total = math.fsum(shares)
    if abs(total - 1) > SHARES_WITHIN:
        raise NotAMarket(f"The shares of urgency sum to {total!r}, not to 1.")


def _cut(edges: list[float], shares: list[float], points: int) -> list[tuple[float, float, float | None]]:
    """Return the right ends of equally likely cells of a density that is constant between edges."""
    reached = [0.0, *accumulate(shares)]
    reached = [min(1.0, one / reached[-1]) for one in reached]
    types: list[tuple[float, float, float | None]] = []
    for point in range(1, points + 1):
        level = point / points
        piece = bisect_left(reached, level, 1)
        part = (level - reached[piece - 1]) / (reached[piece] - reached[piece - 1])
        types.append((edges[piece - 1] + part * (edges[piece] - edges[piece - 1]), 1 / points, None))
    return types


def _empirical(given: Mapping[str, Any]) -> list[tuple[float, float, float | None]]:
    """Return observed urgencies with their weights, or the right ends of equally likely cells of them."""
    observed = numbers(given, "observed_per_s", within="urgency.", least=0.0)
    weights = numbers(given, "weight", within="urgency.", above=0.0) if "weight" in given else [1.0] * len(observed)
    if len(weights) != len(observed):
        raise NotAMarket("urgency has as many weight as observed_per_s.")
    total = math.fsum(weights)
    pairs = sorted(zip(observed, weights, strict=True))
    if "points" not in given:
        return [(urgency, weight / total, None) for urgency, weight in pairs]
    points = _points(given)
    reached = [one / total for one in accumulate(weight for _, weight in pairs)]
    last = len(pairs) - 1
    # A cell that ends where an observation does ends there, whatever the last digit of the sums says.
    ends = (min(last, bisect_left(reached, point / points - 1e-12)) for point in range(1, points + 1))
    return [(pairs[end][0], 1 / points, None) for end in ends]
