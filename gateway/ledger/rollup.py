"""Keeps what the book comes to where it is asked for all the time: each customer's period, each open conversation.

What came into the book since the last time is added, some records in a transaction, with the place up to which they go.
A version that appends without adding loses nothing: the next one goes on from that place. A sum that is not there is
added up from the book, so the tables may be emptied at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Select,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from gateway.holds.periods import PeriodKind, period_at
from gateway.ledger.chain import MAIN
from gateway.ledger.conversations import (
    HOUR_MS,
    Conversation,
    Said,
    begun_by,
    continued_by,
    open_conversations,
    said_in,
)
from gateway.ledger.database import Database
from gateway.ledger.queries import (
    HALF,
    IS_INCLUDED,
    IS_SILENT,
    OF_CALLS,
    begun_in_silence,
    calls_in,
    newest_times,
    summed,
    sums_of,
)
from gateway.ledger.rows import AnyRow, batches
from gateway.ledger.tables import chains, customers, rollup_conversations, rollup_read, rollup_windows, usage_records

BATCH = 2_000
"""Records in one transaction; nobody appends to an SQLite ledger meanwhile."""

AT_ONCE = 400
"""Keys in one statement; SQLite before 3.32 takes 999 parameters."""

TAIL_MOST = 10_000
"""Records that are not rolled up yet and yet looked at; beyond, the records themselves are asked."""

book = usage_records.c

NEEDED = (
    *(book.seq, book.kind, book.customer, book.conversation, book.time, book.settled, book.tier, book.menu_version),
    *(book.billed_output_tokens, book.input_tokens, book.charge_nanousd),
    *(book.conversation_cap_tokens, book.conversation_is_included),
)
ALL_OF_A_PERIOD = select(
    *sums_of(book), *(func.sum(case((said, 1), else_=0)) for said in (IS_INCLUDED, IS_SILENT))
).where(
    book.customer == bindparam("of"),
    book.time >= bindparam("since"),
    book.time < bindparam("until"),
    book.kind.in_(OF_CALLS),
    book.seq <= bindparam("upto"),
)
AMOUNTS = ("tokens_high", "tokens_low", "charge_high", "charge_low", "included")
"""What is summed of a window; in two halves of its digits what may pass 2^63."""

Period = tuple[int, int]
"""Start and end, ms."""

Place = tuple[str, int, int]
"""A period of a customer: its id, start and end, ms."""

Name = tuple[str, str]
"""A conversation's customer and name."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a window comes to: billed output tokens, nano-units, and conversations that a subscription included."""

    tokens: int
    charge_nanousd: int
    included: int


@dataclass(frozen=True, slots=True)
class Named:
    """The latest conversation of a name, and of the one before it when it was going on, ms: a late record may be its."""

    now: Conversation
    ended_first: int | None = None
    ended_last: int | None = None

    def is_of_the_one_before(self, call: Said) -> bool:
        if self.ended_first is None or self.ended_last is None or call.time >= self.now.first:
            return False
        return replace(self.now, first=self.ended_first, last=self.ended_last).is_open(call.time)


class Rollup:
    """Any number of processes may run it: of two at once one finds that the place has moved.

    Raises:
        MeteringUnavailable: the ledger is unavailable, from every method; what was added by then stays.
    """

    def __init__(self, database: Database, *, batch: int = BATCH) -> None:
        self._database = database
        self._batch = batch

    def turn(self, now_ms: int) -> int:
        """Add the next records; return how many were added, by whoever, and 0 only where all are."""
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
                _add_to_windows(connection, rows)
                _add_to_conversations(connection, rows)
                _move(connection, rows[-1].seq)
        return len(rows)

    def bring_up_to_date(self, now_ms: int) -> None:
        """Add all that is in the book."""
        while self.turn(now_ms):
            pass

    def forget_ended(self, now_ms: int, late_ms: int) -> None:
        """Remove conversations that ended so long ago that no record of them can come: ``late_ms`` after their end."""
        ended = rollup_conversations.c.last < now_ms - HOUR_MS - late_ms
        with self._database.read() as connection:
            if connection.execute(select(rollup_conversations.c.last).where(ended).limit(1)).first() is None:
                return
        with self._database.write() as connection:
            connection.execute(delete(rollup_conversations).where(ended))

    def _begin(self, head: int, now_ms: int) -> int:
        """Add up the whole book: the latest period of each customer, and the conversations that may go on."""
        rows: list[dict[str, Any]] = []
        for places in batches(self._latest_places(head), AT_ONCE):
            with self._database.read() as connection:
                rows += [_added_up(connection, place, head) for place in places]
        talks = [Named(one) for one in open_conversations(self._database, now_ms, head)]
        with self._database.write() as connection:
            if _is_at(connection, 0):
                connection.execute(delete(rollup_windows))
                connection.execute(delete(rollup_conversations))
                for some in batches(rows, AT_ONCE):
                    connection.execute(insert(rollup_windows), some)
                _keep(connection, talks)
                _move(connection, head)
        return head

    def _latest_places(self, head: int) -> list[Place]:
        with self._database.read() as connection:
            known = {row.id: row for row in connection.execute(_zones())}
        newest = newest_times(self._database, known, head)
        return [(one, *_period(known[one], time)) for one, time in newest.items()]


