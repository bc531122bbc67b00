"""``tokencap price compare``, ``compare-models``, ``sensitivity`` and what ``menu`` may be asked for besides tiers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import run
from tests.gateway.cli.price.test_commands import COSTLY, MARKET

Json = dict[str, Any]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two models' markets, and of the first a plain menu, a robust one, an empty one and one of estimates."""
    place = tmp_path_factory.mktemp("shelf")
    markets = {
        "short.json": COSTLY,
        "long.json": COSTLY | {"answer_length": {"family": "exponential", "mean_tokens": 80}},
        "dear.json": COSTLY | {"cost_nanousd_per_token": 30_000_000},
        "euro.json": COSTLY | {"currency": "EUR"},
        "estimated.json": estimated(),
    }
    for name, market in markets.items():
        (place / name).write_text(json.dumps(market))
    menus = {
        "plain.json": ("short.json", "--tiers", "2"),
        "robust.json": ("short.json", "--tiers", "2", "--robust", "--near", "urgency=0.05,length=0"),
        "empty.json": ("dear.json",),
        "learnt.json": ("estimated.json",),
    }
    for name, (market, *words) in menus.items():
        assert run(["price", "menu", "--market", str(place / market), "--out", str(place / name), *words]) == 0
    return place


def estimated() -> Json:
    """Return a market with two draws of an estimate that bears two tiers."""
    tokens = [10, 20, 40, 80]
    length = {"family": "kaplan_meier", "tokens": tokens, "survival": [0.7, 0.4, 0.1, 0.0]}
    draw = {"share": [0.25, 0.35, 0.25, 0.15], "value_nanousd": 19e6, "tokens_per_s": 50, "first_token_s": 0.03}
    draws = [draw | {"survival": [0.7, 0.4, 0.1, 0.0]}, draw | {"survival": [0.68, 0.42, 0.12, 0.0]}]
    return MARKET | {"answer_length": length, "estimate": {"tiers": 2, "draws": draws, "notes": ["Few were seen."]}}


def read(path: Path) -> Json:
    menus: Json = json.loads(path.read_text())
    return menus


def test_menus_stand_side_by_side(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a menu, the market pointed out where it is not the same; what is no computed menu is named."""
    assert run(["price", "compare", *(str(shelf / name) for name in ("plain.json", "robust.json"))]) == 0
    same = capsys.readouterr().out
    assert run(["price", "compare", *(str(shelf / name) for name in ("plain.json", "empty.json"))]) == 0
    other = capsys.readouterr().out
    assert run(["price", "compare", str(shelf / "short.json")]) == 2

    assert [line.split()[:2] for line in same.splitlines()[1:]] == [
        [str(shelf / "plain.json"), "2"],
        [str(shelf / "robust.json"), str(len(read(shelf / "robust.json")["tiers"]))],
    ]
    assert "different markets" in other.splitlines()[-1]
    assert capsys.readouterr().err == f"{shelf / 'short.json'} is no computed menu.\n"


def test_models_are_compared_by_what_they_earn(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The best model comes first; an estimate brings an interval."""
    words = [str(shelf / name) for name in ("long.json", "short.json", "estimated.json")]

    assert run(["price", "compare-models", *words, "--tiers", "2"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].split()[:2] == ["model", "profit"]
    profits = [float(line.split()[1]) for line in lines[1:]]
    assert profits == sorted(profits, reverse=True)
    assert sum(" to " in line for line in lines) >= 1


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("short.json",), "A comparison takes at least two markets"),
        (("short.json", "short.json"), "short.json is named twice."),
        (("short.json", "euro.json"), "all of one currency"),
        (("short.json", "plain.json"), "plain.json: types is a list"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    shelf: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], sentence: str
) -> None:
    assert run(["price", "compare-models", *(str(shelf / name) for name in names)]) == 2

    output = capsys.readouterr().err
    assert sentence in output
    assert output.count("\n") == 1


