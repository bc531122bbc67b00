"""A child process that is kept running: started again, after a growing pause, whenever it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from gateway.errors import StartupError


async def finished(work: Coroutine[Any, Any, object], *, unless: Coroutine[Any, Any, object]) -> bool:
    """Do the work and return True; or cancel it once ``unless`` is over, and return False."""
    working, other = asyncio.create_task(work), asyncio.create_task(unless)
    try:
        await asyncio.wait([working, other], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
            return True
        working.cancel()
        await asyncio.wait([working])
        return False
    finally:
        working.cancel()
        other.cancel()


FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
DOUBLINGS = 6
"""The number of doublings that takes the first pause past the longest."""
CALM_S = 30.0
"""A child that has run this long starts with the first pause again."""

log = logging.getLogger(__name__)

Spawn = Callable[[], Awaitable[asyncio.subprocess.Process]]
OnProcess = Callable[[asyncio.subprocess.Process], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Failures:
    """How many times in a row a child ended."""

    count: int = 0

    def after(self, ran_s: float) -> Failures:
        """Return the count after another end; it is 1 again for a child that ran ``CALM_S`` or longer."""
        return Failures(1 if ran_s >= CALM_S else self.count + 1)

    @property
    def pause_s(self) -> float:
        """How long to wait before the next start: twice as long each time, up to a maximum."""
        return min(FIRST_PAUSE_S * 2.0 ** min(self.count - 1, DOUBLINGS), LONGEST_PAUSE_S)


async def _at_once(process: asyncio.subprocess.Process) -> None:
    """Return at once, for a child that is up as soon as it is started."""


class Restarted:
    """One child. ``spawn`` starts it, ``up`` returns once it is usable, ``ended`` is called at each end.

    The first end is also returned to the caller (``first_end``); later ends are only logged.
    """

    def __init__(self, name: str, spawn: Spawn, ended: OnProcess, up: OnProcess = _at_once) -> None:
        self.name = name
        self.is_up = asyncio.Event()
        self._spawn = spawn
        self._ended = ended
        self._up = up
        self._stop = asyncio.Event()
        self._first_end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._process: asyncio.subprocess.Process | None = None
        self._is_renewed = False
        self._keeping = asyncio.create_task(self._keep(), name=name)

    async def first_end(self) -> str:
        """Wait for the child's first end and return it as a sentence."""
        return await asyncio.shield(self._first_end)

    async def renew(self, patience_s: float) -> None:
        """End the child and start it again at once; return when it has ended. It is killed after ``patience_s``."""
        process = self._process
        if process is None or process.returncode is not None:
            return  # it is being started already
        self._is_renewed = True
        process.terminate()
        if not await finished(process.wait(), unless=asyncio.sleep(patience_s)):
            log.warning("%s did not end within %g s and is killed.", self.name, patience_s)
            process.kill()
            await process.wait()

    async def stop(self, patience_s: float) -> None:
        """Terminate the child, kill it when it takes longer than ``patience_s``, and do not start it again."""
        self._stop.set()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
        _, pending = await asyncio.wait([self._keeping], timeout=patience_s)
        if pending and self._process is not None and self._process.returncode is None:
            log.warning("%s did not end within %g s and is killed.", self.name, patience_s)
            self._process.kill()
        await self._keeping

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        failures = Failures()
        while not self._stop.is_set():
            began = loop.time()
            end = await self._run()
            if not self._first_end.done():
                self._first_end.set_result(end)
            if self._stop.is_set():
                return
            if self._is_renewed:
                self._is_renewed = False
                continue
            failures = failures.after(loop.time() - began)
            log.warning("%s It is started again in %g s.", end, failures.pause_s)
            await finished(asyncio.sleep(failures.pause_s), unless=self._stop.wait())

    async def _run(self) -> str:
        """Run the child once, from its start to its end; return how it ended."""
        try:
            process = await self._spawn()
        except OSError as error:
            return f"{self.name} cannot be started: {error.strerror}."
        except Exception as error:
            log.exception("%s cannot be started", self.name)
            return f"{self.name} cannot be started: {error}."
        self._process = process
        if self._stop.is_set():
            process.terminate()
        coming_up = asyncio.create_task(self._come_up(process))
        status = await process.wait()
        coming_up.cancel()
        self.is_up.clear()
        try:
            await self._ended(process)
        except Exception:
            log.exception("the end of %s could not be noted", self.name)
        return f"{self.name} (process {process.pid}) ended with status {status}."

    async def _come_up(self, process: asyncio.subprocess.Process) -> None:
        try:
            await self._up(process)
        except StartupError as error:
            log.error("%s", error.message)
            _terminate(process)
        except Exception:
            log.exception("%s is terminated: it is unknown whether it is up", self.name)
            _terminate(process)
        else:
            self.is_up.set()


def _terminate(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
