"""``tokencap close``: closes a month, makes its invoices final and writes them to a folder."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from gateway.billing.closing import Closing, State, patience_ms
from gateway.billing.invoice_book import InvoiceBook
from gateway.billing.invoices import Issuer
from gateway.billing.month_folder import write_month
from gateway.cli.progress import timed
from gateway.clock import now_ms
from gateway.errors import StartupError
from gateway.holds.store.clients import connect
from gateway.ledger.billing.closings import is_month
from gateway.ledger.database import Database
from gateway.ledger.installation import currency_of
from gateway.redaction import log_to_stderr
from gateway.runtime.running_valkey import reached
from gateway.settings import Settings, read_settings

PAUSE_S = 1.0

app = typer.Typer()


@app.command("close")
def close(
    period: Annotated[str, typer.Argument(metavar="YYYY-MM", help="The month, of each customer in its own zone.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write it; else tokencap-YYYY-MM.")] = None,
    wait_s: Annotated[
        int | None,
        typer.Option(min=0, help="How long to wait for open months; else the longest call and two leases."),
    ] = None,
) -> None:
    """Close a month of all customers, make its invoices final, and write them with totals and a manifest.

    It waits for in-flight calls and for records that are not in the ledger yet. If a customer's month is still open
    then, it exits with 1, naming customer and reason. A second run goes on where the first ended; closed months stay.
    """
    if not is_month(period):
        raise StartupError("A month is written as 2026-10.", exit_code=2)
    log_to_stderr()
    settings = read_settings()
    with closing(Database(settings.ledger_url)) as database:
        database.check()
        currency = currency_of(database, settings.configured_currency, settings.currency)
    settings = settings.model_copy(update={"currency": currency})
    with timed(f"Closing {period}"):
        state = asyncio.run(_closed(settings, period, wait_s))
    if state.name != "closed":
        _print_state(period, state)
        raise typer.Exit(1)
    folder = out or Path(f"tokencap-{period}")
    with closing(Database(settings.ledger_url)) as database:
        manifest = write_month(folder, database, InvoiceBook(database, Issuer.of(settings), now_ms), period)
    print(f"{period} is closed: {manifest['invoices']} invoices, {manifest['total_nanousd']} nano-units, in {folder}.")


async def _closed(settings: Settings, period: str, wait_s: int | None) -> State:
    async with reached(settings) as redis_url:
        return await asyncio.to_thread(_close, settings, redis_url, period, wait_s)


def _close(settings: Settings, redis_url: str, period: str, wait_s: int | None) -> State:
    """Close every month that can be closed; repeat until all are closed, the time is up or a month has not ended."""
    patience = patience_ms(settings.call_deadline_s, settings.lease_s)
    until = time.monotonic() + (patience / 1000 if wait_s is None else wait_s)
    with closing(Database(settings.ledger_url)) as database, connect(redis_url) as client:
        database.check()
        closer = Closing(database, client, Issuer.of(settings), patience_ms=patience, now_ms=now_ms)
        while True:
            state = closer.close(period)
            is_over = state.customers == 0 or state.ended < state.customers or time.monotonic() >= until
            if state.name == "closed" or is_over:
                return state
            time.sleep(PAUSE_S)


def _print_state(period: str, state: State) -> None:
    print(f"{period} is {state.name}: closed for {state.closed} of {state.customers} customers.", file=sys.stderr)
    for waiting in state.waiting_for:
        print(f"{waiting.customer}: {waiting.why}", file=sys.stderr)
