"""``tokencap worker``: serves calls on sockets the supervisor opened. Started by ``tokencap serve``, not by hand."""

from __future__ import annotations

import socket
from functools import partial
from typing import Annotated, Any

import typer
import uvloop

from gateway.app import build
from gateway.metrics.definitions import REFUSALS
from gateway.redaction import log_to_stderr
from gateway.runtime.http.connections import Door
from gateway.runtime.http.limits import limits_of
from gateway.runtime.http.server import serve
from gateway.runtime.parent_death import stop_requested
from gateway.settings import read_settings

app = typer.Typer()


@app.command("worker", hidden=True)
def worker(
    fd: Annotated[int, typer.Option(help="The public socket.")],
    worker_id: Annotated[str, typer.Option("--id", help="This worker's name; no worker had it before.")],
    watch_fd: Annotated[int, typer.Option(help="Ends when the supervisor does.")],
    admin_fd: Annotated[int | None, typer.Option(help="The admin side's own socket.")] = None,
) -> None:
    """Serve calls until the supervisor says stop or is gone."""
    settings = read_settings()
    log_to_stderr(settings.log_level)
    built = build(settings, worker_id)
    served: list[tuple[Any, socket.socket]] = [(built.public, socket.socket(fileno=fd))]
    if admin_fd is not None:
        served.append((built.admin, socket.socket(fileno=admin_fd)))

    async def until() -> None:
        await stop_requested(watch_fd)
        built.health.is_stopping = True

    doors = partial(Door, limits_of(settings), count=partial(built.counters.add, REFUSALS))
    uvloop.run(serve(served, until(), settings.shutdown_s, doors))
