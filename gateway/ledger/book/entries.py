"""Reads the usage record that an entry of a usage stream carries, or the reason why the entry carries none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import itemgetter, le
from types import NoneType
from typing import Any

import orjson
from sqlalchemy import String

from gateway.ledger.tables import usage_records
from pricing.money import MOST
from pricing.usage import FIELDS, KINDS, WHOLE_FIELDS, UsageRecord

BESIDE = frozenset({"charge_nanousd", "settled", "conversation_cap_tokens", "conversation_is_included"})
"""The fields that a settlement has beside the record in its entry: only the script that settles knows their values."""

ADDED = BESIDE | {"chain", "seq", "prev_hash", "hash", "prepaid_nanousd"}
"""Fields that the record in an entry lacks: those beside it, those the book adds, those of records without a call."""

CARRIED = tuple(field for field in FIELDS if field not in ADDED)
REQUIRED = frozenset(field for field in CARRIED if not usage_records.c[field].nullable)
LENGTHS = {
    field: column.type.length
    for field in CARRIED
    if isinstance((column := usage_records.c[field]).type, String) and column.type.length is not None
}
Fields = Mapping[bytes, bytes]

WHOLE_NUMBER = re.compile(rb"-?[0-9]{1,16}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a usage stream, as Redis returned it."""

    stream: str
    id: str
    fields: Fields

    @property
    def time(self) -> int:
        """When the entry was added, ms, by a clock that never goes back.

        An entry's id is above the id before it even if Redis' clock was set back meanwhile.
        """
        return int(self.id.partition("-")[0])

    def order(self) -> tuple[int, int, str]:
        """Return a key that sorts entries of all streams by when they were added."""
        count = int(self.id.partition("-")[2])
        return self.time, count, self.stream

    def written(self) -> str:
        """Return the fields as JSON in ASCII, whatever bytes they contain."""
        return json.dumps({_text(name): _text(value) for name, value in self.fields.items()})


@dataclass(frozen=True, slots=True)
class Malformed:
    """An entry that is not a usage record, and the reason."""

    entry: Entry
    reason: str


def record_in(entry: Entry) -> UsageRecord | Malformed:
    """Return the record in an entry with every carried field, and with the fields of ``BESIDE`` added.

    The record fits the table's columns on every database: no later step of the book can fail on it. A field that only
    a later version knows is left out, so that a call of a later worker is still billed.
    """
    charge = entry.fields.get(b"charge", b"")
    if not WHOLE_NUMBER.fullmatch(charge) or abs(int(charge)) > MOST:
        return Malformed(entry, "charge is not a whole number of nano-units")
    settled = entry.fields.get(b"settled")
    if settled is None:
        settled = b"%d" % entry.time
    if not WHOLE_NUMBER.fullmatch(settled) or not 0 <= int(settled) <= MOST:
        return Malformed(entry, "settled is not a moment in milliseconds")
    cap = entry.fields.get(b"cap", b"0")
    if not WHOLE_NUMBER.fullmatch(cap) or not 0 <= int(cap) <= MOST:
        return Malformed(entry, "cap is not a number of tokens")
    raw = entry.fields.get(b"record", b"")
    try:
        parsed = orjson.loads(raw)
    except ValueError:
        return Malformed(entry, "record is not JSON")
    if not isinstance(parsed, dict):
        return Malformed(entry, "record is not a JSON object")
    record = NOTHING | parsed
    if len(record) != len(NOTHING):
        if others := parsed.keys() & ADDED:
            return Malformed(entry, f"record has a field that is not its own: {min(others)!a}")
        record = {field: record[field] for field in CARRIED}
    if not _fits(record, raw) and (fault := _fault_in(record)):
        return Malformed(entry, fault)
    record["charge_nanousd"], record["settled"] = int(charge), int(settled)
    record["conversation_cap_tokens"] = int(cap) if b"cap" in entry.fields else None
    record["conversation_is_included"] = True if b"included" in entry.fields else None
    return record


@dataclass(frozen=True, slots=True)
class Shape:
    """The places of texts and whole numbers in a record whose fields all have a permitted type."""

    texts: Callable[[Sequence[Any]], tuple[str, ...]]
    lengths: tuple[int, ...]
    wholes: Callable[[Sequence[Any]], tuple[int, ...]]


def _fits(record: UsageRecord, raw: bytes) -> bool:
    """Return whether a record certainly has no fault, by a quick check: most records are alike."""
    values = tuple(record.values())
    shape = _shape(tuple(map(type, values)))
    if shape is None or record["kind"] not in KINDS or NUL in raw:
        return False
    wholes = shape.wholes(values)
    if min(wholes) < -MOST or max(wholes) > MOST:
        return False
    return _are_short(tuple(map(len, shape.texts(values))), shape.lengths)


@lru_cache(maxsize=4096)
def _are_short(lengths: tuple[int, ...], most: tuple[int, ...]) -> bool:
    return all(map(le, lengths, most))


@lru_cache(maxsize=1024)
def _shape(kinds: tuple[type, ...]) -> Shape | None:
    """Return the shape of records with values of these types, ordered as ``CARRIED``; None if they may have a fault."""
    present = [field for field, kind in zip(CARRIED, kinds, strict=True) if kind is not NoneType]
    if REQUIRED - set(present) or any(KIND_OF[field] is not kinds[PLACE[field]] for field in present):
        return None
    texts = [field for field in present if field in LENGTHS]
    wholes = [field for field in present if field in WHOLE_FIELDS]
    return Shape(
        itemgetter(*(PLACE[field] for field in texts)),
        tuple(LENGTHS[field] for field in texts),
        itemgetter(*(PLACE[field] for field in wholes)),
    )


def _fault_in(record: UsageRecord) -> str | None:
    """Return the first fault of a record, field by field."""
    for field, fault_of in FAULTS:
        value = record[field]
        if fault := fault_of(value) if value is not None else MISSING[field]:
            return f"{field} {fault}"
    return None


def _fault_of_flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "is not true or false"


def _fault_of_whole(value: Any) -> str | None:
    return None if type(value) is int and -MOST <= value <= MOST else "is not a whole number below 2^53"


def _fault_of_kind(value: Any) -> str | None:
    return None if value in KINDS else f"is not one of {', '.join(KINDS)}"


def _fault_of_text(length: int, value: Any) -> str | None:
    if not isinstance(value, str):
        return "is not text"
    if "\0" in value:
        return "has a character that no database keeps"
    if len(value) > length:
        return f"is longer than {length} characters"
    return None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _fault_of(field: str) -> Callable[[Any], str | None]:
    """Return the check of a field's value; the check returns what is wrong with the value."""
    if field == "stream":
        return _fault_of_flag
    if field == "kind":
        return _fault_of_kind
    return _fault_of_whole if field in WHOLE_FIELDS else partial(_fault_of_text, LENGTHS[field])


FAULTS = tuple((field, _fault_of(field)) for field in CARRIED)
PLACE = {field: place for place, field in enumerate(CARRIED)}
KIND_OF = {field: bool if field == "stream" else int if field in WHOLE_FIELDS else str for field in CARRIED}
NOTHING: UsageRecord = dict.fromkeys(CARRIED)
NUL = rb"\u0000"
"""JSON's spelling of the character that no database keeps; records with these letters are checked field by field."""

MISSING = {field: "is missing" if field in REQUIRED else None for field in CARRIED}
