"""What is relied on of uvicorn beyond its documentation, so that a version that changes it is seen at once.

It makes a protocol of any callable with ``config``, ``server_state``, ``app_state`` and ``_loop``; its state has
``connections``, ``tasks``, ``default_headers`` and ``total_requests``; a stop calls ``shutdown`` of each connection, and
waits for connections and tasks; a server takes over signals in ``capture_signals`` and stops in ``shutdown``.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from functools import partial
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from tests.serving import outlived


class Recorded(asyncio.Protocol):
    created: list[dict[str, Any]]
    stopped: list[Recorded]

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.created.append(arguments)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.arguments["server_state"].connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self.arguments["server_state"].connections.discard(self)

    def shutdown(self) -> None:
        self.stopped.append(self)
        self.transport.close()


def test_its_state_has_what_a_connection_uses() -> None:
    state = ServerState()

    assert (state.connections, state.tasks, state.default_headers, state.total_requests) == (set(), set(), [], 0)


def test_a_server_takes_signals_and_stops_where_ours_do_not() -> None:
    assert inspect.iscoroutinefunction(uvicorn.Server.shutdown)
    assert callable(uvicorn.Server.capture_signals)


async def test_a_protocol_is_made_for_each_connection_and_told_of_the_stop() -> None:
    class Mine(Recorded):
        created: list[dict[str, Any]] = []  # noqa: RUF012 - of this test
        stopped: list[Recorded] = []  # noqa: RUF012

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await outlived(scope, receive, send)

    config = uvicorn.Config(app, http=partial(Mine), ws="none", log_config=None)  # type: ignore[arg-type,return-value]
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server._serve([listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        while not Mine.created:
            await asyncio.sleep(0)
        server.should_exit = True
        assert await reader.read() == b""
        await serving
        writer.close()

    (arguments,) = Mine.created
    assert set(arguments) == {"config", "server_state", "app_state", "_loop"}
    assert arguments["config"].loaded_app is not None
    assert [one.arguments for one in Mine.stopped] == [arguments]
