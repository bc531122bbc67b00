"""How a usage record stands in SQL: its columns in the contract's order, and back from a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Row

from gateway.ledger.tables import usage_records
from pricing.usage import FIELDS, FIELDS_IF_SAID, UsageRecord

AnyRow: TypeAlias = "Row[*tuple[Any, ...]]"
Item = TypeVar("Item")

COLUMNS = tuple(usage_records.c[field] for field in FIELDS)
"""Select these, in this order, and ``record_of`` reads the rows."""


def record_of(row: AnyRow) -> UsageRecord:
    """Return the record in a row that was selected by COLUMNS."""
    return without_silence(dict(zip(FIELDS, row, strict=True)))


def without_silence(record: UsageRecord) -> UsageRecord:
    """Return the record as it is hashed and shown: without the fields that are there only if they say something."""
    shown = dict(record)
    for field in FIELDS_IF_SAID:
        if shown.get(field) is None:
            shown.pop(field, None)
    return shown


VALUES_MOST = 500
"""Values asked for in one statement; SQLite before 3.32 takes 999 parameters."""


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of at most ``size``, as one statement takes them."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
