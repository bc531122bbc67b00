"""The bookkeeper's process: it books usage records, reclaims lapsed holds, projects the catalogue, compares sums."""

from __future__ import annotations

import logging
import os
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import redis

from gateway.billing.retention import Retention
from gateway.catalog.increase_end import end_due
from gateway.catalog.projector import CatalogProjector, project_pending
from gateway.catalog.subscriptions import Subscriptions
from gateway.clock import now_ms
from gateway.errors import MeteringUnavailable
from gateway.holds.maintenance.reclaim import Reclaimer
from gateway.holds.maintenance.redis_upkeep import Findings, Maintenance
from gateway.holds.store.clients import connect
from gateway.holds.store.inflight import Survey
from gateway.holds.store.projection import Projection
from gateway.holds.store.watermarks import Watermarks
from gateway.ledger.book.dead_letters import count_dead_letters
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.watermark import Fallen
from gateway.ledger.database import WRITER_CACHE_KB, Database
from gateway.ledger.recovery.conservation import Conservation
from gateway.ledger.recovery.hot_state import bounds_of
from gateway.ledger.recovery.recovery import Recovery
from gateway.ledger.recovery.stillness import Stillness
from gateway.ledger.sums.rollup import BATCH, Rollup
from gateway.ledger.writer import Writer
from gateway.metrics.counters import Counters, Sheet, count_records, read_sheet
from gateway.metrics.definitions import (
    BREACHES,
    CLOCKS_APART,
    DEAD_LETTERS,
    FAULTS,
    HELD_TOKENS,
    HOLDS,
    LEDGER_LAG,
    REDIS_MEMORY,
    REDIS_MEMORY_MAX,
    TURNED_AT,
)
from gateway.repricing.scheduler import Scheduler
from gateway.settings import Settings, without_settings
from gateway.webhooks.delivery import Webhook, WebhookDelivery
from pricing.usage import UsageRecord

log = logging.getLogger(__name__)

TURN_S = 0.2
MANY = 1_000
"""The number of entries in a turn from which the next turn does not wait; fewer entries are cheaper in one batch."""
SWEEP_S = 1.0
ROLLUPS_A_SWEEP = 10
PROJECTED_A_SWEEP = 1_000
"""The most customers whose changes a sweep projects into Redis: about half a second, in which records wait."""
LATE_MS = 3_600_000
"""How long, in addition to the longest call, it may take until a record is in the book."""
AWAY_S = 0.5
RETENTION_ENDS_S = 5.0
SHEET = "bookkeeper"


def _do(
    counters: Counters, on_fault: Callable[[], object], name: str, duty: Callable[..., object], *arguments: object
) -> None:
    """Do a duty other than moving records. A fault of it is logged and counted, and does not stop the other duties.

    Raises:
        MeteringUnavailable, Fallen: Redis or the ledger is unavailable, or Redis lost its state. No duty can go on.
    """
    try:
        duty(*arguments)
    except (MeteringUnavailable, Fallen):
        raise
    except Exception:
        log.exception("%s failed; it is tried again soon", name)
        counters.add(FAULTS, name)
        on_fault()


@contextmanager
def _delivering(settings: Settings, fault: Callable[[], None]) -> Iterator[None]:
    """Deliver notices to the operator's webhook while the block runs, in a thread with its own clients."""
    stop = threading.Event()
    key = settings.webhook_key
    webhook = Webhook(settings.webhook_url, key) if settings.webhook_url and key else None
    # Reading the public authorities takes 20 ms; only a webhook with https needs them.
    is_tls = webhook is not None and urlsplit(webhook.url).scheme == "https"
    tls = httpx.create_ssl_context(trust_env=False) if is_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with connect(settings.redis_url) as client, httpx.Client(trust_env=False, verify=tls) as http:
        delivery = WebhookDelivery(client, http, webhook, now_ms=now_ms, monotonic=time.monotonic, fault=fault)
        thread = threading.Thread(target=delivery.run, args=(stop,), name="courier")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@contextmanager
def _retaining(settings: Settings, counters: Counters) -> Iterator[threading.Event]:
    """Drop old records in a thread, one turn each time the event is set: adding up a large month takes minutes.

    The thread has its own database. A turn that outlasts the bookkeeper ends with the process; nothing is lost.
    """
    stop, due, database = threading.Event(), threading.Event(), Database(settings.ledger_url)
    retention = Retention(database, now_ms, settings.retention_days)

    def retain() -> None:
        while not stop.is_set():
            if due.wait(SWEEP_S):
                due.clear()
                with suppress(MeteringUnavailable):
                    _do(counters, lambda: None, "retention", retention.turn)

    thread = threading.Thread(target=retain, name="retention", daemon=True)
    thread.start()
    try:
        yield due
    finally:
        stop.set()
        thread.join(RETENTION_ENDS_S)
        if not thread.is_alive():
            database.close()


def run(settings: Settings, stop: threading.Event, monotonic: Callable[[], float] = time.monotonic) -> None:
    """Move records into the ledger until ``stop`` is set, and then until no record is waiting."""
    # A restarted bookkeeper goes on from the counts on the sheet, so its counters never fall.
    counters = Counters(read_sheet(settings.metrics_dir, SHEET))
    with _delivering(settings, lambda: counters.add(FAULTS, "courier")), _retaining(settings, counters) as due:
        _keep(settings, stop, monotonic, counters, due)


