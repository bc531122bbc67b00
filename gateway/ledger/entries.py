"""From an entry of a usage stream to the usage record it carries, or to the reason why it carries none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import String

from gateway.ledger.tables import usage_records
from pricing.money import MOST
from pricing.usage import FIELDS, KINDS, WHOLE_FIELDS, UsageRecord

ADDED = frozenset({"charge_nanousd", "settled", "chain", "seq", "prev_hash", "hash"})
"""The fields a settlement cannot know: it carries the charge beside the record, and the book adds the others."""

CARRIED = tuple(field for field in FIELDS if field not in ADDED)
REQUIRED = frozenset(field for field in CARRIED if not usage_records.c[field].nullable)
LENGTHS = {
    field: column.type.length
    for field in CARRIED
    if isinstance((column := usage_records.c[field]).type, String) and column.type.length is not None
}
WHOLE_NUMBER = re.compile(rb"-?[0-9]{1,16}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a usage stream, as Redis gave it."""

    stream: str
    id: str
    fields: Mapping[bytes, bytes]

    @property
    def time(self) -> int:
        """When the entry was added, by Redis' clock, ms."""
        return int(self.id.partition("-")[0])

    def order(self) -> tuple[int, int, str]:
        """Sorts entries of all streams by when they were added."""
        count = int(self.id.partition("-")[2])
        return self.time, count, self.stream

    def written(self) -> str:
        """Return the fields as JSON in ASCII, whatever bytes they are made of."""
        return json.dumps({_text(name): _text(value) for name, value in self.fields.items()})


@dataclass(frozen=True, slots=True)
class Malformed:
    """An entry that is no usage record, and why."""

    entry: Entry
    reason: str


def record_in(entry: Entry) -> UsageRecord | Malformed:
    """Return the record in an entry with ``charge_nanousd`` and ``settled`` added, every carried field present.

    What is returned fits the table's columns on every database: nothing the book later does can fail on it.
    """
    charge = entry.fields.get(b"charge", b"")
    if not WHOLE_NUMBER.fullmatch(charge) or abs(int(charge)) > MOST:
        return Malformed(entry, "charge is not a whole number of nano-units")
    try:
        given = json.loads(entry.fields.get(b"record", b""))
    except (ValueError, RecursionError):
        return Malformed(entry, "record is not JSON")
    if not isinstance(given, dict):
        return Malformed(entry, "record is not a JSON object")
    if unknown := given.keys() - frozenset(CARRIED):
        return Malformed(entry, f"record has a field of no usage record: {min(unknown)!a}")
    record = {field: given.get(field) for field in CARRIED}
    for field, value in record.items():
        if fault := _fault(field, value):
            return Malformed(entry, f"{field} {fault}")
    return {**record, "charge_nanousd": int(charge), "settled": entry.time}


def _fault(field: str, value: Any) -> str | None:
    if value is None:
        return "is missing" if field in REQUIRED else None
    if field == "stream":
        return None if isinstance(value, bool) else "is not true or false"
    if field in WHOLE_FIELDS:
        is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MOST
        return None if is_whole else "is not a whole number below 2^53"
    if field == "kind" and value not in KINDS:
        return f"is not one of {', '.join(KINDS)}"
    return _fault_of_text(value, LENGTHS[field])


def _fault_of_text(value: Any, length: int) -> str | None:
    if not isinstance(value, str):
        return "is not text"
    if not value.isprintable() and any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in value):
        return "has a character that no database keeps"
    if len(value) > length:
        return f"is longer than {length} characters"
    return None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
