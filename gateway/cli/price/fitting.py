"""``tokencap price fit``: estimates a market from what customers did, read from the ledger or from files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from gateway.cli.file_arguments import STANDARD, name_of, read_object, records_in, replace_file
from gateway.cli.progress import counted, timed
from gateway.clock import now_ms, understood
from gateway.errors import StartupError
from pricing.market.fields import NotAMarket
from pricing.market.market import Market, read_market
from pricing.menus.menu import Menu, NotAMenu

if TYPE_CHECKING:
    from gateway.ledger.database import Database
    from pricing.estimate.fit import Estimate
    from pricing.estimate.given import Given
    from pricing.estimate.observations.statistics import Statistics
    from pricing.mechanism.uncertainty import Understated

DRAWS = 60
"""The number of equally likely markets; fewer miss the tails of the price that keeps the marginal type."""

Disconnect = Literal["stops", "runs"]
Json = dict[str, Any]


class Variadic(TyperCommand):
    """A command whose options for files take several words: ``--usage a b`` is ``--usage a --usage b``."""

    several = ("--usage", "--menu")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        option, spread = None, list[str]()
        for word in args:
            if word.startswith("--") or (word.startswith("-") and len(word) > 1):
                option = word if word in self.several else None
                spread += [] if option else [word]
            else:
                spread += [option, word] if option else [word]
        return super().parse_args(ctx, spread)


def fit(
    out: Annotated[Path, typer.Option(metavar="PATH|-", help="Where market.json goes; - is standard output.")],
    usage: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE…", help="Usage records, a JSON object a line; - is standard input."),
    ] = None,
    menu: Annotated[list[Path] | None, typer.Option(metavar="FILE…", help="The menus that they name.")] = None,
    database: Annotated[str | None, typer.Option(metavar="URL", help="A ledger, in place of files.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="T", help="Only conversations from the week of this moment on.")
    ] = None,
    own_tiers: Annotated[
        bool, typer.Option("--own-tiers", help="With files: customers took the tier of their account themselves.")
    ] = False,
    assumed: Annotated[
        Path | None,
        typer.Option("--market", help="A market.json for what no record shows: worth, costs, customers never served."),
    ] = None,
    value: Annotated[
        float | None, typer.Option("--value-nanousd", min=0, help="The worth of an immediate answer.")
    ] = None,
    estimate_value: Annotated[
        bool, typer.Option("--estimate-value", help="Estimate that worth from the tiers that customers took.")
    ] = False,
    may_differ: Annotated[
        bool,
        typer.Option("--lengths-may-differ", help="Go on even if lengths vary with tier or urgency; sells one tier."),
    ] = False,
    no_holders: Annotated[
        bool, typer.Option("--without-holders", help="Set aside the few with a third of the conversations or more.")
    ] = False,
    cost: Annotated[float | None, typer.Option("--cost-nanousd-per-token", min=0, help="The cost of a token.")] = None,
    on_disconnect: Annotated[
        Disconnect | None, typer.Option("--cost-on-disconnect", help="What the model does once the customer has left.")
    ] = None,
    draws: Annotated[int, typer.Option(min=2, max=1000, help="Equally likely markets to draw.")] = DRAWS,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the draws.")] = 0,
) -> None:
    """Estimate a market from what customers did, with intervals, and say what the records cannot tell.

    Worth and costs are yours to set by options; otherwise they are those of --market, or of the newest menu's market.
    """
    _either(estimate_value and value is not None, "--value-nanousd or --estimate-value")
    _either((database is None) == (usage is None), "--usage with --menu, or --database")
    since_ms, tools = _moment(since), estimators()
    try:
        if database is not None:
            statistics, bodies = _in_ledger(tools, database, since_ms)
        else:
            bodies = [read_object(path, "--menu") for path in menu or ()]
            lines = counted(records_in(usage or (), _lines), "records")
            statistics = tools.record_statistics(lines, _menus(bodies), own_tiers=own_tiers, since_ms=since_ms)
        assumptions = tools.inputs(_assumed(assumed, bodies), value, cost, on_disconnect, is_estimated=estimate_value)
        assumptions = replace(assumptions, lengths_may_differ=may_differ, without_holders=no_holders)
        with timed("Estimating the market"):
            estimate = tools.fit(statistics, assumptions, draws=draws, random=tools.random(seed))
            market = tools.market_of(estimate, tools.priced(estimate))
    except tools.refuses as error:
        raise StartupError(f"No market can be estimated: {error}", exit_code=1) from error
    _write_market(out, market, tools.summary(statistics, estimate))


def _either(is_wrong: bool, options: str) -> None:
    if is_wrong:
        raise StartupError(f"Give either {options}.", exit_code=2)


def _in_ledger(tools: Estimators, database: str, since_ms: int) -> tuple[Statistics, list[Json]]:
    """Return what customers did, from the ledger, and the newest computed menu."""
    with closing(tools.ledger(database)) as ledger, timed("Adding up the ledger"):
        ledger.check()
        statistics = tools.ledger_statistics(ledger, now_ms(), since_ms=since_ms)[0]
        return statistics, tools.menu_bodies(ledger)


def _write_market(out: Path, market: Json, summary: list[str]) -> None:
    """Write the market; if it goes to a file, print the summary."""
    text = json.dumps(market, indent=2, ensure_ascii=False) + "\n"
    if out == STANDARD:
        print(text, end="")
        return
    replace_file(out, text)
    print(*summary, f"The market is in {out}.", sep="\n")


@dataclass(frozen=True, slots=True)
class Estimators:
    """The parts of estimating that need numpy or the ledger."""

    ledger: Callable[[str], Database]
    ledger_statistics: Callable[..., tuple[Statistics, dict[str, Menu]]]
    record_statistics: Callable[..., Statistics]
    menu_bodies: Callable[[Database], list[Json]]
    fit: Callable[..., Estimate]
    inputs: Callable[..., Given]
    priced: Callable[[Estimate], Understated]
    market_of: Callable[[Estimate, Understated], Json]
    summary: Callable[[Statistics, Estimate], list[str]]
    random: Callable[[int], Any]
    refuses: type[Exception]


def estimators() -> Estimators:
    """Load numpy and the functions that need it: only here, so that only commands that estimate wait for it."""
    from numpy.random import default_rng  # noqa: PLC0415

    from gateway.ledger.database import Database  # noqa: PLC0415
    from gateway.repricing import estimating, observed  # noqa: PLC0415
    from pricing.estimate import as_market  # noqa: PLC0415
    from pricing.estimate.fit import fit  # noqa: PLC0415
    from pricing.estimate.observations import records  # noqa: PLC0415
    from pricing.estimate.observations.conversations import CannotEstimate  # noqa: PLC0415

    return Estimators(
        ledger=Database,
        ledger_statistics=observed.ledger_statistics,
        record_statistics=records.seen_in_records,
        menu_bodies=observed.menu_bodies,
        fit=fit,
        inputs=estimating.stated_inputs,
        priced=as_market.priced,
        market_of=as_market.market_of,
        summary=estimating.summary,
        random=default_rng,
        refuses=CannotEstimate,
    )


def _moment(since: str | None) -> int:
    if since is None:
        return 0
    try:
        return understood(since)
    except ValueError as error:
        raise StartupError(f"--since: {error}", exit_code=2) from error


def _lines(path: Path) -> Iterable[str]:
    """Yield the lines of a file."""
    if path == STANDARD:
        yield from sys.stdin
        return
    with path.open(encoding="utf-8") as file:
        yield from file


def _menus(bodies: Iterable[Json]) -> dict[str, Menu]:
    try:
        menus = [Menu.from_json(body) for body in bodies]
    except NotAMenu as error:
        raise StartupError(f"--menu: {error}", exit_code=2) from error
    return {menu.version: menu for menu in menus}


def _assumed(path: Path | None, bodies: list[Json]) -> Market | None:
    """Return the market for what no record shows: the file's, or the market of the newest menu that has a market.

    Raises:
        StartupError: the file or the menu has no valid market.
    """
    with_market = [body for body in bodies if isinstance(body.get("market"), Mapping)]
    newest = max(with_market, key=lambda body: str(body.get("created", "")), default=None)
    market_json = read_object(path, "--market") if path is not None else newest and newest["market"]
    try:
        return None if market_json is None else read_market(market_json)
    except NotAMarket as error:
        raise StartupError(f"{name_of(path) if path else 'The market of the menu'}: {error}", exit_code=2) from error
