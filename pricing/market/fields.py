"""Read one field of a market: a number in range, or one sentence that names the field and says what it must be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pricing.money import MOST

LEAST = 1e-100
"""Below this size a number counts as 0, so that no product or quotient of a few numbers leaves the range of doubles."""


PLAIN = (float, int)
"""The types of numbers; a bool is an int only by inheritance."""


class NotAMarket(ValueError):
    """The input is not a market; the message is one sentence that says what is wrong."""


def mapping(given: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Return a field that is an object.

    Raises:
        NotAMarket: the field is not an object.
    """
    value = given.get(field)
    if not isinstance(value, Mapping):
        raise NotAMarket(f"{field} is an object.")
    return value


def number(
    given: Mapping[str, Any], field: str, *, within: str = "", missing: float | None = None, **range_: float
) -> float:
    """Return a field that is a finite number, at least ``least`` or above ``above``; ``missing`` if the field is absent.

    Raises:
        NotAMarket: the field is not such a number.
    """
    if field not in given and missing is not None:
        return missing
    return checked(given.get(field), within + field, **range_)


def checked(value: Any, field: str, *, least: float | None = None, above: float | None = None) -> float:
    """Return a value that is a finite number in range.

    Raises:
        NotAMarket: the value is not such a number.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST
    normalized = (0.0 if abs(value) < LEAST else float(value)) if is_number else math.nan
    if (above is not None and normalized > above) or (
        above is None and normalized >= (-math.inf if least is None else least)
    ):
        return normalized
    if above is not None:
        in_range = f" above {above or (LEAST if is_number and value > 0 else 0):g}"
    else:
        in_range = f" of at least {least:g}" if least is not None else ""
    most = f" and at most {MOST}" if isinstance(value, int | float) and abs(value) > MOST else ""
    raise NotAMarket(f"{field} is a finite number{in_range}{most}, not {shown(value)}.")


def numbers(given: Mapping[str, Any], field: str, *, within: str = "", **range_: float) -> list[float]:
    """Return a field that is a list of at least one finite number in range.

    Raises:
        NotAMarket: the field is not such a list.
    """
    values = given.get(field)
    if not isinstance(values, list) or not values:
        raise NotAMarket(f"{within}{field} is a list of at least one number.")
    any_positive = max(range_.values(), default=0.0) <= 0
    return [
        float(value) if any_positive and is_plain(value) else checked(value, f"{within}{field}[{place}]", **range_)
        for place, value in enumerate(values)
    ]


def is_plain(value: Any) -> bool:
    """Return whether a value is a float or int in the range that nearly all values have, which needs no closer check.

    An estimated market has thousands of numbers, and a menu is tried in a hundred such markets.
    """
    return type(value) in PLAIN and LEAST <= value <= MOST


def whole(value: Any, field: str) -> int:
    """Return a value that is a whole number from 1.

    Raises:
        NotAMarket: the value is not such a number.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 1 <= value <= MOST and value == int(value):
        return int(value)
    raise NotAMarket(f"{field} is a whole number from 1 to {MOST}, not {shown(value)}.")


def shown(value: Any) -> str:
    """Return a value as an error message shows it, at most 40 characters long."""
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
