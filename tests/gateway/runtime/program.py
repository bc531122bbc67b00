"""A small program with the commands that a supervisor starts: real processes, sockets and lifelines, a tiny app.

Started with ``unwilling`` in its environment variable it ends at once, as a worker with bad settings does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.runtime import valkey
from gateway.runtime.http.server import serve
from gateway.runtime.parent_death import Stop, stop_requested

COMMAND = (sys.executable, "-m", "tests.gateway.runtime.program")
UNWILLING = "TOKENCAP_MODEL"


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Awaitable[None]]
) -> None:
    """Answer every path with the number of the process, ``/slow`` only when the caller has sent its whole body."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


async def keep_books(watch_fd: int, valkey_socket: Path | None) -> None:
    if await stop_requested(watch_fd) is Stop.ALONE and valkey_socket is not None:
        await valkey.shut_down(valkey_socket)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    for name in ("--fd", "--admin-fd", "--watch-fd"):
        parser.add_argument(name, type=int)
    parser.add_argument("--id")
    parser.add_argument("--valkey-socket", type=Path)
    arguments, _ = parser.parse_known_args()
    if os.environ[UNWILLING] == f"unwilling {arguments.command}":
        sys.exit(3)
    if arguments.command == "ledger":
        return  # its tables are as they should be
    if arguments.command == "bookkeeper":
        asyncio.run(keep_books(arguments.watch_fd, arguments.valkey_socket))
        return
    fds = [fd for fd in (arguments.fd, arguments.admin_fd) if fd is not None]
    served = [(app, socket.socket(fileno=fd)) for fd in fds]
    asyncio.run(serve(served, stop_requested(arguments.watch_fd), shutdown_s=5))


if __name__ == "__main__":
    main()
