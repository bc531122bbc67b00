"""Serves ASGI apps with uvicorn on open sockets, until it is stopped."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import uvicorn

from gateway.runtime.http.connections import Door
from gateway.runtime.http.protocol import Connection
from gateway.runtime.sockets import raise_open_files_limit

GARBAGE = 50_000
"""The number of new objects after which the collector looks for cycles."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle no signals: they are for the entire process, which may run two servers."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Notify each caller with its next answer that the connection ends, also on a connection just accepted."""
        state = self.server_state
        state.default_headers = [*state.default_headers, (b"connection", b"close")]
        await super().shutdown(sockets)


async def serve(
    served: Sequence[tuple[Any, socket.socket]],
    until: Coroutine[Any, Any, object],
    shutdown_s: float,
    doors: Callable[[], Door] = Door,
) -> None:
    """Serve each app on its socket until ``until`` is over; then finish in-flight requests.

    Requests are cancelled after ``shutdown_s``. Each listener has its own limits: a crowd at one listener takes no room
    from the others.
    """
    servers = [(uvicorn_server(app, shutdown_s, doors()), listener) for app, listener in served]
    serving = [asyncio.create_task(server.serve(sockets=[listener])) for server, listener in servers]
    _freeze_garbage_collection()
    raise_open_files_limit()
    stopping = asyncio.create_task(until)
    await asyncio.wait([stopping, *serving], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for server, _ in servers:
        server.should_exit = True
    await asyncio.gather(*serving)


def _freeze_garbage_collection() -> None:
    """Exclude imported objects from garbage collection; nearly all objects of calls are freed by reference counting.

    A collection over a hundred thousand objects of libraries after every few hundred calls costs as much as the calls.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)


def uvicorn_server(app: Any, shutdown_s: float, door: Door) -> uvicorn.Server:
    """Return the server that starts and stops an app and accepts its connections; ``Connection`` reads and writes."""
    config = uvicorn.Config(
        app,
        http=cast(Any, partial(Connection, door=door)),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(shutdown_s),
    )
    return _Server(config)
