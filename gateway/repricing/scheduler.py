"""Starts a process for a waiting pricing run, and requests runs on schedule; computes nothing itself."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from gateway.catalog import audit_rows, run_rows
from gateway.catalog.run_rows import RunClaim
from gateway.errors import MeteringUnavailable
from gateway.ledger.database import Database
from gateway.settings import PROGRAM

COMMAND = (*PROGRAM, "price", "run")
HOUR_MS = 3_600_000

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A run takes one processor and leaves the others for serving."""
STOP_S = 5.0
SCHEDULE = "schedule"


class Scheduler:
    """At most one process of this gateway works on a run; only one of several gateways takes up a run.

    Args:
        environment: the environment of that process, which reads the ledger's address from it.
        every_h: the hours between two requests for a run on schedule; None for no schedule.
        asked: the input of a run that is requested on schedule.
        command: the command of that process; the run's id and its attempt are appended.
    """

    def __init__(
        self,
        database: Database,
        environment: Mapping[str, str],
        *,
        now_ms: Callable[[], int],
        new_id: Callable[[], str],
        every_h: float | None = None,
        asked: Mapping[str, Any] | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._database = database
        self._environment = dict(environment)
        self._now_ms = now_ms
        self._new_id = new_id
        self._every_ms = None if every_h is None else int(every_h * HOUR_MS)
        self._request = dict(asked or {})
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._claim: RunClaim | None = None

    def turn(self) -> bool:
        """Check whether a run waits or is due; return whether a process was started.

        Raises:
            MeteringUnavailable: the ledger is unavailable; call this again later.
        """
        if self._process is not None and self._process.poll() is None:
            return False
        self._put_back()
        now = self._now_ms()
        with self._database.read() as connection:
            last = run_rows.last_created(connection)
            is_waiting = run_rows.is_waiting(connection, now)
        if self._every_ms is not None and (last is None or now - last >= self._every_ms):
            self._queue(now, last)
            is_waiting = True
        return is_waiting and self._take(now)

    def stop(self) -> None:
        """End the process that works on a run; the run is taken up again after the next start."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        with suppress(MeteringUnavailable):  # the run then goes silent, and is taken up for that reason
            self._put_back()

    def _take(self, now: int) -> bool:
        """Take up a run, if another gateway has not done so, and start a process for it."""
        with self._database.write() as connection:
            claim = run_rows.take(connection, now)
        if claim is None:
            return False
        self._claim = claim
        self._process = subprocess.Popen(  # noqa: S603 - the command is ours
            (*self._command, claim.id, str(claim.attempt)),
            env={**ONE_THREAD, **self._environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        return True

    def _put_back(self) -> None:
        """Release the run of a process that has ended; it is queued again unless it has a result."""
        if self._claim is None:
            return
        with self._database.write() as connection:
            run_rows.release(connection, self._claim, self._now_ms())
        self._claim = None

    def _queue(self, now: int, last: int | None) -> None:
        """Request a run, unless another gateway has done so meanwhile."""
        run_id = self._new_id()
        with self._database.write() as connection:
            run_rows.hold_still(connection)
            if run_rows.last_created(connection) != last:
                return
            run_rows.queue(connection, id=run_id, created=now, actor=SCHEDULE, asked=self._request)
            audit_rows.record(
                connection,
                time=now,
                actor=SCHEDULE,
                action="pricing.run",
                target=run_id,
                before=None,
                after=self._request,
            )
