"""Checks continually, some customers a turn, whether windows, holds and books add up, and reports those that do not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import redis
from sqlalchemy import ColumnElement, select

from gateway.holds.maintenance.census import Census
from gateway.holds.periods import PeriodKind, period_at
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import fields, translated
from gateway.holds.store.inflight import BucketState
from gateway.ledger.book.watermark import head
from gateway.ledger.database import Database
from gateway.ledger.recovery.agreement import Agreement, Period
from gateway.ledger.tables import customers

log = logging.getLogger(__name__)

CUSTOMERS_A_TURN = 200
BOOKS_A_TURN = 3
QUIET = 8
"""The factor by which fewer customers and books are checked while nobody calls: only calls change them."""
KNOWN_A_TURN = 200

WITH_HOLDS, WITH_BOOKS = "holds", "books"


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a turn: how many windows do not add up, all holds as last counted, how many records wait."""

    breaches: int
    holds: int
    held_tokens: int
    waiting: int


class Conservation:
    """Checks all customers in turn, and each window that is known not to add up until it does.

    A breach is recorded in Redis under ``redis_keys.BREACHES`` and in the window itself: while it is recorded there,
    the calls of that customer are refused, and no other customer's.

    Args:
        survey: returns the state of each bucket, read a moment ago; None reads it anew.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable, from ``turn``.
    """

    def __init__(
        self,
        database: Database,
        client: redis.Redis,
        *,
        generation: Callable[[], str],
        now_ms: Callable[[], int],
        survey: Callable[[], Mapping[str, BucketState]] | None = None,
    ) -> None:
        self._database = database
        self._redis = client
        self._now_ms = now_ms
        self._census = Census(client, generation, survey)
        self._agreement = Agreement(database, client, generation)
        self._head, self._part = 0, 1
        self._after = ""
        self._books_after = ""
        self._holds: dict[str, int] = {}
        self._tokens: dict[str, int] = {}

    def turn(self, turns: int = 1) -> Found:
        """Check the next customers' windows of this and the last period, and a few books: the share of ``turns``."""
        known, newest = self._known(), head(self._database)
        self._part = 1 if newest != self._head or any(self._holds.values()) else QUIET
        self._head = newest
        windows = [window for kind, window in known if kind == WITH_HOLDS]
        periods = self._next_customers(turns)
        windows += [each.window for period, before in periods for each in (period, before)]
        count = self._census.take(windows)
        observed: dict[tuple[str, str], str | None] = {
            (WITH_HOLDS, name): fault for name, fault in count.windows.items()
        }
        # A known breach of books counts as ended unless its books are looked at below: the books of a period that is
        # over, or that a change of the customer has ended, are not looked at any more.
        observed |= {place: None for place in known if place[0] == WITH_BOOKS}
        for period in self._books_to_look_at(turns, (window for kind, window in known if kind == WITH_BOOKS)):
            verdict = self._agreement.look_at(period)
            if verdict is None:
                observed.pop((WITH_BOOKS, period.window), None)  # a later turn compares it
            else:
                observed[WITH_BOOKS, period.window] = verdict.fault
        self._holds |= count.holds
        self._tokens |= count.tokens
        breaches = self._tell(known, observed)
        return Found(breaches, sum(self._holds.values()), sum(self._tokens.values()), count.waiting)

    def _known(self) -> list[tuple[str, str]]:
        """Return kind and window of the breaches that earlier checks found."""
        with translated():
            breaches = fields(self._redis.hgetall(redis_keys.BREACHES))
        parts = [name.partition(" ") for name in sorted(breaches)[:KNOWN_A_TURN]]
        return [(kind, window) for kind, _, window in parts]

    def _next_customers(self, turns: int) -> list[tuple[Period, Period]]:
        """Return the current and the previous period of each of the next customers."""
        most = turns * (CUSTOMERS_A_TURN // self._part)
        found = self._periods(customers.c.id > self._after, most)
        self._after = found[-1][0].customer if len(found) == most else ""
        return found

    def _books_to_look_at(self, turns: int, known: Iterable[str]) -> list[Period]:
        """Return the periods of the next few customers, and of the customers whose books are known not to agree."""
        most = turns * max(1, BOOKS_A_TURN // self._part)
        found = self._periods(customers.c.id > self._books_after, most)
        self._books_after = found[-1][0].customer if len(found) == most else ""
        again = self._periods(customers.c.id.in_([_customer_in(window) for window in known]), KNOWN_A_TURN)
        return list({period.window: period for period, _ in (*found, *again)}.values())

    def _periods(self, chosen: ColumnElement[bool], most: int) -> list[tuple[Period, Period]]:
        """Return the current and the previous period of the customers whose latest change Redis has."""
        query = (
            select(customers.c.id, customers.c.period, customers.c.timezone)
            .where(chosen, customers.c.projected)
            .order_by(customers.c.id)
            .limit(most)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        now, found = self._now_ms(), []
        for row in rows:
            kind: PeriodKind = row.period
            start, end = period_at(kind, row.timezone, now)
            before = period_at(kind, row.timezone, start - 1)
            found.append((Period(row.id, start, end), Period(row.id, *before)))
        return found

    def _tell(self, known: Collection[tuple[str, str]], observed: Mapping[tuple[str, str], str | None]) -> int:
        """Write the breaches, remove those of windows that add up again; return how many breaches there are."""
        wrong = {place: found for place, found in observed.items() if found is not None}
        right = [place for place in known if place in observed and place not in wrong]
        for (kind, window), found in wrong.items():
            if (kind, window) not in known:
                log.error("conservation is broken for %s in %s: %s", _customer_in(window), window, found)
        for _, window in right:
            log.info("conservation holds again for %s in %s", _customer_in(window), window)
        still = {place[1] for place in (*known, *wrong) if place not in right}
        with translated(), self._redis.pipeline(transaction=False) as batch:
            for place, found in wrong.items():
                batch.hset(redis_keys.BREACHES, " ".join(place), found)
                batch.hset(place[1], "breach", "1")
            for place in right:
                batch.hdel(redis_keys.BREACHES, " ".join(place))
                if place[1] not in still:
                    batch.hdel(place[1], "breach")
            batch.hlen(redis_keys.BREACHES)
            return int(batch.execute()[-1])


def _customer_in(window: str) -> str:
    """Return the customer of a window, from the window's name."""
    return window.partition(":window:")[2].rpartition(":")[0]