@pytest.mark.parametrize("name", ["plain.json", "robust.json", "empty.json", "learnt.json"])
def test_what_a_menu_earns_where_the_market_is_off(shelf: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """A line for each thing that may be off, the middle column what the menu states."""
    menu = read(shelf / name)

    assert run(["price", "sensitivity", str(shelf / name)]) == 0

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    things = ["value", *(["cost"] if menu["market"]["cost_nanousd_per_token"] else []), "pace", "length", "urgency"]
    assert [line[0] for line in lines[1:]] == things
    middle = 1 + 2 * lines[0].index("+0%")
    for line in lines[1:]:
        assert float(line[middle]) == pytest.approx(menu["totals"]["profit_nanousd"] / 1e9, rel=1e-6)


def test_a_menu_without_a_market_has_no_sensitivity(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_hand = tmp_path / "hand.json"
    by_hand.write_text(json.dumps({**read(shelf / "plain.json"), "market": None}))

    assert run(["price", "sensitivity", str(by_hand)]) == 2
    assert capsys.readouterr().err == f"{by_hand}: A market is an object.\n"


def test_a_robust_menu_says_what_it_earns_near_its_market(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--near`` is in the file, and what is 0 is no market of its own; an estimated market's menu is robust unasked."""
    robust, learnt = read(shelf / "robust.json"), read(shelf / "learnt.json")
    near = robust["certificate"]["wishes"]["robust"]

    assert (near["urgency"], near["length"], near["pace"]) == (0.05, 0, 0.02)
    assert [one["market"] for one in robust["certificate"]["robust"]["markets"]] == [
        "as taken",
        "pace +2%",
        "pace -2%",
        "urgency +5%",
        "urgency -5%",
        "value sigma 0.1",
    ]
    assert [one["market"] for one in learnt["certificate"]["robust"]["markets"]][-2:] == ["draw 1", "draw 2"]
    assert len(learnt["tiers"]) <= 2
    assert "for the market as it was estimated" in learnt["certificate"]["claim"]
    for name in ("robust.json", "learnt.json"):
        assert run(["price", "verify", str(shelf / name)]) == 0
    assert "robust" not in read(shelf / "plain.json")["certificate"]


def test_an_estimated_market_may_be_priced_as_if_it_were_known(shelf: Path, tmp_path: Path) -> None:
    """``--no-robust``, or an objective that is not robust profit."""
    for words in (("--no-robust",), ("--everyone",), ("--surplus-weight", "0.5")):
        out = tmp_path / "menu.json"
        assert run(["price", "menu", "--market", str(shelf / "estimated.json"), "--out", str(out), *words]) == 0
        assert "robust" not in read(out)["certificate"]


def test_terms_and_todays_menu_are_kept(shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ceiling of the smallest tier's price below today's; nobody worse off than today's customers."""
    plain, out = read(shelf / "plain.json"), tmp_path / "menu.json"
    lowest = plain["tiers"][0]["price_nanousd"] // 2
    words = ["price", "menu", "--market", str(shelf / "short.json"), "--tiers", "2", "--out", str(out)]

    assert run([*words, "--price-max", f"1={lowest}", "--surplus-min", "1=1000"]) == 0
    assert read(out)["tiers"][0]["price_nanousd"] <= lowest
    assert run([*words, "--today", str(shelf / "plain.json"), "--worse-off-max", "0"]) == 0
    assert read(out)["certificate"]["worse_off_share"] == 0
    assert run(["price", "verify", str(out)]) == 0
    assert "under its terms" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--near", "pace=0.1"), "--near says how far a --robust menu looks; this menu is not robust."),
        (("--robust", "--near", "speed=0.1"), "--near is written a=number,b=number with any of pace, length"),
        (("--robust", "--near", "pace=much"), "--near is written a=number"),
        (("--robust", "--near", "pace=1"), "--near: robust has pace"),
        (("--robust", "--near", "pace=nan"), "--near: robust.pace is a finite number"),
        (
            ("--robust", "--everyone"),
            "--robust: A robust menu cannot be combined with another objective, limit or condition.",
        ),
        (("--price-max", "t1=5"), "--price-max is written a=number,b=number with the tiers' places"),
        (("--price-max", "1=5,1=6"), "--price-max is written"),
        (("--price-max", "1=-5"), "--price-max: price_nanousd_max"),
        (("--surplus-min", "0=5"), "--price-max and --surplus-min: The tier of a term"),
        (("--surplus-min", "1=9000000000000"), "No menu of at most 5 tiers was found"),
        (("--today", "MENU"), "--worse-off-max and --today belong together."),
        (("--worse-off-max", "0.1"), "--worse-off-max and --today belong together."),
        (("--surplus-weight", "nan"), "Invalid value for '--surplus-weight'"),
        (
            ("--objective", "profit_if_resumed", "--everyone"),
            "--objective: The objective profit_if_resumed cannot be combined",
        ),
        (("--worse-off-max", "0.1", "--today", "MARKET"), "--worse-off-max and --today: worse_off has share_max"),
    ],
)
def test_a_wish_that_cannot_be_is_one_sentence(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    """Exit 2, which option, no file."""
    files = {"MENU": str(shelf / "plain.json"), "MARKET": str(shelf / "short.json")}
    out = tmp_path / "menu.json"
    arguments = [files.get(word, word) for word in words]

    assert run(["price", "menu", "--market", str(shelf / "short.json"), "--out", str(out), *arguments]) == 2

    output = capsys.readouterr().err
    assert sentence in output
    assert output.count("\n") == 1
    assert not out.exists()


def test_profit_stands_against_what_customers_keep(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each weight of their surplus, and a drawing where one is asked for."""
    drawing = shelf / "frontier.svg"

    assert run(["price", "frontier", str(shelf / "short.json"), "--tiers", "2", "--out", str(drawing)]) == 0
    output = capsys.readouterr().out

    assert output.splitlines()[1].split()[:3] == ["weight", "of", "surplus"]
    assert len(output.splitlines()) == 14
    assert "Profit against what customers keep" in drawing.read_text()
