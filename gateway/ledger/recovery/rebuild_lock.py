"""The lock of a rebuild: held as long as the rebuild takes, and known to be lost once it is another's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

import redis
from redis.exceptions import LockError, RedisError

from gateway.errors import MeteringUnavailable
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import translated

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often who waits for the lock looks how far the other one is."""

LOCK_S = 10.0
"""How long the lock of a process that died keeps others waiting."""


class RebuildLock:
    """Renewed from a thread of its own, however long a step takes. Whoever holds it asks ``check`` before each step.

    Args:
        wait_s: how long to wait for another that has it.
        meanwhile: done before the lock is asked for, and again while it is waited for.

    Raises:
        MeteringUnavailable: another process has it, from entering; it is lost, from ``check``.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        wait_s: float,
        lock_s: float = LOCK_S,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self._lock = client.lock(redis_keys.REBUILD_LOCK, timeout=lock_s, thread_local=False)
        self._wait_s = wait_s
        self._meanwhile = meanwhile
        self._lock_s = lock_s
        self._over = threading.Event()
        self._sure_until = 0.0
        self._renewing = threading.Thread(target=self._renew, name="rebuild lock", daemon=True)

    def __enter__(self) -> RebuildLock:
        end = time.monotonic() + self._wait_s
        with translated():
            while True:
                self._meanwhile()
                asked = time.monotonic()
                if self._lock.acquire(blocking_timeout=max(0.0, min(LOOK_S, end - asked))):
                    break
                if time.monotonic() >= end:
                    raise MeteringUnavailable("Another process is rebuilding the hot state.")
        self._sure_until = asked + self._lock_s
        self._renewing.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._over.set()
        self._renewing.join()
        try:
            self._lock.release()
        except (LockError, RedisError):
            log.info("The lock of a rebuild was not given back: it was lost, or will expire.")

    def check(self) -> None:
        """Raise MeteringUnavailable unless no other process can have begun a rebuild since this one did."""
        with translated():
            is_ours = self._lock.owned()
        if not is_ours or time.monotonic() >= self._sure_until:
            raise MeteringUnavailable("Another process may be rebuilding the hot state; this one stops.")

    def _renew(self) -> None:
        while not self._over.wait(self._lock_s / 3):
            asked = time.monotonic()
            try:
                self._lock.reacquire()
                self._sure_until = asked + self._lock_s
            except LockError:
                return  # it is another's, as ``check`` finds
            except RedisError as error:
                log.warning("the lock of a rebuild could not be renewed: %s", error)
