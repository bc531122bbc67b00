"""Sums of a customer's records by bucket of time and by some fields of the records, added up in the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, literal, or_, select

from gateway.ledger.billing.dropped_months import refuse_dropped
from gateway.ledger.billing_tables import late_records
from gateway.ledger.database import Database
from gateway.ledger.read.queries import DAY_MS, OF_CALLS, Span, summed, whole_sum
from gateway.ledger.tables import usage_records

EMBEDDINGS = "/v1/embeddings"
SUMMED = ("input_tokens", "cached_tokens", "billed_output_tokens", "charge_nanousd")

book, late = usage_records.c, late_records.c
IS_LATE = and_(late.chain == book.chain, late.seq == book.seq)


@dataclass(frozen=True, slots=True)
class BucketSum:
    """The sums of the records of one group in one bucket."""

    start: int
    """The start of the bucket, ms."""
    group: tuple[str | None, ...]
    """The values of the fields that the sums are grouped by, in the order of these fields."""
    calls: int
    input_tokens: int
    cached_tokens: int
    billed_output_tokens: int
    charge_nanousd: int


def sums_by_bucket(
    database: Database,
    customer: str,
    start: int,
    end: int,
    width_ms: int,
    *,
    by: Sequence[str] = (),
    only: Mapping[str, Sequence[str]],
    generates: bool,
) -> list[BucketSum]:
    """Return the sums of a customer's records that count from ``start`` on and before ``end``, in ms.

    Buckets begin at whole multiples of their width, which divides a day. A record that was booked after its period was
    closed counts at the later time that its mark states.

    Args:
        by: fields of the record to group by.
        only: for a field, the values that it may have.
        generates: whether only calls that generate output, and their corrections, count: no fees, credits, embeddings.

    Raises:
        RecordsDropped: some of the records are dropped.
    """
    refuse_dropped(database, Span(customer, start, end))
    wanted: list[ColumnElement[bool]] = [book.customer == customer]
    wanted += [book[name].in_(values) for name, values in only.items()]
    wanted.append(book.kind != "prepaid")  # prepaid credit is not usage and charges nothing
    if generates:
        wanted += [book.kind.in_(OF_CALLS), or_(book.endpoint.is_(None), book.endpoint != EMBEDDINGS)]
    found: dict[tuple[int, tuple[str | None, ...]], list[int]] = defaultdict(lambda: [0] * (1 + len(SUMMED)))
    for since in range(start - start % DAY_MS, end, DAY_MS):  # a day at a time: each a short transaction
        until = min(since + DAY_MS, end)
        first = max(since, start)
        _add(database, found, book.time, first, until, width_ms, by, [*wanted, ~exists().where(IS_LATE)])
        _add(database, found, late.counts, first, until, width_ms, by, [*wanted, late.customer == customer])
    return [BucketSum(at, group, *sums) for (at, group), sums in sorted(found.items(), key=_in_order)]


def _add(
    database: Database,
    found: dict[tuple[int, tuple[str | None, ...]], list[int]],
    at: ColumnElement[int],
    first: int,
    until: int,
    width_ms: int,
    by: Sequence[str],
    wanted: list[ColumnElement[bool]],
) -> None:
    bucket = (at - at % literal(width_ms)).label("bucket")
    groups = [book[name] for name in by]
    halves = [half for name in SUMMED for half in whole_sum(book[name])]
    calls = func.count().filter(book.kind == "usage")
    query = select(bucket, *groups, calls, *halves).where(*wanted, at >= first, at < until)
    if at is late.counts:
        query = query.join(late_records, IS_LATE)
    with database.read() as connection:
        rows = connection.execute(query.group_by(bucket, *groups)).all()
    width = 1 + len(groups)
    for row in rows:
        sums = found[row[0], tuple(row[1:width])]
        sums[0] += row[width]
        for place in range(len(SUMMED)):
            sums[1 + place] += summed(row[width + 1 + 2 * place], row[width + 2 + 2 * place])


def _in_order(item: tuple[tuple[int, tuple[str | None, ...]], Any]) -> tuple[int, tuple[tuple[bool, str], ...]]:
    at, group = item[0]
    return at, tuple((value is None, value or "") for value in group)
