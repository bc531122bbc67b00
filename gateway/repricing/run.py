"""``tokencap price run``: carries out one pricing run; started by the bookkeeper, in a process of its own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import typer

from gateway.admin.menus.pricing_runs import RunInput
from gateway.catalog import audit_rows, menu_rows, run_rows
from gateway.catalog.menu_rows import Effective
from gateway.catalog.problems import AdminProblem
from gateway.catalog.run_rows import Replaced, Taken
from gateway.clock import now_ms
from gateway.errors import MeteringUnavailable, TokencapError
from gateway.ledger.database import Database
from gateway.redaction import log_to_stderr
from gateway.settings import Settings, read_settings
from pricing.estimate.observations.conversations import CannotEstimate

BEAT_S = 1.0
NICE = 10
"""Callers come first."""

EXPERIMENT = "experiment"
"""Where menus come from that are a step away from another."""

WITHDRAWN = 4
"""How the process ends whose run was cancelled or taken over."""

log = logging.getLogger(__name__)


def run(run_id: str, attempt: int) -> None:
    """Carry out a pricing run that was taken up; nothing is printed, all of it is in the ledger."""
    log_to_stderr()
    os.nice(NICE)
    settings = read_settings()
    with closing(Database(settings.ledger_url)) as database:
        database.check()
        try:
            with database.read() as connection:
                taken = run_rows.resumed(connection, run_id, attempt)
            work = Work(database, settings, taken)
            with work.alive():
                work.carry_out()
        except Replaced:
            raise typer.Exit(WITHDRAWN) from None


class Work:
    """One run, from its being taken up to its end."""

    def __init__(self, database: Database, settings: Settings, taken: Taken) -> None:
        self._database = database
        self._settings = settings
        self._taken = taken
        self._asked = RunInput(**taken.asked).model_dump()  # what was left out, the schedule leaves out as well
        self._doing = ("starting", 0)

    def tell(self, doing: str, percent: int) -> None:
        """Say what is being done; the next beat carries it."""
        self._doing = (doing, percent)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Beat while the block runs. A run that is not ours any more ends the process: nobody wants what it finds."""
        is_done = threading.Event()

        def keep_beating() -> None:
            while not is_done.wait(BEAT_S):
                try:
                    with self._database.write() as connection:
                        run_rows.beat(connection, self._taken, now_ms(), *self._doing)
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
        """Compute, and write down what it came to. A fault of ours is a failed run with its sentence, not a dead one."""
        try:
            found = self._found()
        except (CannotEstimate, TokencapError) as error:
            self._finish("refused", str(error))
            return
        except Exception as error:
            log.exception("the pricing run failed")
            self._finish("failed", f"It failed by a fault of its own: {type(error).__name__}: {error}"[:500])
            return
        result = {"estimates": found.estimates, "comparison": found.comparison}
        if found.experiment is not None:
            result["experiment"] = found.experiment
            self._keep_arms(found.arms)
        if found.refused is not None:
            self._finish("refused", found.refused, result=result, draft=found.draft)
            return
        self._keep(found.draft, found.held_back, found.moves, result)

    def _found(self) -> Any:
        from gateway.repricing.drafting import draft  # noqa: PLC0415 - numpy loads only once there is something to compute

        return draft(self._database, self._settings.currency, self._asked, now_ms(), self.tell)

    def _keep(
        self, draft: dict[str, Any], held_back: str | None, moves: dict[str, str], result: dict[str, Any]
    ) -> None:
        """Put the draft among the menus, and in force if that was asked and nothing holds it back: all or nothing."""
        asked, reason = self._asked, held_back
        goes = {**moves, **asked["moves"]} if asked["publish"] != "no" and held_back is None else None
        try:
            with self._database.write() as connection:
                self._conclude(connection, draft, reason, result, goes)
        except AdminProblem as error:  # it would leave customers without a tier: the draft stays a draft
            with self._database.write() as connection:
                self._conclude(connection, draft, error.message, result, None)

    def _keep_arms(self, arms: Sequence[dict[str, Any]]) -> None:
        """Put the menus to try among the menus; they are in force only once somebody publishes them."""
        with self._database.write() as connection:
            for arm in arms:
                menu_rows.known_or_added(connection, arm, source=EXPERIMENT, created=now_ms())

    def _conclude(
        self,
        connection: Any,
        draft: dict[str, Any],
        reason: str | None,
        result: dict[str, Any],
        moves: dict[str, str] | None,
    ) -> None:
        """End the run with its draft, put in force with these moves unless there are none."""
        now, published = now_ms(), None
        menu_rows.hold_still(connection, to_publish=True)
        menu = menu_rows.known_or_added(connection, draft, source="mechanism", created=now)
        if moves is not None:
            effective: Effective = self._asked["publish"]
            published = menu_rows.publish(connection, menu, now_ms=now, effective=effective, moves=moves).at
            after = {"effective": effective, "moves": moves, "run": self._taken.id}
            audit_rows.record(
                connection,
                time=now,
                actor=self._taken.actor,
                action="menu.publish",
                target=menu.version,
                before=None,
                after=after,
            )
        run_rows.finish(
            connection, self._taken, now, state="done", reason=reason, result=result, draft=draft, published=published
        )

    def _finish(self, state: str, reason: str, **found: Any) -> None:
        with self._database.write() as connection:
            run_rows.finish(connection, self._taken, now_ms(), state=state, reason=reason, **found)
