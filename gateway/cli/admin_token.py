"""``tokencap admin-token``: a new admin token for an operator who lost the old one."""

from __future__ import annotations

from contextlib import closing

import typer

from gateway.catalog.admin_tokens import new_admin_token
from gateway.clock import now_ms
from gateway.ledger.database import Database
from gateway.settings import read_settings

app = typer.Typer()


@app.command("admin-token")
def admin_token() -> None:
    """Print a new admin token, retiring the lost one. It is shown once and kept as a hash."""
    with closing(Database(read_settings().ledger_url)) as database:
        database.check()
        print(new_admin_token(database, now_ms()))
