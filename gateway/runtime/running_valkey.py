"""The gateway's Redis for a command beside it: the running server, or a server started for the command."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from gateway.errors import StartupError
from gateway.runtime import valkey
from gateway.runtime.data_directory import Child, DataDir, claimed
from gateway.runtime.orphans import VALKEY, retire
from gateway.runtime.processes import Process
from gateway.runtime.supervisor import SETTLE_S
from gateway.settings import Settings


@asynccontextmanager
async def reached(settings: Settings) -> AsyncIterator[str]:
    """Yield the URL of the Redis that the gateway uses.

    Raises:
        StartupError: the embedded server neither runs nor can be started.
    """
    if settings.redis_url != "embedded":
        yield settings.redis_url
        return
    data = DataDir(settings.data_dir)
    running = data.remembered()
    if running.socket is not None and await valkey.is_listening(Path(running.socket), data.valkey):
        yield valkey.url_of(Path(running.socket))
        return
    with claimed(settings.data_dir) as data:
        await retire(data, settings.shutdown_s + SETTLE_S)
        async with _started(data, settings) as socket:
            yield valkey.url_of(socket)


@asynccontextmanager
async def _started(data: DataDir, settings: Settings) -> AsyncIterator[Path]:
    """Run the embedded server until the block ends."""
    recorded, socket = data.remembered(), data.new_socket()
    server = valkey.find_server(settings.valkey_server_bin)
    command = valkey.command(server, data.valkey, socket, settings.redis_memory_max)
    environment = {**os.environ, **valkey.environment()}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, pass_fds=data.held, start_new_session=True
    )
    data.remember(replace(recorded, children=(Child(VALKEY, Process.of_pid(process.pid)),), socket=str(socket)))
    ending = asyncio.create_task(process.wait())
    coming_up = asyncio.create_task(valkey.until_up(socket))
    try:
        await asyncio.wait([ending, coming_up], return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            raise StartupError(f"Valkey ended with status {ending.result()}; see {data.valkey / 'valkey.log'}.")
        await coming_up
        yield socket
    finally:
        coming_up.cancel()
        if not ending.done():
            process.terminate()
        await ending
        data.drop_socket(socket)
        data.remember(recorded)
