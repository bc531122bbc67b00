"""The hash chain over usage records: links each record to the record before it, and finds where the chain is broken."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from pricing.usage import UsageRecord

MAIN = "main"
"""The only chain in use."""

GENESIS = "0" * 64
"""The hash that the first record of a chain is linked to."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: the number and the hash of its last record."""

    seq: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class BadRow:
    """The first row at which a chain does not add up, and why."""

    seq: int
    id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far a chain was followed: the head at the end, and the row that broke the chain, if any."""

    head: Head
    bad: BadRow | None
    erased: int = 0
    """How many of the sound rows have had their customer's words removed."""
    dropped: int = 0
    """How many of the rows up to the head retention has dropped."""


def nothing_erased(_seq: int) -> None:
    """Report no erased row."""


def nothing_dropped(_first: int, _last: int) -> bool:
    """Report no dropped row."""
    return False


def nothing_else(_seq: int, _spelled: bytes) -> None:
    """Report no further fault of a row."""


def canonical(record: Mapping[str, Any]) -> bytes:
    """Return the canonical spelling of a record, the text that is hashed: UTF-8 JSON, keys sorted, no spaces."""
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)


def link(prev_hash: str, record: UsageRecord) -> UsageRecord:
    """Return the record with its ``prev_hash`` and its ``hash``.

    The hash is SHA-256 over the previous hash, a line feed and the record's canonical JSON without ``hash``, in
    lower-case hexadecimal.
    """
    linked = {**record, "prev_hash": prev_hash}
    linked.pop("hash", None)
    linked["hash"] = hash_of(linked)
    return linked


def hash_of(record: UsageRecord) -> str:
    """Return the hash of a record that has its ``prev_hash`` and no hash yet."""
    return hashlib.sha256(record["prev_hash"].encode() + b"\n" + canonical(record)).hexdigest()


def verify(
    records: Iterable[UsageRecord],
    head: Head = Head(),
    erased: Callable[[int], str | None] = nothing_erased,
    also: Callable[[int, bytes], str | None] = nothing_else,
    dropped: Callable[[int, int], bool] = nothing_dropped,
) -> Verdict:
    """Follow a chain from ``head`` on and stop at the first record that is not the next link.

    Args:
        records: the records of the chain, in the order of their numbers.
        head: the link after which the chain is followed.
        erased: returns the digest of a row's remaining fields if its customer's words were removed. The row's own hash
            covers the words, so its content is checked against the digest, and its place against the chain.
        also: takes the number and the canonical JSON of each sound row, and returns any further fault of the row.
        dropped: returns whether retention dropped all rows from one number to another; the row after these is checked
            against its seal alone.
    """
    count = gone = 0
    for record in records:
        missing = record["seq"] - head.seq - 1
        if missing > 0 and dropped(head.seq + 1, head.seq + missing):
            gone += missing
            head = Head(head.seq + missing, record["prev_hash"])
        digest = erased(record["seq"])
        if reason := _fault(record, head, digest, also):
            return Verdict(head, BadRow(head.seq + 1, record["id"], reason), count, gone)
        count += digest is not None
        head = Head(record["seq"], record["hash"])
    return Verdict(head, None, count, gone)


def remainder(record: UsageRecord) -> str:
    """Return the digest of the remaining fields of an erased row, its old hash included."""
    return hashlib.sha256(canonical(record)).hexdigest()


def _fault(record: UsageRecord, head: Head, erased: str | None, also: Callable[[int, bytes], str | None]) -> str | None:
    expected = head.seq + 1
    if record["seq"] != expected:
        return f"row {expected} is missing, row {record['seq']} stands in its place"
    if record["prev_hash"] != head.hash:
        return "it does not name the hash of the row before it"
    try:
        spelled = canonical(record)
    except (TypeError, ValueError):
        return "it has a value that no usage record has"
    if erased is not None:
        if hashlib.sha256(spelled).hexdigest() != erased:
            return "it was erased, and changed since"
    elif _hash_of_spelled(spelled, record) != record["hash"]:
        return "its content does not have the hash it carries"
    return also(expected, spelled)


def _hash_of_spelled(spelled: bytes, record: UsageRecord) -> str:
    """Return the hash of a record from its canonical JSON, after cutting ``hash`` out of that.

    No text in the JSON contains the part that is cut: a quotation mark in a text has a backslash before it.
    """
    cut = b'"hash":"' + record["hash"].encode() + b'",'
    return hashlib.sha256(record["prev_hash"].encode() + b"\n" + spelled.replace(cut, b"", 1)).hexdigest()
