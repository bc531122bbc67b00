"""Compares the use that a window states for a period with the book and the records that wait to be booked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import redis
from sqlalchemy import select

from gateway.holds.store import redis_keys
from gateway.holds.store.clients import text, translated
from gateway.holds.store.packing import WINDOW, WindowState
from gateway.ledger.book.entries import Entry, Malformed, record_in
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.database import Database
from gateway.ledger.read.queries import calls_in, summed, sums_of
from gateway.ledger.sums.rollup import sums_by_rollup
from gateway.ledger.tables import usage_dead_letters, usage_records
from pricing.usage import UsageRecord

ON_THEIR_WAY_MOST = 500
"""The number of waiting records of a bucket at which the ledger counts as behind, and a comparison has to wait."""

book = usage_records.c


@dataclass(frozen=True, slots=True)
class Period:
    """A period of a customer; ``start`` ≤ time < ``end``, ms."""

    customer: str
    start: int
    end: int

    @property
    def bucket(self) -> str:
        return redis_keys.bucket_of(self.customer)

    @property
    def window(self) -> str:
        return redis_keys.window(self.bucket, self.customer, self.start)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``fault`` is a sentence, or None where window and records agree. A period not compared has no verdict."""

    fault: str | None


class Agreement:
    """Reads the window, the stream, the book and the window again; an unchanged window means that nothing was settled.

    A record leaves the stream only once it is in the book; a record in both is counted from the stream. Where the
    running sums and the window disagree, the records decide.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable, from ``look_at``.
    """

    def __init__(self, database: Database, client: redis.Redis, generation: Callable[[], str]) -> None:
        self._database = database
        self._redis = client
        self._generation = generation
        self._watermark = Watermark(client)

    def look_at(self, period: Period) -> Verdict | None:
        """Compare one period; return None where this is impossible now."""
        before = self._said(period)
        if before is None:
            return None
        on_their_way = self._on_their_way(period)
        if on_their_way is None:
            return None
        tokens, charge = self._all_that_is_used(period, on_their_way, self._rolled_up)
        if before != (tokens, charge):
            tokens, charge = self._all_that_is_used(period, on_their_way, self._booked)
        if self._said(period) != before:
            return None
        if before == (tokens, charge):
            return Verdict(None)
        if self._has_dead_letters(period.bucket) or not self._watermark.is_high(self._database):
            return None  # a person or a rebuild has to settle this
        return Verdict(
            f"{before[0]} tokens and {before[1]} nano-units are used, records say {tokens} tokens and {charge}"
        )

    def _said(self, period: Period) -> tuple[int, int] | None:
        """Return the use that the window states; None while its bucket is being rebuilt."""
        with translated(), self._redis.pipeline(transaction=False) as batch:
            batch.hget(redis_keys.state(period.bucket), "generation")
            batch.hmget(period.window, *WINDOW)
            generation, found = batch.execute()
        if generation is None or text(generation) != self._generation():
            return None
        window = WindowState.read(found)
        return window.used, window.spend_used

    def _on_their_way(self, period: Period) -> list[UsageRecord] | None:
        stream = redis_keys.usage(period.bucket)
        with translated():
            found = cast(list[Any], self._redis.xrange(stream, count=ON_THEIR_WAY_MOST))
        if len(found) == ON_THEIR_WAY_MOST:
            return None
        records = [record_in(Entry(stream, text(name), entry)) for name, entry in found]
        valid = [record for record in records if not isinstance(record, Malformed)]
        return valid if len(valid) == len(records) else None

    def _all_that_is_used(
        self, period: Period, on_their_way: list[UsageRecord], booked: Callable[[Period, list[str]], tuple[int, int]]
    ) -> tuple[int, int]:
        tokens, charge = booked(period, [record["id"] for record in on_their_way])
        for record in on_their_way:
            if record["customer"] == period.customer and period.start <= record["time"] < period.end:
                tokens += record["billed_output_tokens"]
                charge += record["charge_nanousd"]
        return tokens, charge

    def _rolled_up(self, period: Period, but: list[str]) -> tuple[int, int]:
        """Return the sums of a period in the book, without the records ``but``, from its running sums.

        Records that are not in the running sums yet are added; a single statement reads all this at one moment.
        """
        with self._database.read() as connection:
            rows = sums_by_rollup(connection, period.customer, period.start, period.end, but)
        tokens = sum(row.sign * summed(row[1], row[2]) for row in rows)
        return tokens, sum(row.sign * summed(row[3], row[4]) for row in rows)

    def _booked(self, period: Period, but: list[str]) -> tuple[int, int]:
        """Return the same sums from each record of the period; the time grows with the number of records."""
        query = select(*sums_of(book)).where(*calls_in(period.customer, period.start, period.end), book.id.not_in(but))
        with self._database.read() as connection:
            row = connection.execute(query).one()
        return summed(row[0], row[1]), summed(row[2], row[3])

    def _has_dead_letters(self, bucket: str) -> bool:
        """Return whether a bucket has dead letters, about which a person has to decide."""
        query = (
            select(usage_dead_letters.c.entry).where(usage_dead_letters.c.stream == redis_keys.usage(bucket)).limit(1)
        )
        with self._database.read() as connection:
            return connection.execute(query).first() is not None
