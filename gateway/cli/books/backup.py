"""``tokencap backup``: a copy of an installation's ledger, taken while it runs."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.progress import timed
from gateway.clock import now_ms
from gateway.errors import MeteringUnavailable
from gateway.holds.store.clients import connect
from gateway.ledger.book.verify import Verification
from gateway.ledger.database import Database
from gateway.ledger.read.read_your_writes import wait_until_booked
from gateway.runtime import valkey
from gateway.runtime.backup_archive import back_up
from gateway.runtime.data_directory import DataDir
from gateway.runtime.private_files import PRIVATE_UMASK
from gateway.settings import Settings, read_settings

app = typer.Typer()


@app.command("backup")
def backup(
    to: Annotated[Path, typer.Option("--to", metavar="PATH", help="A new directory, or a new file .tar or .tar.gz.")],
) -> None:
    """Copy the ledger, which has everything that cannot be rebuilt, while the gateway runs; recount the copy.

    It first waits, at most two seconds, until every settled call is in the ledger. Exit 1 if the copy was made and its
    books do not add up.
    """
    settings = read_settings()
    os.umask(PRIVATE_UMASK)
    with closing(Database(settings.ledger_url)) as database, timed("Backing up"):
        database.check()
        with suppress(MeteringUnavailable):
            _wait_until_booked(settings)
        copy, verifications = back_up(database, to, now_ms())
    print(f"{to} is the ledger of installation {copy.state.installation} up to record {copy.state.seq}.")
    print_verifications(verifications)


def print_verifications(verifications: list[Verification]) -> None:
    """Print whether the books of a copy add up; exit 1 where they do not."""
    for verification in verifications:
        if verification.bad is not None:
            print(f"Chain {verification.chain}, row {verification.bad.seq}: {verification.bad.reason}.")
    if not all(verification.is_sound for verification in verifications):
        raise typer.Exit(1)
    print(
        f"{sum(verification.rows for verification in verifications)} rows were recounted, every one as it was written."
    )


def _wait_until_booked(settings: Settings) -> None:
    """Wait, at most two seconds, until every settled call is in the ledger; without a running Redis do not wait."""
    url = settings.redis_url
    if url == "embedded":
        data = DataDir(settings.data_dir)
        socket = data.remembered().socket
        if socket is None or not asyncio.run(valkey.is_listening(Path(socket), data.valkey)):
            return
        url = valkey.url_of(Path(socket))
    with connect(url) as client:
        wait_until_booked(client)