def _keep(
    settings: Settings, stop: threading.Event, monotonic: Callable[[], float], counters: Counters, due: threading.Event
) -> None:
    database = Database(settings.ledger_url, cache_kb=WRITER_CACHE_KB)
    client = connect(settings.redis_url)
    projection = Projection(client)
    sheet = Sheet(settings.metrics_dir, SHEET, counters)
    sealer, watermarks = Sealer(database, now_ms), Watermarks(settings.watermarks_file)
    survey = Survey(client)
    reports: Any = {"note": partial(_note, counters, sealer), "marked": watermarks.write}
    projecting, writer = CatalogProjector(database, projection), Writer(client, database, **reports)
    bounds = bounds_of(settings)
    recovery = Recovery(database, client, projecting, bounds=bounds, now_ms=now_ms, survey=survey, **reports)
    generation, lease_ms, upkeep = "", int(settings.lease_s * 1000), Maintenance(client, now_ms)
    shared: Any = {"generation": lambda: generation, "now_ms": now_ms, "survey": survey.latest}
    reclaimer = Reclaimer(client, lease_ms=lease_ms, monotonic=monotonic, **shared)
    conservation, scheduler = Conservation(database, client, **shared), _scheduler(settings, database)
    stillness, turns, sweep_at = Stillness(database, survey), 1, 0.0
    do = partial(_do, counters, stillness.end)
    duties = _duties(settings, database, projection, scheduler)
    dated = _dated_duties(settings, database, client, projection, due)
    try:
        while not stop.is_set():
            try:
                if monotonic() >= sweep_at:
                    findings = upkeep.turn(removes=turns > 0)
                    generation = recovery.rebuild() if findings.has_lost else recovery.ensure()
                    turns = stillness.turns_due()
                    do("reclaim", reclaimer.turn)
                    if turns or sealer.has_waiting:
                        do("seals", sealer.turn)
                    if turns:
                        # No period is charged while the time is unknown.
                        for name, duty in duties if findings.now is None else [*dated, *duties]:
                            do(name, duty)
                        do("gauges", _measure, counters, conservation, database, stillness, turns)
                    _gauge(counters, findings)
                    sheet.write()
                    sweep_at = monotonic() + SWEEP_S
                stop.wait(0 if writer.turn() >= MANY else TURN_S)
            except Fallen:
                sweep_at = 0.0  # rebuild first
            except MeteringUnavailable as error:
                log.warning("the books wait: %s", error.__cause__ or error)
                reclaimer.lose_touch()
                stop.wait(AWAY_S)
        while writer.turn():
            pass
        do("seals", partial(sealer.turn, all_of_it=True))
    except MeteringUnavailable as error:
        log.error("records are still waiting in Redis: %s", error.__cause__ or error)
    finally:
        scheduler.stop()
        sheet.write()
        database.close()
        client.close()


def _duties(
    settings: Settings, database: Database, projection: Projection, scheduler: Scheduler
) -> list[tuple[str, Callable[[], object]]]:
    """Return the duties that a change in the ledger makes due, each with its name."""
    late_ms = int(settings.call_deadline_s * 1000) + LATE_MS
    return [
        ("rollup", partial(_roll_up, Rollup(database), late_ms)),
        ("projection", partial(project_pending, database, projection, PROJECTED_A_SWEEP)),
        ("pricing", scheduler.turn),
    ]


def _dated_duties(
    settings: Settings, database: Database, client: redis.Redis, projection: Projection, due: threading.Event
) -> list[tuple[str, Callable[[], object]]]:
    """Return the duties that need the right time, each with its name."""
    subscriptions = Subscriptions(database, client, projection, settings)
    return [
        ("subscriptions", lambda: subscriptions.turn(now_ms())),
        ("increases", lambda: end_due(database, projection, now_ms())),
        ("retention", due.set),
    ]


def _scheduler(settings: Settings, database: Database) -> Scheduler:
    return Scheduler(
        database,
        {**without_settings(os.environ), **settings.to_environment()},
        now_ms=now_ms,
        new_id=lambda: f"run_{secrets.token_hex(12)}",
        every_h=settings.pricing_every_h,
        asked={"days": settings.pricing_days, "publish": settings.pricing_publish},
    )


def _note(counters: Counters, sealer: Sealer, records: Sequence[UsageRecord]) -> None:
    """Count the booked records, and report them to the sealer."""
    count_records(counters, records)
    sealer.hear(records)


def _roll_up(rollup: Rollup, late_ms: int) -> None:
    """Add the latest records to the running sums, up to ``ROLLUPS_A_SWEEP`` batches of them.

    A record may come up to ``late_ms`` after its conversation's last sign of life.
    """
    for _ in range(ROLLUPS_A_SWEEP):
        if rollup.turn(now_ms()) < BATCH:
            break
    rollup.forget_ended(now_ms(), late_ms)


def _measure(
    counters: Counters, conservation: Conservation, database: Database, stillness: Stillness, turns: int
) -> None:
    """Measure holds, windows and the ledger, and set the gauges. A window that does not add up is checked every sweep."""
    counted = conservation.turn(turns)
    counters.put(HOLDS, counted.holds)
    counters.put(HELD_TOKENS, counted.held_tokens)
    counters.put(BREACHES, counted.breaches)
    counters.put(LEDGER_LAG, counted.waiting)
    counters.put(DEAD_LETTERS, count_dead_letters(database))
    if counted.breaches:
        stillness.end()


def _gauge(counters: Counters, findings: Findings) -> None:
    """Set the gauges of Redis, and of the sweep itself."""
    counters.put(CLOCKS_APART, findings.ahead_ms)
    counters.put(REDIS_MEMORY, findings.memory)
    counters.put(REDIS_MEMORY_MAX, findings.memory_max)
    counters.put(TURNED_AT, now_ms() // 1000)
