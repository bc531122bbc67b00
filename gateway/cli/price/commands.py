"""``tokencap price``: compute a menu from a market, check one, publish one."""

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

    Of an estimated market it is a robust menu of as many tiers as the estimate bears, unless options say otherwise.
    """
    given = read_object(market, "--market")
    wished = None if names is None else [name.strip() for name in names.split(",")]
    plain = objective == "profit" and not (surplus_weight or everyone or price_max or surplus_min or today)
    further = further_of(
        surplus_weight=surplus_weight,
        everyone=everyone,
        robust=(is_estimated(given) and plain) if robust is None else robust,
        near=near,
        price_max=price_max,
        surplus_min=surplus_min,
        worse_off_max=worse_off_max,
        today=today,
    )
    tools = numerics()
    try:
        asked = tools.further(further)
    except (NotAMarket, NotAMenu) as error:
        raise StartupError(f"{option_of(error)}: {error}", exit_code=2) from error
    try:
        with timed("Computing the menu"):
            made = tools.optimal_menu(
                read_market(given),
                tiers=tiers if tiers is not None else tiers_of(given),
                bill=bill,
                names=wished,
                created=written(now_ms()),
                objective=objective,
                further=asked,
            )
    except NotAMarket as error:
        raise StartupError(f"{name_of(market)}: {error}", exit_code=2) from error
    except NotAMenu as error:
        raise StartupError(f"{option_of(error)}: {error}", exit_code=2) from error
    text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
    if out == STANDARD:
        print(text, end="")
        return
    replace_file(out, text)
    print(*_computed(made, objective), sep="\n")
    _advise(tools, read_market(given), made)


@app.command("starter")
def starter_market(
    out: Annotated[Path, typer.Option(metavar="PATH|-", help="Where market.json goes; - is standard output.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(starter_names())}.")] = "chat",
) -> None:
    """Write a market to begin with before anything was seen. It is an assumption, and says so."""
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
    given = read_object(menu, "MENU")
    with timed("Checking the menu"):
        verdict = numerics().verify(given)
    if as_json:
        print(json.dumps(asdict(verdict)))
    if verdict.violation is not None:
        raise StartupError(verdict.violation, exit_code=1)
    if not as_json:
        print(*_sound(given, verdict), sep="\n")


@app.command("report")
def report(
    menu: Annotated[Path, typer.Option(metavar="PATH", help="menu.json, as `tokencap price menu` wrote it.")],
    out: Annotated[Path, typer.Option(metavar="PATH|-", help="Where the page goes; - is standard output.")],
    market: Annotated[
        Path | None, typer.Option(metavar="PATH|-", help="The menu's own market.json, which stands in the menu anyway.")
    ] = None,
) -> None:
    """Write one HTML page on a menu: tiers and who takes them, profit, worth, slacks. It needs no network."""
    made = read_object(menu, "--menu")
    given = None if market is None else read_object(market, "--market")
    tools = numerics()
    try:
        with timed("Writing the report"):
            verdict = tools.verify(made)
            if verdict.violation is not None:
                raise StartupError(f"{name_of(menu)}: {verdict.violation}", exit_code=1)
            page = tools.report(read_market(made["market"] if given is None else given), made)
    except NotAMarket as error:
        raise StartupError(f"{name_of(menu if market is None else market)}: {error}", exit_code=2) from error
    if out == STANDARD:
        print(page, end="")
        return
    replace_file(out, page)
    print(f"The report on menu {made['version']} is in {out}.")


@app.command("publish")
def publish(
    menu: MenuFile,
    url: Url,
    token: Token,
    effective: Annotated[Effective, typer.Option(help="When customers get it.")] = "now",
    moves: Annotated[
        str | None, typer.Option(metavar="OLD=NEW,…", help="Where customers of tiers go that it no longer has.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Publish it even if sending cut answers back pays.")] = False,
) -> None:
    """Send a menu to a running gateway, which checks it again, and put it in force."""
    given = read_object(menu, "MENU")
    moved = _moves(moves)
    if not yes:
        _confirm(given)
    with admin_client(url, token) as client, timed("The gateway checks the menu"):
        publisher = Publisher(client)
        version = publisher.post(given)
        publisher.publish(version, effective, moved)
    print(f"Menu {version} is published at {url}.")


@app.command("run", hidden=True)
def run(run_id: str, attempt: int) -> None:
    """Carry out a pricing run that was taken up; the bookkeeper starts it."""
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
    """Load numpy and what is computed with it: here and nowhere else, so that only what computes waits for it."""
    from pricing.certificate import verify  # noqa: PLC0415
    from pricing.market.worth import valuation_of  # noqa: PLC0415
    from pricing.mechanism.lasting import advise  # noqa: PLC0415
    from pricing.menus.menus import optimal_menu  # noqa: PLC0415
    from pricing.menus.objectives import Further  # noqa: PLC0415
    from pricing.report.report import report  # noqa: PLC0415

    def advice(market: Market, most: int) -> str:
        return advise(valuation_of(market), most=most).sentence

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


def _moves(given: str | None) -> dict[str, str]:
    """Return the tier names of before with the names that take their place.

    Raises:
        StartupError: it is not written as ``old=new,…``.
    """
    moved: dict[str, str] = {}
    for pair in given.split(",") if given else []:
        old, equals, new = (part.strip() for part in pair.partition("="))
        if not (old and equals and new) or old in moved:
            raise StartupError("--moves is written old=new,old=new with each old tier once.", exit_code=2)
        moved[old] = new
    return moved


def _confirm(menu: dict[str, Any]) -> None:
    """Ask whether to publish a menu that customers could get round.

    Raises:
        StartupError: the answer is no, or nobody is there to give one.
    """
    totals = menu.get("totals")
    gain = totals.get("resume_gain_nanousd") if isinstance(totals, dict) else None
    if not isinstance(gain, int | float) or gain <= 0:
        return  # where the file lies about it, the gateway refuses the file
    if not sys.stdin.isatty():
        raise StartupError(f"Nothing is published without --yes: {' '.join(resumption_lines(menu))}", exit_code=1)
    print(*resumption_lines(menu), "Publish it all the same? [y/N] ", sep="\n", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise StartupError("Nothing was published.", exit_code=1)
