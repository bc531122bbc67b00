"""Closes customers' months once no record can enter them any more; says what is still open, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import redis

from gateway.billing.invoices import Issuer, finalised
from gateway.clock import written
from gateway.holds.maintenance.redis_clock import RedisClock
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import translated
from gateway.holds.store.inflight import calls_in_flight
from gateway.ledger.billing.closings import CustomerMonth, close, month_at, months_of, open_before
from gateway.ledger.billing.final_invoices import Terms
from gateway.ledger.book.dead_letters import streams_with_dead_letters
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.database import Database
from gateway.ledger.read.read_your_writes import WITHIN_S, wait_until_booked
from gateway.ledger.rows import batches

CLOSING_S = 20.0
AT_ONCE = 200
"""Customers that are examined together and closed in one transaction."""

SHOWN_MOST = 100
"""The most open customers that one answer names."""


def patience_ms(call_deadline_s: float, lease_s: float) -> int:
    """Return how long after its end a month can still have running calls: the longest call and two leases, ms."""
    return int(call_deadline_s * 1000) + 2 * int(lease_s * 1000)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A customer whose month is not closed, and why, in one sentence."""

    customer: str
    why: str


@dataclass(frozen=True, slots=True)
class State:
    """The state of a month: how many customers have it, for how many it is closed and has ended, what some wait for."""

    customers: int
    closed: int
    ended: int
    waiting_for: tuple[Waiting, ...]

    @property
    def name(self) -> Literal["open", "waiting", "closed"]:
        """Return ``open`` before it has ended for any customer, ``closed`` once closed for all, else ``waiting``."""
        if self.customers and self.closed == self.customers:
            return "closed"
        return "waiting" if self.ended else "open"


class Closing:
    """Closes a customer's month once its end has passed, no hold of it can be open and the ledger has caught up.

    No call runs longer than its deadline, and the holds of a lost worker are free two leases later. After that time no
    call that was admitted in the month can be running; Redis is nevertheless checked for holds of the month. Any number
    of processes may close at once, and a killed closing may be repeated.

    The invoice of a closed month is then made final, under the seal of its last record.

    Args:
        issuer: the sender of invoices.
        patience_ms: the longest call and two leases.
        now_ms: the time of day, ms.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable, from every method.
    """

    def __init__(
        self,
        database: Database,
        client: redis.Redis,
        issuer: Issuer,
        *,
        patience_ms: int,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._issuer = issuer
        self._terms = Terms(database)
        self._sealer = Sealer(database, now_ms)
        self._database = database
        self._redis = client
        self._clocks = RedisClock(client, now_ms)
        self._watermark = Watermark(client)
        self._patience_ms = patience_ms
        self._now_ms = now_ms

    def state(self, month: str) -> State:
        """Return the state of a month; nothing is closed."""
        return self._go(month, closes=False)

    def close(self, month: str) -> State:
        """Close the month of every customer for whom this is possible now, and return the state after that.

        A call stops after ``CLOSING_S``; the next call can close the rest.
        """
        return self._go(month, closes=True)

    def _go(self, month_name: str, *, closes: bool) -> State:
        now, until = self._now(), self._monotonic() + CLOSING_S
        count, closed, ended = 0, 0, 0
        waiting: list[Waiting] = []
        for batch in batches((month for month in months_of(self._database, month_name) if month.is_due), AT_ONCE):
            closes = closes and self._monotonic() < until
            still_open = [month for month in batch if not month.is_closed]
            why = self._why_open(still_open, now, WITHIN_S if closes else 0)
            ready = [month for month in still_open if month.customer not in why]
            if closes and ready:
                with self._database.write() as connection:
                    close(connection, ready, now)
                batch = list(months_of(self._database, month_name, among=[month.customer for month in batch]))
            else:
                why |= {month.customer: "It can be closed." for month in ready}
            why |= self._without_invoice(
                [month for month in batch if month.customer not in why], until if closes else 0
            )
            count, closed = count + len(batch), closed + len(batch) - len(why)
            ended += sum(month.end <= now for month in batch)
            waiting += [Waiting(customer, sentence) for customer, sentence in sorted(why.items())]
        return State(count, closed, ended, tuple(waiting[:SHOWN_MOST]))

    def _without_invoice(self, months: Sequence[CustomerMonth], until: float) -> dict[str, str]:
        """Make the invoices of closed months final while there is time; return why the others are not, by customer."""
        unfinished = [month for month in months if not month.is_invoiced]
        if unfinished and self._monotonic() < until:
            while self._sealer.turn(all_of_it=True):
                pass
        why: dict[str, str] = {}
        for month in unfinished:
            if self._monotonic() >= until:
                why[month.customer] = "Its invoice is not final."
            else:
                finalised(self._database, month, self._issuer, self._terms, self._now_ms)
        return why

    def _now(self) -> int:
        """Return the earlier of the local time and Redis' time: calls are admitted by Redis' clock."""
        with translated():
            return min(self._clocks.read().here, self._now_ms())

    def _why_open(self, months: Sequence[CustomerMonth], now: int, within_s: float) -> dict[str, str]:
        """Return why months cannot be closed yet, by customer; months that can be closed are left out."""
        why: dict[str, str] = {}
        for month in months:
            if month.end > now:
                why[month.customer] = f"It ends at {written(month.end)}."
            elif month.end + self._patience_ms > now:
                why[month.customer] = f"Calls of it may run until {written(month.end + self._patience_ms)}."
        over = [month for month in months if month.customer not in why]
        if not over:
            return why
        why |= self._open_before(over)
        held = self._held(over)
        why |= {
            month.customer: "A call of it still holds tokens."
            for month in over
            if held.get(month.customer, now) < month.end
        }
        return why | self._behind([month for month in over if month.customer not in why], within_s)

    def _open_before(self, months: Sequence[CustomerMonth]) -> dict[str, str]:
        with self._database.read() as connection:
            earlier = {month: open_before(connection, month) for month in months}
        return {
            month.customer: f"{month_at(open_at, month.timezone)} is open and has records."
            for month, open_at in earlier.items()
            if open_at is not None
        }

    def _held(self, months: Sequence[CustomerMonth]) -> dict[str, int]:
        """Return for each customer with calls in flight when the first of these was admitted, ms."""
        first: dict[str, int] = {}
        with translated():
            buckets = calls_in_flight(self._redis, sorted({redis_keys.bucket_of(month.customer) for month in months}))
        for call in (call for calls in buckets.values() for call in calls):
            customer = call.facts.customer
            first[customer] = min(first.get(customer, call.admitted), call.admitted)
        return first

    def _behind(self, months: Sequence[CustomerMonth], within_s: float) -> dict[str, str]:
        """Return the reasons why records may not all be in the ledger, by customer."""
        if not months:
            return {}
        buckets = {redis_keys.bucket_of(month.customer) for month in months}
        if not wait_until_booked(self._redis, sorted(buckets), within_s=within_s):
            return {month.customer: "Records are not in the ledger yet." for month in months}
        if not self._watermark.is_high(self._database):
            return {month.customer: "Redis is behind the ledger and is being rebuilt." for month in months}
        dead = streams_with_dead_letters(self._database)
        return {
            month.customer: "Records are set aside, which a person has to look at: see `tokencap ledger verify`."
            for month in months
            if redis_keys.usage(redis_keys.bucket_of(month.customer)) in dead
        }