def sums_by_rollup(customer: str, start: int, end: int, but: Sequence[str]) -> CompoundSelect[Any]:
    """Return the question what a window comes to, but for some records: rows of a sign and of sums in halves.

    Of what is not rolled up yet at most ``TAIL_MOST`` records are looked at.
    """
    of = rollup_windows.c
    here = (of.customer == customer, of.start == start, of.end == end)
    kept = select(literal(1).label("sign"), of.tokens_high, of.tokens_low, of.charge_high, of.charge_low).where(*here)
    place = func.coalesce(select(rollup_read.c.seq).where(rollup_read.c.chain == MAIN).scalar_subquery(), 0)
    # The limits keep the database from looking by customer, through all the records of a period.
    latest = select(usage_records).where(book.chain == MAIN, book.seq > place).order_by(book.seq).limit(TAIL_MOST)
    late = latest.subquery().c
    added = select(literal(1), *sums_of(late)).where(*calls_in(customer, start, end, of=late))
    if not but:
        return kept.union_all(added)
    twice = select(usage_records).where(book.id.in_(but)).limit(len(but)).subquery().c
    return kept.union_all(added, select(literal(-1), *sums_of(twice)).where(*calls_in(customer, start, end, of=twice)))


def windows_in(database: Database, ids: Iterable[str]) -> Iterator[tuple[str, list[tuple[Period, Used]]]]:
    """Yield each of these customers that has records, and what its latest periods come to, oldest first."""
    of = rollup_windows.c
    query = select(rollup_windows).order_by(of.customer, of.start, of.end)
    for some in batches(ids, AT_ONCE):
        with database.read() as connection:
            rows = connection.execute(query.where(of.customer.in_(some))).all()
        for customer, mine in groupby(rows, key=attrgetter("customer")):
            yield customer, [((row.start, row.end), _used(row)) for row in mine]


def _used(row: AnyRow) -> Used:
    return Used(summed(row.tokens_high, row.tokens_low), summed(row.charge_high, row.charge_low), row.included)


def conversations_in(database: Database, ids: Iterable[str], now_ms: int) -> Iterator[Conversation]:
    """Yield the conversations of these customers that are open at ``now_ms``."""
    of = rollup_conversations.c
    for some in batches(ids, AT_ONCE):
        query = select(rollup_conversations).where(of.customer.in_(some), of.last > now_ms - HOUR_MS)
        with database.read() as connection:
            rows = connection.execute(query).all()
        yield from (one for one in map(_conversation, rows) if one.is_open(now_ms))


def _place(connection: Connection) -> int:
    query = select(rollup_read.c.seq).where(rollup_read.c.chain == MAIN)
    return connection.execute(query).scalar_one_or_none() or 0


def _is_at(connection: Connection, place: int) -> bool:
    """Return whether the sums still go up to ``place``, and let nobody move it until the transaction ends."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    connection.execute(dialect.insert(rollup_read).values(chain=MAIN, seq=0).on_conflict_do_nothing())
    here = select(rollup_read.c.seq).where(rollup_read.c.chain == MAIN).with_for_update()
    return bool(connection.execute(here).scalar_one() == place)


def _move(connection: Connection, seq: int) -> None:
    connection.execute(update(rollup_read).where(rollup_read.c.chain == MAIN).values(seq=seq))


def _next_records(connection: Connection, place: int, most: int) -> Sequence[AnyRow]:
    query = select(*NEEDED).where(book.chain == MAIN, book.seq > place).order_by(book.seq).limit(most)
    return connection.execute(query).all()


def _zones() -> Select[Any]:
    return select(customers.c.id, customers.c.period, customers.c.timezone)


def _period(customer: Any, time: int) -> Period:
    kind: PeriodKind = customer.period
    return period_at(kind, customer.timezone, time)


def _add_to_windows(connection: Connection, rows: Sequence[AnyRow]) -> None:
    """Add records to the period that each falls in, as its customer's periods are now."""
    zones: dict[str, Any] = {}
    for some in batches({row.customer for row in rows}, AT_ONCE):
        zones |= {row.id: row for row in connection.execute(_zones().where(customers.c.id.in_(some)))}
    added: dict[Place, list[int]] = {}
    silent: set[Place] = set()
    for row in rows:
        if row.kind not in OF_CALLS or row.customer not in zones:
            continue
        place = (row.customer, *_period(zones[row.customer], row.time))
        sums = added.setdefault(place, [0] * len(AMOUNTS))
        tokens, charge = divmod(row.billed_output_tokens, HALF), divmod(row.charge_nanousd, HALF)
        for at, amount in enumerate((*tokens, *charge, bool(row.conversation_is_included))):
            sums[at] += amount
        if row.conversation and row.conversation_cap_tokens is None and row.billed_output_tokens > 0:
            silent.add(place)  # whether a conversation was included, only the whole book can say
    known = _known_places(connection, added) - silent
    _add(connection, {place: added[place] for place in known})
    for place in added.keys() - known:
        _add_anew(connection, place, rows[-1].seq)


