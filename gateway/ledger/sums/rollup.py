"""Keeps running sums of the book that are read all the time: of each customer's period and each open conversation.

New records of the book are added, some in each transaction, which also stores the place up to which the sums go. A
version that appends records without adding them loses nothing: the next version continues from that place. A missing
sum is added up from the book, so the tables may be emptied at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, insert, literal, select, union_all, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.holds.periods import period_at
from gateway.ledger.book.appender import Booked
from gateway.ledger.book.chain import MAIN
from gateway.ledger.database import UNAVAILABLE, Database
from gateway.ledger.read.open_conversations import HOUR_MS, Conversation, open_conversations
from gateway.ledger.read.queries import calls_in, newest_times, summed, sums_of
from gateway.ledger.rows import AnyRow, batches
from gateway.ledger.sums.running_sums import (
    AT_ONCE,
    Period,
    Place,
    Record,
    add_to_conversations,
    add_to_windows,
    added_up,
)
from gateway.ledger.tables import chains, customers, rollup_conversations, rollup_read, rollup_windows, usage_records

log = logging.getLogger(__name__)

BATCH = 2_000
"""The records in one transaction; nobody appends to an SQLite ledger meanwhile."""

TAIL_MOST = 10_000
"""The most records that are read beyond the running sums; if there are more, the records alone decide."""

book = usage_records.c

NEEDED = (
    *(book.seq, book.kind, book.customer, book.conversation, book.time, book.settled, book.tier, book.menu_version),
    *(book.billed_output_tokens, book.input_tokens, book.charge_nanousd),
    *(book.conversation_cap_tokens, book.conversation_is_included),
)


@dataclass(frozen=True, slots=True)
class Used:
    """The sums of a window: billed output tokens, nano-units, and conversations that a subscription included."""

    tokens: int
    charge_nanousd: int
    included: int


class Rollup:
    """Adds records to the running sums. Of two concurrent processes, the second finds that the place has moved.

    Raises:
        MeteringUnavailable: the ledger is unavailable, from every method; records added before stay in the sums.
    """

    def __init__(self, database: Database, *, batch: int = BATCH) -> None:
        self._database = database
        self._batch = batch

    def turn(self, now_ms: int) -> int:
        """Add the next records, or find that another process added them; return how many, 0 only if all are added."""
        with self._database.read() as connection:
            head = connection.execute(select(chains.c.seq).where(chains.c.chain == MAIN)).scalar_one_or_none() or 0
            place = _place(connection)
        if place >= head:
            return 0
        if place == 0:
            return self._begin(head, now_ms)
        with self._database.write() as connection:
            rows = _next_records(connection, place, self._batch)
            if rows and _is_at(connection, place):
                _add(connection, rows, rows[-1]["seq"])
        return len(rows)

    def follow(self, connection: Connection, booked: Booked) -> None:
        """Add the rows that a transaction appends, inside it, if the sums include all records before them.

        The rows are not read back. If adding fails, the records are still in the book, and ``turn`` tries again.
        """
        if not booked.rows or not _is_at(connection, booked.before):
            return
        try:
            with connection.begin_nested():
                _add(connection, booked.rows, booked.after)
        except UNAVAILABLE:
            raise
        except Exception:
            log.exception("The running sums stay behind the book for now.")

    def bring_up_to_date(self, now_ms: int) -> None:
        """Add all records of the book that are not in the sums yet."""
        while self.turn(now_ms):
            pass

    def forget(self) -> None:
        """Make the next turn add up all sums from the records."""
        with self._database.write() as connection:
            connection.execute(delete(rollup_read))

    def forget_ended(self, now_ms: int, late_ms: int) -> None:
        """Remove conversations whose end was more than ``late_ms`` ago, so that no further record of them can come."""
        ended = rollup_conversations.c.last < now_ms - HOUR_MS - late_ms
        with self._database.read() as connection:
            if connection.execute(select(rollup_conversations.c.last).where(ended).limit(1)).first() is None:
                return
        with self._database.write() as connection:
            connection.execute(delete(rollup_conversations).where(ended))

    def _begin(self, head: int, now_ms: int) -> int:
        """Add up the latest period of each customer and the open conversations from the book, up to ``head``."""
        rows: list[dict[str, Any]] = []
        for places in batches(self._latest_places(head), AT_ONCE):
            with self._database.read() as connection:
                rows += [added_up(connection, place, head) for place in places]
        conversations = {
            (conversation.customer, conversation.name): asdict(conversation)
            for conversation in open_conversations(self._database, now_ms, head)
        }
        with self._database.write() as connection:
            if _is_at(connection, 0):
                connection.execute(delete(rollup_windows))
                connection.execute(delete(rollup_conversations))
                for batch in batches(rows, AT_ONCE):
                    connection.execute(insert(rollup_windows), batch)
                for batch in batches(conversations.values(), AT_ONCE):
                    connection.execute(insert(rollup_conversations), batch)
                _move(connection, head)
        return head

    def _latest_places(self, head: int) -> list[Place]:
        with self._database.read() as connection:
            known = {row.id: row for row in connection.execute(_zones())}
        newest = newest_times(self._database, known, head)
        return [
            (customer, *period_at(known[customer].period, known[customer].timezone, time))
            for customer, time in newest.items()
        ]


def sums_by_rollup(connection: Connection, customer: str, start: int, end: int, but: Sequence[str]) -> list[AnyRow]:
    """Return the sums of a window without the records ``but``, as rows of a sign and of sums in halves.

    At most ``TAIL_MOST`` records that are not in the running sums yet are read.
    """
    window = {"customer": customer, "start": start, "end": end}
    if not but:
        return list(connection.execute(_SUMS, window).all())
    twice = select(usage_records).where(book.id.in_(but)).limit(len(but)).subquery().c
    less = select(literal(-1), *sums_of(twice)).where(*calls_in(customer, start, end, of=twice))
    return list(connection.execute(union_all(*_parts(), less), window).all())


def _parts() -> tuple[Select[Any], Select[Any]]:
    """Return the queries for a window's running sums and for later records, with its customer and bounds unbound."""
    of = rollup_windows.c
    customer, start, end = (bindparam(name, type_=of[name].type) for name in ("customer", "start", "end"))
    in_window = (of.customer == customer, of.start == start, of.end == end)
    rolled_up = select(literal(1).label("sign"), of.tokens_high, of.tokens_low, of.charge_high, of.charge_low).where(
        *in_window
    )
    place = func.coalesce(select(rollup_read.c.seq).where(rollup_read.c.chain == MAIN).scalar_subquery(), 0)
    # The limit keeps the database from searching by customer, through all records of a period.
    latest = select(usage_records).where(book.chain == MAIN, book.seq > place).order_by(book.seq).limit(TAIL_MOST)
    late = latest.subquery().c
    return rolled_up, select(literal(1), *sums_of(late)).where(*calls_in(customer, start, end, of=late))


