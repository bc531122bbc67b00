"""How a usage record stands in SQL: its columns in the contract's order, and back from a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Dialect, Executable, Row

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
    shown = record.copy()
    for field in FIELDS_IF_SAID:
        if record.get(field) is None:
            shown.pop(field, None)
    return shown


VALUES_MOST = 500
"""Values asked for in one statement; SQLite before 3.32 takes 999 parameters."""


def execute_many(connection: Connection, statement: Executable, rows: Sequence[Mapping[str, Any]]) -> None:
    """Execute a statement of a module for each of many rows, through the driver.

    SQLAlchemy by itself takes as long to look at each as the database does to keep it.
    """
    text, names = _compiled(statement, connection.dialect)
    connection.exec_driver_sql(text, rows if names is None else [*map(itemgetter(*names), rows)])


@lru_cache(maxsize=64)
def _compiled(statement: Any, dialect: Dialect) -> tuple[str, Sequence[str] | None]:
    """Return the text of a statement, and the names of its parameters in their order where that is how they are told."""
    compiled = statement.compile(dialect=dialect)
    return str(compiled), compiled.positiontup


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of at most ``size``, as one statement takes them."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
