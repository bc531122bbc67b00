"""The formats that usage can be exported in, by name; a new format is a file beside this file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gateway.errors import BadRequest
from gateway.exports import csv, jsonl
from pricing.usage import UsageRecord


@dataclass(frozen=True, slots=True)
class Format:
    """How records become a file. ``encode`` is pure: the same records always give the same bytes."""

    name: str
    media_type: str
    encode: Callable[[Iterable[UsageRecord]], Iterator[bytes]]


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        known.name: known
        for known in (
            Format("jsonl", "application/jsonl", jsonl.encode),
            Format("csv", "text/csv; charset=utf-8; header=present", csv.encode),
        )
    }
)


def format_named(name: str) -> Format:
    """Return a format by its name.

    Raises:
        BadRequest: there is no format with that name; the message lists the formats.
    """
    try:
        return FORMATS[name]
    except KeyError as error:
        raise BadRequest(
            f"There is no export format {name!r}; there are {', '.join(FORMATS)}.", param="format"
        ) from error
