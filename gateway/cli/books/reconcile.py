"""``tokencap reconcile``: our records against the usage that the model's endpoint reports."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gateway.billing.reconciliation import DAY_MS, Difference, NoReport, Place, read_report, reconciled
from gateway.cli.books.upstream_report import fetched
from gateway.clock import now_ms, understood, written
from gateway.errors import StartupError
from gateway.ledger.billing.upstream_sums import sums_by_day
from gateway.ledger.database import Database
from gateway.serving.configuration import endpoint_of
from gateway.serving.upstream.endpoint import Endpoint
from gateway.settings import Settings, read_settings

WITHIN = 0.01

app = typer.Typer()


@app.command("reconcile")
def reconcile(
    reports: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="The endpoint's report: OpenAI's usage as JSON, or CSV."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="Fetch the report: from this day (UTC) on ...")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="... and up to this day, exclusive; else up to today.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Where to fetch it, with --key-env; else TOKENCAP_UPSTREAM_URL.")
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The variable with the key to fetch it with; else TOKENCAP_UPSTREAM_KEY."),
    ] = None,
    within: Annotated[float, typer.Option(min=0, max=1, help="The share by which a figure may differ.")] = WITHIN,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Compare requests and tokens of each day (UTC) and model with the endpoint's report, and say why they may differ.

    Exit 1 where a figure differs by more than `--within`.
    """
    if bool(reports) == (since is not None):
        raise StartupError("Name the files of a report, or with --from the days to fetch a report of.", exit_code=2)
    settings = read_settings()
    found_reports = (
        map(_read, reports) if reports else [_fetch(settings, *_days(since, until), url=url, key_env=key_env)]
    )
    theirs: dict[Place, dict[str, int]] = {}
    for report in found_reports:
        for place, sums in report.items():
            totals = theirs.setdefault(place, dict.fromkeys(sums, 0))
            for field, amount in sums.items():
                totals[field] += amount
    days = [day for day, _ in theirs]
    with closing(Database(settings.ledger_url)) as database:
        database.check()
        ours = sums_by_day(database, min(days), max(days) + DAY_MS)
    differences = reconciled(ours, theirs, model=settings.model, embedding_model=settings.embedding_model)
    for difference in differences:
        print(
            json.dumps({**asdict(difference), "day": _day(difference), "difference": difference.difference})
            if as_json
            else _line(difference)
        )
    beyond = [difference for difference in differences if abs(difference.share) > within]
    if not as_json:
        print(
            f"{len(set(days))} days: {len(beyond)} figures differ by more than {within:.1%}, {len(differences)} at all."
        )
    if beyond:
        raise typer.Exit(1)


def _read(path: Path) -> dict[Place, dict[str, int]]:
    try:
        return read_report(path.read_text("utf-8"))
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}.", exit_code=2) from error
    except (NoReport, UnicodeDecodeError) as error:
        raise StartupError(f"{path} is no report of usage: {error}.", exit_code=2) from error


def _days(since: str | None, until: str | None) -> tuple[int, int]:
    """Return the bounds of whole days."""
    try:
        first, last = understood(since), now_ms() if until is None else understood(until)
    except ValueError as error:
        raise StartupError(str(error), exit_code=2) from error
    first, last = first - first % DAY_MS, last - last % DAY_MS
    if first >= last:
        raise StartupError("No whole day (UTC) lies between --from and --to.", exit_code=2)
    return first, last


def _fetch(
    settings: Settings, since_ms: int, until_ms: int, *, url: str | None, key_env: str | None
) -> dict[Place, dict[str, int]]:
    """Return the endpoint's report of some whole days."""
    report_url = url or settings.upstream_url
    if report_url == "simulated":
        raise StartupError("The simulated model reports no usage: name an endpoint with --url.", exit_code=2)
    endpoint = endpoint_of(settings)
    if key_env is not None:
        key = os.environ.get(key_env)
        if not key:
            raise StartupError(f"The variable {key_env} is not set.", exit_code=2)
        endpoint = Endpoint.of(report_url, key)
    elif url is not None:  # the upstream's key is sent to no other host
        raise StartupError("With --url, name the variable of its key with --key-env.", exit_code=2)
    pages = fetched(
        Endpoint(report_url, endpoint.headers), since_ms, until_ms, embeds=settings.embedding_model is not None
    )
    try:
        return read_report(json.dumps(pages), range(since_ms, until_ms, DAY_MS))
    except NoReport as error:
        raise StartupError(f"{report_url} answers no report of usage: {error}.", exit_code=3) from error


def _day(difference: Difference) -> str:
    return written(difference.day)[:10]


def _line(difference: Difference) -> str:
    return (
        f"{_day(difference)}  {difference.model}  {difference.what}: ours {difference.ours:,}, "
        f"theirs {difference.theirs:,}, {difference.difference:+,} ({difference.share:+.2%}): {difference.cause}."
    )
