"""A pipe that reports the end of its holders, however they ended: the kernel closes it when a process ends."""

from __future__ import annotations

import asyncio
import enum
import os
import signal


class ParentPipe:
    """A pipe into which nothing is ever written. Its reading end wakes up once no process holds its writing end."""

    def __init__(self) -> None:
        self.watch_fd, self.hold_fd = os.pipe()

    def close(self) -> None:
        os.close(self.watch_fd)
        os.close(self.hold_fd)


class Stop(enum.Enum):
    """Why a process stops: it received a signal, or the processes it works for are gone."""

    ASKED = "asked"
    ALONE = "alone"


async def stop_requested(watch_fd: int | None) -> Stop:
    """Wait for SIGTERM, SIGINT, or the end of all processes that hold the pipe's writing end."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[Stop] = loop.create_future()

    def resolve(reason: Stop) -> None:
        if not stopped.done():
            stopped.set_result(reason)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, resolve, Stop.ASKED)
    if watch_fd is not None:
        loop.add_reader(watch_fd, resolve, Stop.ALONE)
    try:
        return await stopped
    finally:
        if watch_fd is not None:
            loop.remove_reader(watch_fd)
