"""``tokencap price``: computes a menu from a market, checks a menu, publishes a menu."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.admin_api import Token, Url, admin_client
from gateway.cli.file_arguments import STANDARD, name_of, read_object, replace_file
from gateway.cli.price.comparing import compare, compare_models, frontier, sensitivity
from gateway.cli.price.fitting import Variadic, fit
from gateway.cli.price.menu_request import (
    Bill,
    Everyone,
    MarketFile,
    MenuOut,
    Names,
    Near,
    Objective,
    PriceMax,
    Robust,
    SurplusMin,
    SurplusWeight,
    Tiers,
    Today,
    WorseOffMax,
    further_of,
    is_estimated,
    option_of,
    tiers_of,
)
from gateway.cli.price.publishing import Effective, Publisher
from gateway.cli.progress import timed
from gateway.clock import now_ms, written
from gateway.errors import StartupError
from gateway.repricing.starters import names as starter_names
from gateway.repricing.starters import starter
from pricing.market.fields import NotAMarket
from pricing.market.market import Market, read_market
from pricing.menus.menu import NotAMenu
from pricing.report.menu_table import amount, earning_lines, resumption_lines, tier_lines

if TYPE_CHECKING:
    from pricing.certificate import Verdict
    from pricing.menus.objectives import Further

app = typer.Typer(name="price", help="Compute, check and publish menus.", no_args_is_help=True)

app.command("fit", cls=Variadic)(fit)
app.command("compare")(compare)
app.command("compare-models")(compare_models)
app.command("sensitivity")(sensitivity)
app.command("frontier")(frontier)

MenuFile = Annotated[Path, typer.Argument(metavar="MENU", help="menu.json, or - for standard input.")]


@app.command("menu")
def menu(
    market: MarketFile,
    out: MenuOut,
    tiers: Tiers = None,
    bill: Bill = "conversation",
    objective: Objective = "profit",
    names: Names = None,
    robust: Robust = None,
    near: Near = None,
    surplus_weight: SurplusWeight = 0.0,
    everyone: Everyone = False,
    price_max: PriceMax = None,
    surplus_min: SurplusMin = None,
    worse_off_max: WorseOffMax = None,
    today: Today = None,
) -> None:
    """Compute the most profitable menu of a market, with its certificate.

    For an estimated market it is a robust menu of as many tiers as the estimate bears, unless options say otherwise.
    """
    market_json = read_object(market, "--market")
    tier_names = None if names is None else [name.strip() for name in names.split(",")]
    plain = objective == "profit" and not (surplus_weight or everyone or price_max or surplus_min or today)
    further = further_of(
        surplus_weight=surplus_weight,
        everyone=everyone,
        robust=(is_estimated(market_json) and plain) if robust is None else robust,
        near=near,
        price_max=price_max,
        surplus_min=surplus_min,
        worse_off_max=worse_off_max,
        today=today,
    )
    tools = numerics()
    try:
        request = tools.further(further)
    except (NotAMarket, NotAMenu) as error:
        raise StartupError(f"{option_of(error)}: {error}", exit_code=2) from error
    try:
        with timed("Computing the menu"):
            menu_json = tools.optimal_menu(
                read_market(market_json),
                tiers=tiers if tiers is not None else tiers_of(market_json),
                bill=bill,
                names=tier_names,
                created=written(now_ms()),
                objective=objective,
                further=request,
            )
    except NotAMarket as error:
        raise StartupError(f"{name_of(market)}: {error}", exit_code=2) from error
    except NotAMenu as error:
        raise StartupError(f"{option_of(error)}: {error}", exit_code=2) from error
    text = json.dumps(menu_json, indent=2, ensure_ascii=False) + "\n"
    if out == STANDARD:
        print(text, end="")
        return
    replace_file(out, text)
    print(*_computed(menu_json, objective), sep="\n")
    _advise(tools, read_market(market_json), menu_json)


@app.command("starter")
def starter_market(
    out: Annotated[Path, typer.Option(metavar="PATH|-", help="Where market.json goes; - is standard output.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(starter_names())}.")] = "chat",
) -> None:
    """Write a market to begin with while there are no records. It is an assumption, and says so."""
    text = json.dumps(starter(name), indent=2) + "\n"
    if out == STANDARD:
        print(text, end="")
        return
    replace_file(out, text)
    print(f"The assumed market {name!r} is in {out}; replace it by an estimate as soon as there are records.")


@app.command("verify")
def verify(
    menu: MenuFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as one JSON object.")] = False,
) -> None:
    """Check a menu from the file alone: every figure is computed again. Exit 1 names the worst violation."""
    menu_json = read_object(menu, "MENU")
    with timed("Checking the menu"):
        verdict = numerics().verify(menu_json)
    if as_json:
        print(json.dumps(asdict(verdict)))
    if verdict.violation is not None:
        raise StartupError(verdict.violation, exit_code=1)
    if not as_json:
        print(*_sound(menu_json, verdict), sep="\n")


@app.command("report")
def report(
    menu: Annotated[Path, typer.Option(metavar="PATH", help="menu.json, as `tokencap price menu` wrote it.")],
    out: Annotated[Path, typer.Option(metavar="PATH|-", help="Where the page goes; - is standard output.")],
    market: Annotated[
        Path | None, typer.Option(metavar="PATH|-", help="The menu's own market.json; else the copy inside the menu.")
    ] = None,
) -> None:
    """Write one HTML page on a menu: tiers and who takes them, profit, worth, slacks. It needs no network."""
    menu_json = read_object(menu, "--menu")
    market_json = None if market is None else read_object(market, "--market")
    tools = numerics()
    try:
        with timed("Writing the report"):
            verdict = tools.verify(menu_json)
            if verdict.violation is not None:
                raise StartupError(f"{name_of(menu)}: {verdict.violation}", exit_code=1)
            page = tools.report(read_market(menu_json["market"] if market_json is None else market_json), menu_json)
    except NotAMarket as error:
        raise StartupError(f"{name_of(menu if market is None else market)}: {error}", exit_code=2) from error
    if out == STANDARD:
        print(page, end="")
        return
    replace_file(out, page)
    print(f"The report on menu {menu_json['version']} is in {out}.")


@app.command("publish")
def publish(
    menu: MenuFile,
    url: Url,
    token: Token,
    effective: Annotated[Effective, typer.Option(help="When customers get it.")] = "now",
    moves: Annotated[
        str | None, typer.Option(metavar="OLD=NEW,…", help="The new tiers of customers whose tier it lacks.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Publish it even if sending cut answers back pays.")] = False,
) -> None:
    """Send a menu to a running gateway, which checks it again, and put it in force."""
    menu_json = read_object(menu, "MENU")
    tier_moves = _moves(moves)
    if not yes:
        _confirm(menu_json)
    with admin_client(url, token) as client, timed("The gateway checks the menu"):
        publisher = Publisher(client)
        version = publisher.post(menu_json)
        publisher.publish(version, effective, tier_moves)
    print(f"Menu {version} is published at {url}.")


@app.command("run", hidden=True)
def run(run_id: str, attempt: int) -> None:
    """Carry out a pricing run that the bookkeeper has taken from the queue; the bookkeeper starts this command."""
    from gateway.repricing.run import run as carry_out  # noqa: PLC0415 - it loads the admin API, which no other command needs

    carry_out(run_id, attempt)


@dataclass(frozen=True, slots=True)
class Numerics:
    """The parts of the pricing library that need numpy."""

    advice: Callable[[Market, int], str]
    further: Callable[[Mapping[str, Any]], Further]
    optimal_menu: Callable[..., dict[str, Any]]
    report: Callable[[Market, Mapping[str, Any]], str]
    verify: Callable[[Any], Verdict]


def numerics() -> Numerics:
    """Load numpy and the functions that need it: only here, so that only commands that compute wait for it."""
    from pricing.certificate import verify  # noqa: PLC0415
    from pricing.market.worth import valuation_of  # noqa: PLC0415
    from pricing.mechanism.lasting import advise  # noqa: PLC0415
    from pricing.menus.menus import optimal_menu  # noqa: PLC0415
    from pricing.menus.objectives import Further  # noqa: PLC0415
    from pricing.report.report import report  # noqa: PLC0415

    def advice(market: Market, tiers_max: int) -> str:
        return advise(valuation_of(market), most=tiers_max).sentence

    return Numerics(advice, Further.from_json, optimal_menu, report, verify)


def _advise(tools: Numerics, market: Market, menu: Mapping[str, Any]) -> None:
    compared = menu["totals"]["tiers_profit_nanousd"]
    if menu["tiers"] and compared:
        with timed("Comparing numbers of tiers"):
            advice = tools.advice(market, len(compared))
        print(advice)


def _computed(menu: dict[str, Any], objective: str) -> list[str]:
    claim = menu["certificate"]["claim"]
    lines = [f"Menu {menu['version']}, {claim}:", *tier_lines(menu), "", *earning_lines(menu)]
    if objective == "profit" and resumption_lines(menu):
        lines.append("Another menu may earn more then: --objective profit_if_resumed computes it.")
    return lines


def _sound(menu: dict[str, Any], verdict: Verdict) -> list[str]:
    return [
        f"Menu {menu['version']}: every figure is right, and it is {menu['certificate']['claim']}.",
        f"A conversation offered earns {amount(menu, verdict.profit)}, at most {amount(menu, verdict.upper_bound)} "
        f"could be earned: the gap is {verdict.gap_share:.3%}.",
        *resumption_lines(menu),
    ]


def _moves(text: str | None) -> dict[str, str]:
    """Return old tier names with the names that replace them.

    Raises:
        StartupError: the text is not written as ``old=new,…``.
    """
    tier_moves: dict[str, str] = {}
    for pair in text.split(",") if text else []:
        old, equals, new = (part.strip() for part in pair.partition("="))
        if not (old and equals and new) or old in tier_moves:
            raise StartupError("--moves is written old=new,old=new with each old tier once.", exit_code=2)
        tier_moves[old] = new
    return tier_moves


def _confirm(menu: dict[str, Any]) -> None:
    """Ask whether to publish a menu under which sending cut answers back pays.

    Raises:
        StartupError: the answer is no, or standard input is no terminal.
    """
    totals = menu.get("totals")
    gain = totals.get("resume_gain_nanousd") if isinstance(totals, dict) else None
    if not isinstance(gain, int | float) or gain <= 0:
        return  # the gateway refuses a file with a false figure
    if not sys.stdin.isatty():
        raise StartupError(f"Nothing is published without --yes: {' '.join(resumption_lines(menu))}", exit_code=1)
    print(*resumption_lines(menu), "Publish it all the same? [y/N] ", sep="\n", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise StartupError("Nothing was published.", exit_code=1)
