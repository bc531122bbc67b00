"""Sums of the calls to the model's endpoint by day, according to the records, for comparison with its own report."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, case, func, or_, select

from gateway.ledger.billing.dropped_months import refuse_dropped
from gateway.ledger.billing.usage_buckets import EMBEDDINGS
from gateway.ledger.database import Database
from gateway.ledger.read.queries import DAY_MS, OF_CALLS, Span, summed, whole_sum
from gateway.ledger.tables import usage_records

book = usage_records.c

BY_THE_ENDPOINT = ("upstream", "drained")
"""Sources of output that are the endpoint's own figures."""

IS_GUESSED_OUTPUT = and_(book.usage_source.is_not(None), book.usage_source.not_in(BY_THE_ENDPOINT))
IS_GUESSED_INPUT = and_(book.input_source.is_not(None), book.input_source != "upstream")


@dataclass(frozen=True, slots=True)
class DaySum:
    """One UTC day of calls that generate, or of embeddings; tokens as they were counted, not as they were billed."""

    day: int
    """The start of the day, ms."""
    embeds: bool
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    guessed_input: int
    """The input tokens that the endpoint did not count."""
    guessed_output: int


def sums_by_day(database: Database, start: int, end: int) -> list[DaySum]:
    """Return the sums, by day, of all customers' calls admitted from ``start`` on and before ``end``, whole days in ms.

    Raises:
        RecordsDropped: some of the records are dropped.
    """
    refuse_dropped(database, Span(None, start, end))
    found = []
    embeds = case((book.endpoint == EMBEDDINGS, 1), else_=0)
    columns = (
        book.input_tokens,
        book.cached_tokens,
        book.output_tokens,
        case((IS_GUESSED_INPUT, book.input_tokens), else_=0),
        case((IS_GUESSED_OUTPUT, book.output_tokens), else_=0),
    )
    calls = func.count().filter(book.kind == "usage")
    for day in range(start, end, DAY_MS):
        within = (book.time >= day, book.time < day + DAY_MS, book.kind.in_(OF_CALLS))
        halves = [half for column in columns for half in whole_sum(column)]
        query = select(embeds, calls, *halves).where(*within, or_(book.kind == "usage", book.corrects.is_not(None)))
        with database.read() as connection:
            rows = connection.execute(query.group_by(embeds)).all()
        for row in sorted(rows):
            sums = [summed(row[place], row[place + 1]) for place in range(2, len(row), 2)]
            found.append(DaySum(day, bool(row[0]), row[1], *sums))
    return found
