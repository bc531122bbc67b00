"""``tokencap bookkeeper``: moves usage into the ledger. Started by ``tokencap serve``, not by hand."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer

from gateway import bookkeeper as books
from gateway.errors import MeteringUnavailable
from gateway.ledger.database import Database
from gateway.ledger.installation import currency_of
from gateway.redaction import log_to_stderr
from gateway.runtime import valkey
from gateway.runtime.parent_death import Stop, stop_requested
from gateway.settings import Settings, read_settings

app = typer.Typer()


@app.command("bookkeeper", hidden=True)
def bookkeeper(
    watch_fd: Annotated[int, typer.Option(help="Ends when the supervisor and all workers do.")],
    valkey_socket: Annotated[
        Path | None, typer.Option(help="The Valkey to turn off when this is the last process that uses it.")
    ] = None,
) -> None:
    """Keep the books until the supervisor says stop, or until the supervisor and all workers are gone."""
    settings = read_settings()
    log_to_stderr(settings.log_level)
    asyncio.run(_keep_books(settings, watch_fd, valkey_socket))


async def _keep_books(settings: Settings, watch_fd: int, valkey_socket: Path | None) -> None:
    with closing(Database(settings.ledger_url)) as database, suppress(MeteringUnavailable):
        # Any process may have started the bookkeeper, with any settings.
        currency_of(database, settings.configured_currency, settings.currency)
    stop = threading.Event()
    stop_signal = asyncio.create_task(stop_requested(watch_fd))
    stop_signal.add_done_callback(lambda _: stop.set())
    await asyncio.to_thread(books.run, settings, stop)
    if valkey_socket is not None and await stop_signal is Stop.ALONE:
        await valkey.shut_down(valkey_socket, settings.data_dir / "valkey")
