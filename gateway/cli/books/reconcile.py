"""``tokencap reconcile``: our records against the usage that the model's endpoint reports."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gateway.billing.reconciliation import DAY_MS, Difference, NoReport, Place, read_report, reconciled
from gateway.clock import written
from gateway.errors import StartupError
from gateway.ledger.billing.upstream_sums import sums_by_day
from gateway.ledger.database import Database
from gateway.settings import read_settings

WITHIN = 0.01

app = typer.Typer()


@app.command("reconcile")
def reconcile(
    reports: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="The endpoint's report: OpenAI's usage as JSON, or CSV.")
    ],
    within: Annotated[float, typer.Option(min=0, max=1, help="The share by which a figure may differ.")] = WITHIN,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Compare requests and tokens of each day (UTC) and model with the endpoint's report, and say why they may differ.

    Exit 1 where a figure differs by more than `--within`.
    """
    theirs: dict[Place, dict[str, int]] = {}
    for path in reports:
        for place, sums in _read(path).items():
            known = theirs.setdefault(place, dict.fromkeys(sums, 0))
            for what, amount in sums.items():
                known[what] += amount
    days = [day for day, _ in theirs]
    settings = read_settings()
    with closing(Database(settings.ledger_url)) as database:
        database.check()
        ours = sums_by_day(database, min(days), max(days) + DAY_MS)
    found = reconciled(ours, theirs, model=settings.model, embedding_model=settings.embedding_model)
    for one in found:
        print(json.dumps({**asdict(one), "day": _day(one), "difference": one.difference}) if as_json else _said(one))
    beyond = [one for one in found if abs(one.share) > within]
    if not as_json:
        print(f"{len(set(days))} days: {len(beyond)} figures differ by more than {within:.1%}, {len(found)} at all.")
    if beyond:
        raise typer.Exit(1)


def _read(path: Path) -> dict[Place, dict[str, int]]:
    try:
        return read_report(path.read_text("utf-8"))
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}.", exit_code=2) from error
    except (NoReport, UnicodeDecodeError) as error:
        raise StartupError(f"{path} is no report of usage: {error}.", exit_code=2) from error


def _day(one: Difference) -> str:
    return written(one.day)[:10]


def _said(one: Difference) -> str:
    return (
        f"{_day(one)}  {one.model}  {one.what}: ours {one.ours:,}, theirs {one.theirs:,}, "
        f"{one.difference:+,} ({one.share:+.2%}): {one.cause}."
    )
