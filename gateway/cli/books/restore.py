"""``tokencap restore``: an installation from its backup, in an empty data directory."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.books.backup import print_verifications
from gateway.cli.progress import timed
from gateway.ledger.database import Database
from gateway.runtime.backup_archive import restore as restored
from gateway.runtime.data_directory import claimed
from gateway.settings import read_settings

app = typer.Typer()


@app.command("restore")
def restore(
    source: Annotated[Path, typer.Option("--from", metavar="PATH", help="What `tokencap backup` wrote.")],
) -> None:
    """Put a backup into an empty data directory and database, and recount it; `tokencap serve` goes on from there.

    Existing data is never overwritten: a data directory or a database that is in use is refused.

    The hot state is rebuilt at the next start. A Redis with later records than the backup is refused then; the message
    says what to do.

    Raises:
        StartupError: there is no backup, it cannot be read, or the data directory or the database is not empty.
    """
    settings = read_settings()
    with claimed(settings.data_dir), closing(Database(settings.ledger_url)) as database, timed("Restoring"):
        backup, verifications = restored(source, database, settings.data_dir.absolute())
    print(
        f"Installation {backup.state.installation} is restored as it was at {backup.taken}, "
        f"up to record {backup.state.seq}."
    )
    print_verifications(verifications)