def _known_places(connection: Connection, places: Iterable[Place]) -> set[Place]:
    of = rollup_windows.c
    found: set[Place] = set()
    for some in batches(places, AT_ONCE // 2):
        query = select(of.customer, of.start, of.end).where(tuple_(of.customer, of.start, of.end).in_(some))
        found.update((row.customer, row.start, row.end) for row in connection.execute(query))
    return found


def _add(connection: Connection, added: Mapping[Place, Sequence[int]]) -> None:
    if not added:
        return
    of = rollup_windows.c
    here = (of.customer == bindparam("c")) & (of.start == bindparam("s")) & (of.end == bindparam("e"))
    more = {name: of[name] + bindparam(f"more_{name}") for name in AMOUNTS}
    rows = [
        {"c": customer, "s": start, "e": end, **{f"more_{name}": n for name, n in zip(AMOUNTS, sums, strict=True)}}
        for (customer, start, end), sums in sorted(added.items())
    ]
    connection.execute(update(rollup_windows).where(here).values(more), rows)


def _add_anew(connection: Connection, place: Place, upto: int) -> None:
    """Add up a period from the book, and forget the periods before the last one."""
    customer, start, end = place
    of = rollup_windows.c
    this = (of.start == start) & (of.end == end)
    connection.execute(delete(rollup_windows).where(of.customer == customer, this | (of.end < start)))
    connection.execute(insert(rollup_windows), [_added_up(connection, place, upto)])


def _added_up(connection: Connection, place: Place, upto: int) -> dict[str, Any]:
    customer, start, end = place
    asked = {"of": customer, "since": start, "until": end, "upto": upto}
    *sums, included, silent = (int(amount or 0) for amount in connection.execute(ALL_OF_A_PERIOD, asked).one())
    if silent:
        included += begun_in_silence(connection, customer, start, end, upto)
    return {"customer": customer, "start": start, "end": end, **dict(zip(AMOUNTS, (*sums, included), strict=True))}


def _add_to_conversations(connection: Connection, rows: Sequence[AnyRow]) -> None:
    calls = [said_in(row) for row in rows if row.conversation is not None]
    going: dict[Name, Named] = {}
    of = rollup_conversations.c
    for some in batches({(call.customer, call.conversation) for call in calls}, AT_ONCE):
        found = connection.execute(select(rollup_conversations).where(tuple_(of.customer, of.name).in_(some)))
        going |= {(row.customer, row.name): _named(row) for row in found}
    for call in calls:
        key = call.customer, call.conversation
        before = going.get(key)
        going[key] = Named(begun_by(call)) if before is None else _with(before, call)
    _keep(connection, going.values())


def _with(before: Named, call: Said) -> Named:
    """Return what a name stands for after a call that came into the book later, and may have been admitted earlier."""
    now = before.now
    if call.time >= now.first:
        if now.is_open(call.time):
            return replace(before, now=continued_by(now, call))
        return Named(begun_by(call), ended_first=now.first, ended_last=now.last)
    if before.is_of_the_one_before(call):
        return before
    begun = continued_by(now, call)
    return replace(before, now=replace(begun, first=call.time, tier=call.tier, menu_version=call.menu_version))


def _named(row: AnyRow) -> Named:
    return Named(_conversation(row), ended_first=row.ended_first, ended_last=row.ended_last)


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


def _keep(connection: Connection, going: Iterable[Named]) -> None:
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(rollup_conversations)
    key = list(rollup_conversations.primary_key.columns)
    later = {
        column.name: statement.excluded[column.name] for column in rollup_conversations.columns if column not in key
    }
    statement = statement.on_conflict_do_update(index_elements=key, set_=later)
    for some in batches(going, AT_ONCE):
        rows = [{**asdict(one.now), "ended_first": one.ended_first, "ended_last": one.ended_last} for one in some]
        connection.execute(statement, rows)