_SUMS = union_all(*_parts())


def windows_in(database: Database, ids: Iterable[str]) -> Iterator[tuple[str, list[tuple[Period, Used]]]]:
    """Yield each of these customers that has records, with the sums of its latest periods, oldest first."""
    of = rollup_windows.c
    query = select(rollup_windows).order_by(of.customer, of.start, of.end)
    for batch in batches(ids, AT_ONCE):
        with database.read() as connection:
            rows = connection.execute(query.where(of.customer.in_(batch))).all()
        for customer, windows in groupby(rows, key=attrgetter("customer")):
            yield customer, [((row.start, row.end), _used(row)) for row in windows]


def _used(row: AnyRow) -> Used:
    return Used(summed(row.tokens_high, row.tokens_low), summed(row.charge_high, row.charge_low), row.included)


def conversations_in(database: Database, ids: Iterable[str], now_ms: int) -> Iterator[Conversation]:
    """Yield the conversations of these customers that are open at ``now_ms``."""
    of = rollup_conversations.c
    for batch in batches(ids, AT_ONCE):
        query = select(rollup_conversations).where(of.customer.in_(batch), of.last > now_ms - HOUR_MS)
        with database.read() as connection:
            rows = connection.execute(query).all()
        yield from (conversation for conversation in map(_conversation, rows) if conversation.is_open(now_ms))


def _place(connection: Connection) -> int:
    query = select(rollup_read.c.seq).where(rollup_read.c.chain == MAIN)
    return connection.execute(query).scalar_one_or_none() or 0


def _is_at(connection: Connection, place: int) -> bool:
    """Return whether the sums still go up to ``place``, and lock it until the transaction ends."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    connection.execute(dialect.insert(rollup_read).values(chain=MAIN, seq=0).on_conflict_do_nothing())
    here = select(rollup_read.c.seq).where(rollup_read.c.chain == MAIN).with_for_update()
    return bool(connection.execute(here).scalar_one() == place)


def _move(connection: Connection, seq: int) -> None:
    connection.execute(update(rollup_read).where(rollup_read.c.chain == MAIN).values(seq=seq))


def _add(connection: Connection, records: Sequence[Record], upto: int) -> None:
    add_to_windows(connection, records, upto)
    add_to_conversations(connection, records)
    _move(connection, upto)


def _next_records(connection: Connection, place: int, most: int) -> Sequence[Record]:
    query = select(*NEEDED).where(book.chain == MAIN, book.seq > place).order_by(book.seq).limit(most)
    return [dict(row) for row in connection.execute(query).mappings()]


def _zones() -> Select[Any]:
    return select(customers.c.id, customers.c.period, customers.c.timezone)


def _conversation(row: AnyRow) -> Conversation:
    return Conversation(
        customer=row.customer,
        name=row.name,
        tier=row.tier,
        menu_version=row.menu_version,
        tokens=row.tokens,
        input_tokens=row.input_tokens,
        was_charged=row.was_charged,
        first=row.first,
        last=row.last,
        cap=row.cap,
    )
