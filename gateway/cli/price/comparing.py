"""``tokencap price compare``, ``compare-models``, ``sensitivity``, ``frontier``: compares menus, models and markets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.file_arguments import name_of, read_object, replace_file
from gateway.cli.progress import timed
from gateway.errors import StartupError
from pricing.market.fields import NotAMarket
from pricing.market.market import Market, read_market
from pricing.menus.menu import Menu, NotAMenu
from pricing.money import written
from pricing.report.menu_table import amount, columns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pricing.comparisons.frontiers import Frontier
    from pricing.comparisons.models import Model
    from pricing.comparisons.sensitivity import Line

Files = Annotated[list[Path], typer.Argument(metavar="FILE…")]


@dataclass(frozen=True, slots=True)
class Numerics:
    """The parts of comparing that need numpy."""

    models: Callable[..., list[Model]]
    sensitivity: Callable[[Market, Mapping[str, Any]], Sequence[Line]]
    frontier: Callable[..., Frontier]


def numerics() -> Numerics:
    """Load numpy and the functions that need it: only here, so that only commands that compute wait for it."""
    from pricing.comparisons.frontiers import frontier  # noqa: PLC0415
    from pricing.comparisons.models import compare_models  # noqa: PLC0415
    from pricing.comparisons.sensitivity import sensitivity  # noqa: PLC0415

    return Numerics(compare_models, sensitivity, frontier)


def compare_models(
    markets: Files,
    tiers: Annotated[int | None, typer.Option(min=1, help="At most so many tiers; else the full menu.")] = None,
) -> None:
    """Say which of several models, each with its market.json, earns the most to sell, and by how much."""
    repeated = next((path for place, path in enumerate(markets) if path in markets[:place]), None)
    if repeated is not None:
        raise StartupError(f"{name_of(repeated)} is named twice.", exit_code=2)
    markets_by_name = {name_of(path): _market(path) for path in markets}
    with _in_a_sentence(), timed("Comparing the models"):
        models = numerics().models(markets_by_name, tiers=tiers)
    currency = next(iter(markets_by_name.values())).currency
    rows = [["model", "profit", "95 % interval", "behind the best", "95 % interval", "single plan", "first best"]]
    for model in models:
        rows.append(
            [
                model.name,
                written(round(model.profit), currency),
                _band(model.interval, currency),
                written(round(model.behind), currency),
                _band(model.behind_interval, currency),
                written(round(model.single_plan), currency),
                written(round(model.first_best), currency),
            ]
        )
    print(*columns(rows), sep="\n")


def compare(menus: Files) -> None:
    """Show what several menus earn, leave to customers and earn if callers resume, each in its own market."""
    loaded = [(name_of(path), read_object(path, "MENU")) for path in menus]
    fields = (
        ("profit", "profit_nanousd"),
        ("if resumed", "profit_if_resumed_nanousd"),
        ("single plan", "single_plan_profit_nanousd"),
        ("kept by customers", "customers_surplus_nanousd"),
    )
    rows = [["menu", "tiers", *(title for title, _ in fields), "not served"]]
    for name, menu in loaded:
        try:
            Menu.from_json(menu)
            totals = menu["totals"]
            cells = [amount(menu, totals[field]) for _, field in fields]
            rows.append([name, str(len(menu["tiers"])), *cells, f"{totals['excluded_share']:.1%}"])
        except (NotAMenu, KeyError, TypeError) as error:
            raise StartupError(f"{name} is no computed menu.", exit_code=2) from error
    print(*columns(rows), sep="\n")
    if len({str(sorted(menu["market"].items())) for _, menu in loaded if isinstance(menu.get("market"), dict)}) > 1:
        print("The menus belong to different markets: each line shows a menu in its own market.")


def sensitivity(
    menu: Annotated[Path, typer.Argument(metavar="MENU", help="menu.json, or - for standard input.")],
) -> None:
    """Show what a menu earns where value, cost, pace, lengths or urgency differ from the market's."""
    menu_json = read_object(menu, "MENU")
    with _in_a_sentence(name_of(menu)):
        try:
            Menu.from_json(menu_json)
            market = read_market(menu_json["market"])
        except (NotAMenu, KeyError) as error:
            raise StartupError(f"{name_of(menu)} is no computed menu.", exit_code=2) from error
        with timed("Shifting the market"):
            lines = numerics().sensitivity(market, menu_json)
    rows = [["", *(f"{shift:+.0%}" for shift in lines[0].shifts), "pays down to", "pays up to"]]
    for line in lines:
        ends = ["-" if end is None else f"{end:+.1%}" for end in (line.below, line.above)]
        rows.append([line.thing, *(amount(menu_json, profit) for profit in line.profits), *ends])
    print(*columns(rows), sep="\n")


def frontier(
    market: Annotated[Path, typer.Argument(metavar="FILE", help="market.json, or - for standard input.")],
    tiers: Annotated[int | None, typer.Option(min=1, help="At most so many tiers; else the full menu.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="Where the drawing goes, an SVG file.")] = None,
) -> None:
    """Show profit against what customers keep, from the most profitable menu to the menu that leaves them most."""
    parsed_market = _market(market)
    with _in_a_sentence(name_of(market)), timed("Computing the menus"):
        result = numerics().frontier(parsed_market, tiers=tiers)
    print(result.summary())
    if out is not None:
        replace_file(out, result.plot())
        print(f"The drawing is in {out}.")


def _market(path: Path) -> Market:
    with _in_a_sentence(name_of(path)):
        return read_market(read_object(path, "FILE"))


@contextmanager
def _in_a_sentence(name: str | None = None) -> Iterator[None]:
    try:
        yield
    except NotAMarket as error:
        raise StartupError(f"{name}: {error}" if name else str(error), exit_code=2) from error


def _band(interval: tuple[float, float] | None, currency: str) -> str:
    return "-" if interval is None else " to ".join(written(round(end), currency) for end in interval)
