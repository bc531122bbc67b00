"""``tokencap export``: usage records for billing, from the database alone."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.progress import counted
from gateway.clock import understood
from gateway.errors import StartupError
from gateway.exports.files import write_file
from gateway.exports.formats import FORMATS, format_named
from gateway.ledger.billing.closings import all_closed_until, is_month
from gateway.ledger.billing.counted import Month, records_counted_in
from gateway.ledger.database import Database
from gateway.ledger.installation import currency_of
from gateway.ledger.read.queries import Span
from gateway.settings import read_settings

STDOUT = Path("-")

app = typer.Typer()


@app.command("export")
def export(
    out: Annotated[Path, typer.Option(metavar="PATH|-", help="The file, or - for standard output.")],
    since: Annotated[
        str | None, typer.Option("--from", metavar="T", help="The first moment: RFC 3339, or YYYY-MM-DD in UTC.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="T", help="The end, exclusive, in the same format.")
    ] = None,
    period: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="A month, of each customer in its own zone.")
    ] = None,
    customer: Annotated[str | None, typer.Option(metavar="ID", help="Only records of this customer.")] = None,
    written_as: Annotated[
        str | None,
        typer.Option("--format", metavar="F", help=f"One of {', '.join(FORMATS)}; else by the file's ending."),
    ] = None,
    is_open: Annotated[bool, typer.Option("--open", help="Also records that are not closed and may change.")] = False,
) -> None:
    """Write the usage records of a month, or of a span of time, for billing, oldest first. Needs only the database.

    A file is replaced at once when it is complete; its manifest, beside it, has its sums and its SHA-256. A closed span
    is the same bytes for ever; an open span is refused without --open.
    """
    form = format_named(written_as or _ending(out))
    span = Span(customer, *_bounds(since, until, period))
    settings = read_settings()
    with closing(Database(settings.ledger_url)) as database:
        database.check()
        currency_of(database, settings.configured_currency, settings.currency)
        month = None if period is None else Month(database, period, customer)
        is_closed = all_closed_until(database, span.until or 0, customer) if month is None else month.is_closed
        if not (is_closed or is_open):
            raise StartupError(
                "Some of this is not closed and may still change: close it, or export it with --open.", exit_code=1
            )
        records = counted(records_counted_in(database, span, month), "records")
        if out == STDOUT:
            for chunk in form.encode(records):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return
        manifest = write_file(out, form, records, is_closed=is_closed)
    print(f"{manifest.records} records with {manifest.billed_output_tokens} billed output tokens are in {out}.")


def _ending(out: Path) -> str:
    """Return the format that a file's name ends in, else JSON Lines."""
    ending = out.suffix.removeprefix(".")
    return ending if ending in FORMATS else "jsonl"


def _bounds(since: str | None, until: str | None, period: str | None) -> tuple[int | None, int | None]:
    """Return the bounds of the span of time; both are None for a month.

    Raises:
        StartupError: neither a month nor a span of time is named, or both are.
    """
    if period is not None:
        if since is not None or until is not None:
            raise StartupError("--period stands in place of --from and --to.", exit_code=2)
        if not is_month(period):
            raise StartupError("--period: a month is written as 2026-10.", exit_code=2)
        return None, None
    if since is None or until is None:
        raise StartupError("Say which time: --period, or --from and --to.", exit_code=2)
    bounds = _moment("--from", since), _moment("--to", until)
    if bounds[0] > bounds[1]:
        raise StartupError("--from is later than --to.", exit_code=2)
    return bounds


def _moment(option: str, text: str) -> int:
    try:
        return understood(text)
    except ValueError as error:
        raise StartupError(f"{option}: {error}", exit_code=2) from error
