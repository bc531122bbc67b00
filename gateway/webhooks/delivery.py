"""Delivers notices from Redis to the operator's webhook, trying for a day; the ledger never waits for a delivery."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import redis
from redis.exceptions import LockError

from gateway.errors import MeteringUnavailable
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import next_entries, translated
from gateway.webhooks.notices import read_notice, signed

log = logging.getLogger(__name__)

PAUSE_S = 1.0
POST_S = 10.0
LOCK_S = 6 * POST_S
"""How long the lock lasts: longer than any turn."""

STREAMS = {redis_keys.notices(bucket): "0-0" for bucket in redis_keys.ALL_BUCKETS}

READ_AT_ONCE = 100
"""The most notices of one bucket that a turn reads."""

BACK_OFF_FIRST_S = 1.0
BACK_OFF_MOST_S = 600.0
GIVEN_UP_AFTER_MS = 86_400_000
DEAD_NOTICES_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Webhook:
    """The URL of the webhook, and the key that signs notices."""

    url: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    """A notice that waits in its stream."""

    stream: str
    entry: str
    fields: dict[str, str]

    @property
    def written_at(self) -> int:
        return int(self.entry.partition("-")[0])


@dataclass(frozen=True, slots=True)
class Failed:
    """How often a delivery failed, and when the next attempt is due, on the monotonic clock."""

    times: int
    next_at: float


class WebhookDelivery:
    """Delivers each notice at least once: a notice leaves its stream only after the webhook took it.

    Any number of deliveries may run; one at a time delivers.

    Args:
        webhook: None where the operator wants no notices; they are then dropped.
        monotonic: the clock for the pauses between attempts.
        fault: called for each unexpected fault; deliveries continue after it.
    """

    def __init__(
        self,
        client: redis.Redis,
        http: httpx.Client,
        webhook: Webhook | None,
        *,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        fault: Callable[[], None] = lambda: None,
    ) -> None:
        self._redis = client
        self._http = http
        self._webhook = webhook
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._fault = fault
        self._failed: dict[str, Failed] = {}

    def run(self, stop: threading.Event) -> None:
        """Deliver until ``stop`` is set; the remaining notices wait for the next start."""
        while not stop.is_set():
            try:
                was_taken = self.turn()
            except MeteringUnavailable as error:
                log.warning("notices wait: %s", error.__cause__ or error)
                was_taken = False
            except Exception:
                log.exception("a turn of the webhook delivery failed; the next turn is in %g s", PAUSE_S)
                self._fault()
                was_taken = False
            stop.wait(0 if was_taken else PAUSE_S)

    def turn(self) -> bool:
        """Try to deliver the oldest notice that is due; return whether the webhook took it.

        Raises:
            MeteringUnavailable: Redis is unavailable.
        """
        with translated():
            lock = self._redis.lock(redis_keys.COURIER_LOCK, timeout=LOCK_S, blocking=False)
            if not lock.acquire():
                return False
            try:
                return self._turn()
            finally:
                with suppress(LockError):
                    lock.release()

    def _turn(self) -> bool:
        waiting = self._waiting()
        self._failed = {
            pending.entry: self._failed[pending.entry] for pending in waiting if pending.entry in self._failed
        }
        if self._webhook is None:
            for pending in waiting:
                self._redis.xdel(pending.stream, pending.entry)
            return False
        due = next((pending for pending in waiting if self._is_due(pending)), None)
        return due is not None and self._carry(due, self._webhook)

    def _waiting(self) -> list[Waiting]:
        waiting = [
            Waiting(stream, name, _fields(entry))
            for stream, entries in next_entries(self._redis, STREAMS, READ_AT_ONCE)
            for name, entry in entries
        ]
        return sorted(waiting, key=lambda notice: notice.written_at)

    def _is_due(self, pending: Waiting) -> bool:
        failed = self._failed.get(pending.entry)
        return failed is None or self._monotonic() >= failed.next_at

    def _carry(self, pending: Waiting, webhook: Webhook) -> bool:
        try:
            notice = read_notice(pending.entry, pending.fields)
            body = notice.body()
        except Exception:
            log.exception("Entry %s of %s is no notice and is set aside.", pending.entry, pending.stream)
            self._fault()
            self._keep_dead(pending)
            return False
        answer = self._post(notice.id, body, webhook)
        if answer is None:
            self._redis.xdel(pending.stream, pending.entry)
            return True
        if self._now_ms() - pending.written_at >= GIVEN_UP_AFTER_MS:
            self._keep_dead(pending)
            log.error("Notice %s is set aside, no webhook took it for a day: %s.", notice.id, body.decode())
            return False
        before = self._failed.get(pending.entry)
        times = before.times + 1 if before else 1
        wait_s = min(BACK_OFF_FIRST_S * 2 ** (times - 1), BACK_OFF_MOST_S)
        self._failed[pending.entry] = Failed(times, self._monotonic() + wait_s)
        log.warning("notice %s was not taken (%s); it is sent again in %d s", notice.id, answer, wait_s)
        return False

    def _keep_dead(self, pending: Waiting) -> None:
        dead: dict[Any, Any] = {**pending.fields, "entry": pending.entry}
        self._redis.xadd(redis_keys.DEAD_NOTICES, dead, maxlen=DEAD_NOTICES_MOST)
        self._redis.xdel(pending.stream, pending.entry)

    def _post(self, notice_id: str, body: bytes, webhook: Webhook) -> str | None:
        """Post once; return None if the webhook took the notice, else the failure."""
        headers = signed(notice_id, body, webhook.key, self._now_ms() // 1000)
        try:
            with self._http.stream("POST", webhook.url, content=body, headers=headers, timeout=POST_S) as response:
                return None if response.is_success else f"status {response.status_code}"  # its body is not read
        except Exception as error:  # noqa: BLE001 - after any error this delivery is tried again
            if not isinstance(error, httpx.HTTPError):
                self._fault()
            return type(error).__name__


def _fields(entry: dict[Any, Any]) -> dict[str, str]:
    """Return an entry as text; invalid bytes are kept in escaped form, and the entry is then not a notice."""
    return {
        name.decode("utf-8", "backslashreplace"): value.decode("utf-8", "backslashreplace")
        for name, value in entry.items()
    }
