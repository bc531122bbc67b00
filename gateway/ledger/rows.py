"""How SQL stores usage records: the columns in the contract's order, and records from rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Column, Connection, Dialect, Executable, Insert, Row, Select, Table, bindparam, insert, select
from sqlalchemy.exc import DBAPIError, OperationalError

from gateway.ledger.tables import usage_records
from pricing.usage import FIELDS, FIELDS_IF_SAID, UsageRecord

AnyRow: TypeAlias = "Row[*tuple[Any, ...]]"
Item = TypeVar("Item")

COLUMNS = tuple(usage_records.c[field] for field in FIELDS)
"""The columns to select, in this order, for ``record_of``."""


def record_of(row: AnyRow) -> UsageRecord:
    """Return the record in a row that was selected by COLUMNS."""
    return without_silence(dict(zip(FIELDS, row, strict=True)))


AS_SPELLED = tuple(sorted(FIELDS))
COLUMNS_AS_SPELLED = tuple(usage_records.c[field] for field in AS_SPELLED)
"""The columns in the order in which a record is hashed, for ``records_as_spelled``."""


def records_as_spelled(connection: Connection, query: Select[Any]) -> list[UsageRecord]:
    """Return the records that a query of COLUMNS_AS_SPELLED finds, their fields in the order in which they are hashed.

    The rows come from the driver: making SQLAlchemy's own rows takes a fifth of the time of reading.
    """
    result = connection.execute(query)
    rows = result.cursor.fetchall()
    result.close()
    return [_as_spelled(row) for row in rows]


def _as_spelled(row: Sequence[Any]) -> UsageRecord:
    record = dict(zip(AS_SPELLED, row, strict=True))
    for field in FIELDS_IF_SAID:
        if record[field] is None:
            del record[field]
    record["stream"] = bool(record["stream"])  # SQLite returns numbers
    if "conversation_is_included" in record:
        record["conversation_is_included"] = bool(record["conversation_is_included"])
    return record


def without_silence(record: UsageRecord) -> UsageRecord:
    """Return the record as it is hashed and shown: without the optional fields that are null."""
    shown = record.copy()
    for field in FIELDS_IF_SAID:
        if record.get(field) is None:
            shown.pop(field, None)
    return shown


VALUES_MOST = 500
"""The most values in one statement; SQLite before 3.32 takes 999 parameters."""


def execute_many(connection: Connection, statement: Executable, rows: Sequence[Mapping[str, Any]]) -> None:
    """Execute a statement for each of many rows, through the driver.

    The statement is one that a module defines once, because its compiled text is cached. Through SQLAlchemy, preparing
    a row takes as long as the database takes to store it.
    """
    text, names = _compiled(statement, connection.dialect)
    connection.exec_driver_sql(text, rows if names is None else [*map(itemgetter(*names), rows)])


MANY_ROWS = 50
"""From this many rows on, columns that are null in every row are left out."""


def insert_many(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that have every column, through the driver.

    Python's SQLite driver takes as long for ten nulls as SQLite takes for an index: it looks each time for an adapter
    of None. PostgreSQL takes half as long for the rows of one COPY as for the same number of inserts, and so does its
    driver.
    """
    silent = [column.name for column in table.columns if column.nullable] if len(rows) >= MANY_ROWS else []
    left_out = frozenset(name for name in silent if all(row[name] is None for row in rows))
    if connection.dialect.name == "postgresql":
        _copy(connection, table, [column.name for column in table.columns if column.name not in left_out], rows)
    else:
        execute_many(connection, _insert(table, left_out), rows)


def _copy(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows by PostgreSQL's COPY, inside the connection's transaction.

    Raises:
        OperationalError: the server is unavailable.
        DBAPIError: the server refuses a row. The error has the server's message without its context, which quotes the row.
    """
    driver: Any = connection.dialect.loaded_dbapi
    quoted = connection.dialect.identifier_preparer.quote
    text = f"COPY {quoted(table.name)} ({', '.join(map(quoted, names))}) FROM STDIN"
    cursor: Any = connection.connection.cursor()
    try:
        with cursor.copy(text) as copy:
            for row in map(itemgetter(*names), rows):
                copy.write_row(row)
    except driver.Error as error:
        is_unavailable = isinstance(error, (driver.OperationalError, driver.InterfaceError, driver.InternalError))
        reason = driver.DatabaseError(error.diag.message_primary or str(error))
        raise (OperationalError if is_unavailable else DBAPIError)(text, None, reason) from None
    finally:
        cursor.close()


@lru_cache(maxsize=64)
def _insert(table: Table, left_out: frozenset[str]) -> Insert:
    return insert(table).values(
        {column.name: bindparam(column.name) for column in table.columns if column.name not in left_out}
    )


VALUES_IN_A_STATEMENT = (10, 100, VALUES_MOST)
VALUE_NAMES = [f"value_{number}" for number in range(VALUES_MOST)]


def found_among(connection: Connection, column: Column[Any], values: Iterable[Any]) -> Iterator[Any]:
    """Yield those of many values that a column has.

    The driver executes statements of a few lengths, with the last value repeated to fill a statement: SQLAlchemy takes
    longer to write a list of values than the database takes to find them.
    """
    for batch in batches(values, VALUES_MOST):
        size = next(most for most in VALUES_IN_A_STATEMENT if len(batch) <= most)
        text, names = _compiled(_is_among(column, size), connection.dialect)
        padded = batch + batch[-1:] * (size - len(batch))
        parameters: Any = tuple(padded) if names is not None else dict(zip(VALUE_NAMES, padded, strict=False))
        yield from connection.exec_driver_sql(text, parameters).scalars()


@lru_cache(maxsize=64)
def _is_among(column: Column[Any], size: int) -> Select[Any]:
    return select(column).where(column.in_([bindparam(name, type_=column.type) for name in VALUE_NAMES[:size]]))


@lru_cache(maxsize=64)
def _compiled(statement: Any, dialect: Dialect) -> tuple[str, Sequence[str] | None]:
    """Return the text of a statement, and the names of its parameters in order where they are positional."""
    compiled = statement.compile(dialect=dialect)
    return str(compiled), compiled.positiontup


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of at most ``size``, each for one statement."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
