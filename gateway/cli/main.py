"""The command ``tokencap``: its list of commands, and how each ends - one sentence and an exit code."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer

from gateway.errors import CallerError, StartupError, TokencapError
from gateway.redaction import redacted

if TYPE_CHECKING:
    from gateway.runtime.children import Execute

WRONG_USE = 2
UNAVAILABLE = 3
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: the module that has it, and its line in the list of commands."""

    module: str
    help: str = ""
    hidden: bool = False


COMMANDS = {
    "demo": Entry("gateway.cli.demo", "Show the whole loop on this machine, with a simulated model and customers."),
    "serve": Entry("gateway.cli.serve", "Run the gateway, from environment or tokencap.toml."),
    "simulate": Entry("gateway.cli.simulated_model", "Run the simulated OpenAI-compatible model on its own."),
    "price": Entry("gateway.cli.price.commands", "Compute, check and publish menus."),
    "customers": Entry("gateway.cli.customers", "Create many customers and their keys, credit and charge."),
    "export": Entry("gateway.cli.books.export", "Write usage records for billing."),
    "backup": Entry("gateway.cli.books.backup", "Copy the ledger while the gateway runs."),
    "restore": Entry("gateway.cli.books.restore", "Put a backup into an empty data directory."),
    "close": Entry("gateway.cli.books.close", "Close a month: invoices, totals and a manifest."),
    "reconcile": Entry("gateway.cli.books.reconcile", "Compare the records with the endpoint's own report."),
    "ledger": Entry("gateway.cli.books.ledger", "Check the books, or rebuild the hot state from them."),
    "admin-token": Entry("gateway.cli.admin_api", "Print a new admin token, retiring the lost one."),
    "doctor": Entry("gateway.cli.doctor", "Check configuration, persistence, clock and upstream."),
    "worker": Entry("gateway.cli.worker_process", hidden=True),
    "bookkeeper": Entry("gateway.cli.bookkeeper_process", hidden=True),
}

LOOKS_FOR_ITSELF = ("doctor", "demo")
"""``doctor`` reports wrong settings itself; ``demo`` uses none."""


def main() -> None:
    """Run the command that the process was started with."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str], execute: Execute | None = None) -> int:
    """Run one command; return its exit code: 0 done, 1 the answer is no, 2 wrong use, 3 unavailable.

    Args:
        arguments: the command and its options.
        execute: how ``serve`` and ``demo`` start their processes; None as production does.
    """
    try:
        _refuse_misspelt(arguments)
        app = _app(arguments)
        return int(app(list(arguments) or ["--help"], prog_name="tokencap", standalone_mode=False, obj=execute) or 0)
    except typer.TyperException as error:
        return _say(error.format_message(), error.exit_code)
    except StartupError as error:
        return _say(error.message, error.exit_code)
    except CallerError as error:
        return _say(error.message, WRONG_USE)
    except TokencapError as error:
        return _say(error.message, UNAVAILABLE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        return _say(f"{error.filename or 'The system'}: {error.strerror or error}.", UNAVAILABLE)
    except Exception as error:  # noqa: BLE001 - a fault of ours, which nothing above reports
        return _say(_confess(error), UNAVAILABLE)


def _refuse_misspelt(arguments: Sequence[str]) -> None:
    """Refuse environment variables with our prefix that name no setting, except in a call for help."""
    if "--help" in arguments or not arguments or arguments[0] in LOOKS_FOR_ITSELF:
        return
    if any(name.upper().startswith("TOKENCAP_") for name in os.environ):
        settings = _loaded("gateway.settings")
        settings.refuse_misspelt(os.environ)


def _app(arguments: Sequence[str]) -> typer.Typer:
    """Return the commands. Only the called command is loaded, so that none waits for the libraries of others."""
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    app = typer.Typer(help="Meter and sell one aligned model in tiers.", add_completion=False, no_args_is_help=True)
    for name, entry in COMMANDS.items():
        if name == command:
            app.add_typer(_loaded(entry.module).app)
        else:
            app.command(name, help=entry.help, hidden=entry.hidden)(_only_listed)
    return app


def _loaded(module: str) -> Any:
    """Import a command's module with the garbage collector off: it frees little and takes a quarter of the time.

    Imported objects live as long as the process, so later collections leave them out, too.
    """
    gc.disable()
    try:
        return import_module(module)
    finally:
        gc.freeze()
        gc.enable()


def _only_listed() -> None:
    """Stand for a command that is listed and was not called."""


def _say(sentence: str, exit_code: int) -> int:
    print(redacted(" ".join(sentence.split())), file=sys.stderr)
    return exit_code


def _confess(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"tokencap failed by a fault of its own, {type(error).__name__} at {where.filename}:{where.lineno}: {error}"


if __name__ == "__main__":
    main()
