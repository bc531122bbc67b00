"""Drops the records of closed months once the operator's retention time has passed, and keeps their totals.

A month is marked first, in one transaction that also stores its totals: from then on its records no longer count. A day
later, when no reader that began before the mark is still reading, the records are deleted, some in each transaction,
and each deleted row is marked as dropped beside its seal. After a kill at any point the next turn continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.billing.totals import sums_to_keep
from gateway.ledger.billing.closings import CustomerMonth
from gateway.ledger.billing.counted import Month
from gateway.ledger.billing.dropped_months import keep
from gateway.ledger.billing.old_records import checked, delete_some, lock_unmarked, may_go, unmarked_months
from gateway.ledger.database import Database
from gateway.ledger.sums.market_sums import bring_up_to_date

DAY_MS = 86_400_000
LOOK_MS = 3_600_000
"""The time between two searches for months to drop."""

MONTHS_A_TURN = 20
ROWS_A_TURN = 1_000


class Retention:
    """Drops old records. Any number of processes may run it: each month is marked once, and deletions take turns.

    Args:
        days: how long records are kept after the end of their month; None keeps them forever.

    Raises:
        MeteringUnavailable: the ledger is unavailable, from ``turn``.
        RowChanged: a record differs from its seal, from ``turn``; nothing of that month is dropped.
    """

    def __init__(
        self, database: Database, now_ms: Callable[[], int], days: int | None, *, rows: int = ROWS_A_TURN
    ) -> None:
        self._database = database
        self._now_ms = now_ms
        self._days = days
        self._rows = rows
        self._looks_at = 0

    def turn(self) -> int:
        """Delete some rows of months that were marked a day ago, or mark months; return how many rows or months.

        Marked months are deleted even if the setting is removed: their totals already replace the records.
        """
        now = self._now_ms()
        if deleted := delete_some(self._database, now - DAY_MS, self._rows):
            return deleted
        if self._days is None or now < self._looks_at:
            return 0
        marked, self._looks_at = 0, now + LOOK_MS
        for month in self._due(now - self._days * DAY_MS, now):
            marked += self._mark(month, now)
            if marked >= MONTHS_A_TURN:
                self._looks_at = now
                break
        return marked

    def _due(self, cutoff: int, now: int) -> Iterator[CustomerMonth]:
        """Yield the months to drop now; a month that has to stay keeps all later months of its customer."""
        staying, is_summed = set[str](), False
        for month in unmarked_months(self._database, cutoff):
            if not is_summed:
                bring_up_to_date(self._database, now)
                is_summed = True
            if month.customer not in staying and may_go(self._database, month, cutoff, now):
                yield month
            else:
                staying.add(month.customer)

    def _mark(self, month: CustomerMonth, now: int) -> int:
        """Store the totals of a month and stop counting its records; return 1, or 0 where another process did so."""
        counted_month = Month(self._database, month.month, month.customer)
        rows = checked(self._database, month, counted_month, self._rows)
        sums, going = sums_to_keep(self._database, counted_month, month.customer)
        open_then = {name: conversation for (_, name), conversation in going.items()}
        with self._database.write() as connection:
            if not lock_unmarked(connection, month):
                return 0
            keep(connection, month, rows, sums, open_then, now)
        return 1
