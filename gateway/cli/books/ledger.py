"""``tokencap ledger``: checks the ledger, migrates its tables, or rebuilds the hot state from it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from gateway.catalog.projector import CatalogProjector
from gateway.cli.books.kept_seals import kept_seals, seal_hash
from gateway.cli.progress import timed
from gateway.clock import now_ms
from gateway.errors import NotSealedYet, StartupError
from gateway.holds.store.clients import connect
from gateway.holds.store.projection import Projection
from gateway.holds.store.watermarks import Watermarks
from gateway.ledger.billing.invoice_check import wrong_invoices, wrong_notes
from gateway.ledger.book.dead_letters import count_dead_letters
from gateway.ledger.book.proofs import proof_of
from gateway.ledger.book.seals import seals_in_order
from gateway.ledger.book.verify import Published, Verification, verify_all
from gateway.ledger.book.watermark import LedgerBehind, NothingCounted
from gateway.ledger.database import Database
from gateway.ledger.installation import currency_of, refuse_other_redis
from gateway.ledger.recovery.hot_state import bounds_of
from gateway.ledger.recovery.recovery import Recovery
from gateway.ledger.sums.rollup import Rollup
from gateway.ledger.sums.sum_check import WrongTotal, wrong_sums
from gateway.redaction import log_to_stderr
from gateway.runtime.running_valkey import reached
from gateway.settings import Settings, read_settings

LEFT_OF_ERASED = "these are where they were, and have not been changed since."

app = typer.Typer(
    name="ledger",
    help="Check the books, migrate their tables, or rebuild the hot state from them.",
    no_args_is_help=True,
)


@app.command("verify")
def verify(
    seal: Annotated[list[str], typer.Option("--seal", metavar="HASH", help="The hash of a seal that you kept.")] = [],  # noqa: B006
    seals: Annotated[
        Path | None,
        typer.Option("--seals", metavar="FILE", help="Seals that you kept, as `tokencap ledger seals` prints."),
    ] = None,
) -> None:
    """Recount the books row by row; exit 1 where they do not add up, naming the first bad row and each wrong total.

    Anyone who can write the whole ledger can forge a ledger that adds up: seals stored elsewhere show the difference.
    """
    published = Published(() if seals is None else kept_seals(seals), tuple(map(seal_hash, seal)))
    with closing(Database(read_settings().ledger_url)) as database, timed("Recounting"):
        database.check()
        verifications = verify_all(database, published)
        dead_letters = count_dead_letters(database)
        for verification in verifications:
            print("\n".join(_lines(verification)))
        if not verifications:
            print("The books are empty.")
        wrong = 0
        for total in wrong_totals(database):
            wrong += 1
            print(_line(total))
    if dead_letters:
        print(f"{dead_letters} records are set aside and in no chain: see the table usage_aside for the reasons.")
    if wrong or not all(verification.is_sound for verification in verifications):
        raise typer.Exit(1)


@app.command("seals")
def seals() -> None:
    """Print the seals, oldest first, one JSON object a line. Store them where writers of the ledger have no access."""
    with closing(Database(read_settings().ledger_url)) as database:
        database.check()
        for seal in seals_in_order(database):
            print(json.dumps(seal.to_json()))


@app.command("proof")
def proof(record: Annotated[str, typer.Argument(metavar="ID", help="The id of a usage record.")]) -> None:
    """Print the proof of a usage record, which docs/verify_proof.py checks."""
    with closing(Database(read_settings().ledger_url)) as database:
        database.check()
        try:
            record_proof = proof_of(database, record)
        except NotSealedYet as error:
            raise StartupError(error.message, exit_code=1) from error
    if record_proof is None:
        raise StartupError(f"There is no usage record {record}.", exit_code=1)
    print(json.dumps(record_proof, ensure_ascii=False))


@app.command("migrate")
def migrate() -> None:
    """Bring the ledger's tables to this version's shape; `tokencap serve` and a reload do it by themselves."""
    with closing(Database(read_settings().ledger_url)) as database:
        database.migrate()
    print("The ledger's tables are at this version.")


@app.command("recover")
def recover(
    without_missing: Annotated[
        bool, typer.Option("--without-missing", help="Give up records that the ledger had and now lacks.")
    ] = False,
    book_missing: Annotated[
        bool, typer.Option("--book-missing", help="Book what Redis counts of such records, and keep what it holds.")
    ] = False,
    recount: Annotated[
        bool,
        typer.Option("--recount", help="First add up the running sums from the records again, where a sum was wrong."),
    ] = False,
) -> None:
    """Rebuild what Redis holds - customers, keys, menus, windows, conversations - from the ledger."""
    if without_missing and book_missing:
        raise StartupError("--without-missing and --book-missing are two ways; choose one.", exit_code=2)
    log_to_stderr()
    settings = read_settings()
    with timed("Booking" if book_missing else "Rebuilding"):
        print(asyncio.run(_recover(settings, without_missing, book_missing, recount)))


async def _recover(settings: Settings, without_missing: bool, book_missing: bool, recount: bool) -> str:
    async with reached(settings) as redis_url:
        return await asyncio.to_thread(_rebuild, settings, redis_url, without_missing, book_missing, recount)


def _rebuild(settings: Settings, redis_url: str, without_missing: bool, book_missing: bool, recount: bool) -> str:
    with closing(Database(settings.ledger_url)) as database, connect(redis_url) as client:
        database.check()
        refuse_other_redis(client, database)
        currency = currency_of(database, settings.configured_currency, settings.currency)
        if recount:
            Rollup(database).forget()
        projection = Projection(client)
        recovery = Recovery(
            database,
            client,
            CatalogProjector(database, projection),
            bounds=bounds_of(settings),
            now_ms=now_ms,
            marked=Watermarks(settings.watermarks_file).write,
        )
        try:
            if book_missing:
                return f"What Redis counts is booked: {recovery.book_missing(currency)} corrections."
            generation = recovery.rebuild(without_missing=without_missing)
            return f"The hot state is rebuilt from the ledger; its generation is {generation}."
        except LedgerBehind as error:
            raise StartupError(str(error.__cause__)) from error
        except NothingCounted as error:
            raise StartupError(str(error)) from error


def wrong_totals(database: Database) -> Iterator[WrongTotal]:
    """Yield each stored total that differs from the sum of its records."""
    return chain(wrong_sums(database), wrong_invoices(database), wrong_notes(database))


def _line(total: WrongTotal) -> str:
    whose = "All customers" if total.customer is None else f"Customer {total.customer}"
    stored = "is not stored" if total.stored is None else f"is stored as {total.stored}"
    if total.recounted is None:
        return f"{whose}, {total.of}: {total.column} {stored}, and there are no records for it."
    return f"{whose}, {total.of}: {total.column} {stored}, and the records add up to {total.recounted}."


def _lines(verification: Verification) -> list[str]:
    name = f"Chain {verification.chain}"
    if verification.bad is not None:
        record = f" ({verification.bad.id})" if verification.bad.id else ""
        return [f"{name}, row {verification.bad.seq}{record}: {verification.bad.reason}."]
    summary = f"{name}: {verification.rows} rows, every one as it was written"
    if verification.dropped:
        summary = (
            f"{name}: {verification.rows} rows: {verification.dropped} were dropped by retention, "
            "the others are as they were written"
        )
    lines = [
        f"{summary}, but for {verification.erased} that were erased: {LEFT_OF_ERASED}"
        if verification.erased
        else f"{summary}."
    ]
    if (last := verification.last) is not None:
        lines.append(
            f"{name}: {verification.seals} seals cover rows 1 to {last.last_seq}; the last has the hash {last.hash}."
        )
    return lines + [
        f"{name}: no seal has the hash {missing_hash}, so rows that it covered were rewritten or cut off."
        for missing_hash in verification.unseen
    ]
