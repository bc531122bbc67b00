"""The lock of a rebuild: held as long as the rebuild takes; the holder notices when another process takes the lock."""

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
"""How often a process that waits for the lock runs ``meanwhile``."""

LOCK_S = 10.0
"""How long the lock of a process that died keeps others waiting."""


class RebuildLock:
    """Renewed from its own thread, however long a step takes. The holder of the lock calls ``check`` before each step.

    Args:
        wait_s: how long to wait for another process that has the lock.
        meanwhile: called before each attempt to take the lock.

    Raises:
        MeteringUnavailable: another process has the lock, from entering; the lock is lost, from ``check``.
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
                attempted = time.monotonic()
                if self._lock.acquire(blocking_timeout=max(0.0, min(LOOK_S, end - attempted))):
                    break
                if time.monotonic() >= end:
                    raise MeteringUnavailable("Another process is rebuilding the hot state.")
        self._sure_until = attempted + self._lock_s
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
        """Raise MeteringUnavailable if another process can have begun a rebuild since this process took the lock."""
        with translated():
            is_ours = self._lock.owned()
        if not is_ours or time.monotonic() >= self._sure_until:
            raise MeteringUnavailable("Another process may be rebuilding the hot state; this one stops.")

    def _renew(self) -> None:
        while not self._over.wait(self._lock_s / 3):
            attempted = time.monotonic()
            try:
                self._lock.reacquire()
                self._sure_until = attempted + self._lock_s
            except LockError:
                return  # another process has the lock, as ``check`` finds
            except RedisError as error:
                log.warning("the lock of a rebuild could not be renewed: %s", error)
