"""``tokencap price run``: carries out one pricing run; the bookkeeper starts it, in its own process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import typer

from gateway.admin.menus.run_input import RunInput
from gateway.catalog import audit_rows, menu_rows, run_rows
from gateway.catalog.menu_rows import Effective
from gateway.catalog.problems import AdminProblem
from gateway.catalog.run_rows import Replaced, RunClaim
from gateway.clock import now_ms
from gateway.errors import MeteringUnavailable, TokencapError
from gateway.ledger.database import Database
from gateway.redaction import log_to_stderr
from gateway.settings import Settings, read_settings
from pricing.estimate.observations.conversations import CannotEstimate

BEAT_S = 1.0
NICE = 10
"""The niceness of a run's process: callers come first."""

EXPERIMENT = "experiment"
"""The source of menus that are one step away from another menu."""

WITHDRAWN = 4
"""The exit status of a process whose run was cancelled or taken over."""

Draft = Callable[[Database, str, Mapping[str, Any], int, Callable[[str, int], None]], Any]
"""Computes a ``DraftResult``; see ``drafting.draft``."""

log = logging.getLogger(__name__)


def run(run_id: str, attempt: int, draft: Draft | None = None) -> None:
    """Carry out a pricing run that was taken up; its results go into the ledger, and nothing is printed.

    Args:
        run_id: the run.
        attempt: the number of the attempt that this process carries out.
        draft: computes the draft; ``drafting.draft`` unless another function is passed.
    """
    log_to_stderr()
    os.nice(NICE)
    settings = read_settings()
    with closing(Database(settings.ledger_url)) as database:
        database.check()
        try:
            with database.read() as connection:
                claim = run_rows.resumed(connection, run_id, attempt)
            work = Work(database, settings, claim, draft or _computed)
            with work.alive():
                work.carry_out()
        except Replaced:
            raise typer.Exit(WITHDRAWN) from None


def _computed(
    database: Database, currency: str, request: Mapping[str, Any], now: int, report: Callable[[str, int], None]
) -> Any:
    """Compute a draft; numpy loads only once there is something to compute."""
    from gateway.repricing.drafting import draft  # noqa: PLC0415 - see above

    return draft(database, currency, request, now, report)


class Work:
    """One run, from the moment it is taken up to its end."""

    def __init__(self, database: Database, settings: Settings, claim: RunClaim, draft: Draft) -> None:
        self._database = database
        self._settings = settings
        self._claim = claim
        self._draft = draft
        self._request = RunInput(**claim.asked).model_dump()  # fills in the fields that the request left out
        self._doing = ("starting", 0)

    def report(self, step: str, percent: int) -> None:
        """Record the present step; the next beat reports it."""
        self._doing = (step, percent)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Send heartbeats while the block runs. If the run is no longer ours, the process ends without a result."""
        is_done = threading.Event()

        def keep_beating() -> None:
            while not is_done.wait(BEAT_S):
                try:
                    with self._database.write() as connection:
                        run_rows.beat(connection, self._claim, now_ms(), *self._doing)
                except Replaced:
                    if not is_done.is_set():
                        os._exit(WITHDRAWN)
                except MeteringUnavailable as error:
                    log.warning("the pricing run cannot beat: %s", error.__cause__ or error)
                except Exception:
                    log.exception("the pricing run cannot beat; it tries again")

        beating = threading.Thread(target=keep_beating, name="beat")
        beating.start()
        try:
            yield
        finally:
            is_done.set()
            beating.join()

    def carry_out(self) -> None:
        """Compute and record the result. A fault of this code gives a failed run with a reason, not a dead process."""
        try:
            outcome = self._draft(self._database, self._settings.currency, self._request, now_ms(), self.report)
        except (CannotEstimate, TokencapError) as error:
            self._finish("refused", str(error))
            return
        except Exception as error:
            log.exception("the pricing run failed")
            self._finish("failed", f"It failed by a fault of its own: {type(error).__name__}: {error}"[:500])
            return
        result = {"estimates": outcome.estimates, "comparison": outcome.comparison}
        if outcome.experiment is not None:
            result["experiment"] = outcome.experiment
            self._keep_arms(outcome.arms)
        if outcome.refused is not None:
            self._finish("refused", outcome.refused, result=result, draft=outcome.draft)
            return
        self._keep(outcome.draft, outcome.held_back, outcome.moves, result)

    def _keep(
        self, draft: dict[str, Any], held_back: str | None, moves: dict[str, str], result: dict[str, Any]
    ) -> None:
        """Add the draft to the menus, and put it in force if requested and not held back: all or nothing."""
        request, reason = self._request, held_back
        all_moves = {**moves, **request["moves"]} if request["publish"] != "no" and held_back is None else None
        try:
            with self._database.write() as connection:
                self._conclude(connection, draft, reason, result, all_moves)
        except AdminProblem as error:  # as where customers would have a tier that is not sold: the draft stays a draft
            with self._database.write() as connection:
                self._conclude(connection, draft, error.message, result, None)

    def _keep_arms(self, arms: Sequence[dict[str, Any]]) -> None:
        """Add the experiment's menus to the menus; they are in force only once somebody publishes them."""
        with self._database.write() as connection:
            for arm in arms:
                menu_rows.find_or_add(connection, arm, source=EXPERIMENT, created=now_ms())

    def _conclude(
        self,
        connection: Any,
        draft: dict[str, Any],
        reason: str | None,
        result: dict[str, Any],
        moves: dict[str, str] | None,
    ) -> None:
        """End the run with its draft; put the draft in force with ``moves``, unless ``moves`` is None."""
        now, published = now_ms(), None
        menu_rows.hold_still(connection, to_publish=True)
        menu = menu_rows.find_or_add(connection, draft, source="mechanism", created=now)
        if moves is not None:
            effective: Effective = self._request["publish"]
            published = menu_rows.publish(connection, menu, now_ms=now, effective=effective, moves=moves).at
            after = {"effective": effective, "moves": moves, "run": self._claim.id}
            audit_rows.record(
                connection,
                time=now,
                actor=self._claim.actor,
                action="menu.publish",
                target=menu.version,
                before=None,
                after=after,
            )
        run_rows.finish(
            connection, self._claim, now, state="done", reason=reason, result=result, draft=draft, published=published
        )

    def _finish(self, state: str, reason: str, **outcome: Any) -> None:
        with self._database.write() as connection:
            run_rows.finish(connection, self._claim, now_ms(), state=state, reason=reason, **outcome)
