"""Ends the processes that a killed supervisor left behind: its children first, then its Valkey."""

from __future__ import annotations

import logging
from pathlib import Path

from gateway.errors import StartupError
from gateway.runtime import valkey
from gateway.runtime.data_directory import DataDir, Running
from gateway.runtime.processes import Process

VALKEY = "valkey"
KILLED_S = 10.0

log = logging.getLogger(__name__)


async def retire(data: DataDir, patience_s: float) -> None:
    """Wait until no process of an earlier start runs on the directory; record its workers as ended.

    Its children stop by themselves once their supervisor is gone, and finish their calls; a child that takes longer
    than ``patience_s`` is killed. Valkey ends last, so that the workers can still settle. A process that cannot be
    proven to belong to this very directory is not touched.

    Raises:
        StartupError: a process of an earlier start still runs that cannot be distinguished from another program, or
            cannot be observed, and so must not be killed.
    """
    leftover = data.remembered()
    for child in (child for child in leftover.children if child.role != VALKEY):
        await _wait_or_kill(child.role, child.process, patience_s, data)
    if leftover.socket is not None:
        socket = Path(leftover.socket)
        await valkey.shut_down(socket, data.valkey)
        for child in (child for child in leftover.children if child.role == VALKEY):
            await _wait_or_kill(child.role, child.process, KILLED_S, data)
        data.drop_socket(socket)
    if not await data.alone(patience_s):
        raise StartupError(
            f"Something of an earlier start on {data.path} still runs and is not seen from here, "
            "as in another container: stop it first."
        )
    data.remember(Running(ended_workers=workers_of(leftover)))


def workers_of(leftover: Running) -> tuple[str, ...]:
    """Return the ids of a supervisor's workers, and of those whose end it could not report to Redis."""
    return (*leftover.ended_workers, *(child.worker for child in leftover.children if child.worker is not None))


async def _wait_or_kill(role: str, process: Process, patience_s: float, data: DataDir) -> None:
    if process.is_running():
        log.info("Waiting for the %s of an earlier start, process %d, to end.", role, process.pid)
    if await process.ended(patience_s):
        return
    if not process.is_certain:
        raise StartupError(
            f"Process {process.pid}, the {role} of an earlier start on {data.path}, does not end: "
            f"stop it, or remove {data.running_file} if it is another program by now."
        )
    process.kill()
    if not await process.ended(KILLED_S):
        raise StartupError(f"Process {process.pid}, the {role} of an earlier start on {data.path}, cannot be killed.")
