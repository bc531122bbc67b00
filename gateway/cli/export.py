"""``tokencap export``: usage records for billing, from the database alone."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from gateway.billing.exports.files import write_file
from gateway.billing.exports.formats import FORMATS, format_named
from gateway.cli.progress import counted
from gateway.clock import understood
from gateway.errors import StartupError
from gateway.ledger.database import Database
from gateway.ledger.installation import currency_of
from gateway.ledger.queries import Span, usage_records_in
from gateway.settings import read_settings

STDOUT = Path("-")

app = typer.Typer()


@app.command("export")
def export(
    since: Annotated[
        str, typer.Option("--from", metavar="T", help="The first moment: RFC 3339, or YYYY-MM-DD in UTC.")
    ],
    until: Annotated[str, typer.Option("--to", metavar="T", help="The first moment that is no longer in it.")],
    out: Annotated[Path, typer.Option(metavar="PATH|-", help="The file, or - for standard output.")],
    written_as: Annotated[str, typer.Option("--format", metavar="F", help=f"One of {', '.join(FORMATS)}.")] = "jsonl",
) -> None:
    """Write the usage records of a time for billing, oldest first. Needs only the database.

    A file is replaced at once when it is whole; beside it stands a manifest with its sums and its SHA-256.
    """
    form = format_named(written_as)
    span = Span(since=_moment("--from", since), until=_moment("--to", until))
    if span.since is not None and span.until is not None and span.since > span.until:
        raise StartupError("--from is later than --to.", exit_code=2)
    settings = read_settings()
    with closing(Database(settings.ledger_url)) as database:
        database.check()
        currency_of(database, settings.given_currency, settings.currency)
        records = counted(usage_records_in(database, span), "records")
        if out == STDOUT:
            for chunk in form.encode(records):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return
        manifest = write_file(out, form, records)
    print(f"{manifest.records} records with {manifest.billed_output_tokens} billed output tokens are in {out}.")


def _moment(option: str, given: str) -> int:
    try:
        return understood(given)
    except ValueError as error:
        raise StartupError(f"{option}: {error}", exit_code=2) from error
