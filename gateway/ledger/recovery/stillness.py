"""Whether anything has changed that a bookkeeper has duties for; if not, the bookkeeper does its duties less often."""

from __future__ import annotations

from gateway.holds.store.inflight import Survey
from gateway.ledger.database import Database

STILL_SWEEPS = 5
"""While nothing changes, duties are done once in so many sweeps; a duty that only time makes due waits that long."""


class Stillness:
    """Decides at each sweep which share of the duties is due: less often while nothing has changed.

    Something has changed where the ledger has, or where calls or records are in flight or were at the last sweep.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable, from ``turns_due``.
    """

    def __init__(self, database: Database, survey: Survey) -> None:
        self._database = database
        self._survey = survey
        self._version = ""
        self._was_busy = False
        self._skipped = 0

    def end(self) -> None:
        """Have all duties done in the next sweep."""
        self._was_busy = True

    def turns_due(self) -> int:
        """Return for how many sweeps the duties are to be done now; 0 skips them."""
        version = self._database.version()
        states = self._survey.latest().values()
        is_busy = any(there.has_calls or there.waiting or there.has_older_holds for there in states)
        is_still = version == self._version and not (is_busy or self._was_busy)
        self._version, self._was_busy = version, is_busy
        if is_still and self._skipped < STILL_SWEEPS - 1:
            self._skipped += 1
            return 0
        turns, self._skipped = self._skipped + 1, 0
        return turns
