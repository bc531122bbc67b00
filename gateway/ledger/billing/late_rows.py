"""Reads late records in the order of their own times, page by page, each record once.

Late records are stored by the time at which they count. To sort a page, SQL would read and sort all remaining records;
so their places are read first, a hundred bytes each, and sorted here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, and_, select, tuple_

from gateway.ledger.billing_tables import late_records
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span
from gateway.ledger.rows import VALUES_MOST, AnyRow, batches
from gateway.ledger.tables import usage_records

book, late = usage_records.c, late_records.c

IS_LATE = and_(late.chain == book.chain, late.seq == book.seq)

Place = tuple[int, str]
"""The place of a record: its time, ms, and its number in one whole number, which sorts like the pair; and its chain."""

SEQ_BITS = 53


def late_rows(database: Database, columns: Sequence[ColumnElement[Any]], span: Span, page: int) -> Iterator[AnyRow]:
    """Yield the late rows that count in a span, oldest first by (time, id), each with the time at which it counts.

    Args:
        columns: must begin with ``time`` and ``id``, in this order.
    """
    others = replace(span, customer=None).but_for_time()  # with the customer, SQLite reads all rows of that customer
    query = select(*columns, late.counts).join(late_records, IS_LATE).where(*others)
    places = sorted(_places(database, span, page))
    start = 0
    while start < len(places):
        end = min(start + page, len(places))
        while end < len(places) and _time(places[end]) == _time(places[end - 1]):
            end += 1  # records of one millisecond are sorted by their ids, which places do not have
        numbers: dict[str, list[int]] = defaultdict(list)
        for packed, chain in places[start:end]:
            numbers[chain].append(packed & (1 << SEQ_BITS) - 1)
        found: list[AnyRow] = []
        with database.read() as connection:
            for chain, seqs in numbers.items():
                for some in batches(seqs, VALUES_MOST):
                    found += connection.execute(query.where(book.chain == chain, book.seq.in_(some))).all()
        yield from sorted(found, key=itemgetter(0, 1))
        start = end


def _places(database: Database, span: Span, page: int) -> Iterator[Place]:
    """Yield the places of late records, of all customers or the span's, in the order of the times they count at."""
    at = tuple_(late.counts, late.chain, late.seq)
    query = select(late.counts, late.chain, late.seq, book.time).join(usage_records, IS_LATE)
    if span.customer is not None:
        query = query.where(late.customer == span.customer)
    if span.until is not None:
        query = query.where(late.counts < span.until)
    query = query.order_by(*at).limit(page)
    rest = query if span.since is None else query.where(late.counts >= span.since)
    chains: dict[str, str] = {}
    while True:
        with database.read() as connection:
            rows = connection.execute(rest).all()
        for _, chain, seq, time in rows:
            yield time << SEQ_BITS | seq, chains.setdefault(chain, chain)
        if len(rows) < page:
            return
        rest = query.where(at > tuple_(*rows[-1][:3]))


def _time(place: Place) -> int:
    return place[0] >> SEQ_BITS
