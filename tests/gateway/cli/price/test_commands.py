"""``tokencap price menu`` and ``verify``: a menu is computed and certified, and no figure of it can be changed unseen."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import run
from tests.gateway.cli.commands import tokencap
from tests.pricing import markets

MARKET: dict[str, Any] = {
    "types": [
        {"urgency_per_s": 0.05, "share": 0.3},
        {"urgency_per_s": 0.3, "share": 0.3},
        {"urgency_per_s": 0.8, "share": 0.25},
        {"urgency_per_s": 2.0, "share": 0.15},
    ],
    "value_nanousd": 20_000_000,
    "delay": {"family": "exponential"},
    "answer_length": {"family": "exponential", "mean_tokens": 40},
    "tokens_per_s": 50,
    "first_token_s": 0.03,
    "cost_nanousd_per_token": 0,
    "currency": "USD",
}
TABLE = {"family": "table", "tokens": [10, 20, 40], "probability": [0.5, 0.3, 0.2]}
COSTLY = MARKET | {"cost_nanousd_per_token": 10_000, "cap_tokens_max": 400}

Tamper = Callable[[dict[str, Any]], None]


def put(value: Any, *path: str | int) -> Tamper:
    """Return what changes one value of a menu; a function is applied to what is there."""

    def tamper(menu: Any) -> None:
        for step in path[:-1]:
            menu = menu[step]
        menu[path[-1]] = value(menu[path[-1]]) if callable(value) else value

    return tamper


@pytest.fixture
def market(tmp_path: Path) -> Path:
    path = tmp_path / "market.json"
    path.write_text(json.dumps(MARKET))
    return path


@pytest.fixture(scope="module")
def menu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A menu of two tiers, computed from the command line."""
    directory = tmp_path_factory.mktemp("menu")
    (directory / "market.json").write_text(json.dumps(COSTLY))
    words = ["--market", str(directory / "market.json"), "--tiers", "2", "--names", "quick,long"]
    assert run(["price", "menu", *words, "--out", str(directory / "menu.json")]) == 0
    menu: dict[str, Any] = json.loads((directory / "menu.json").read_text())
    return menu


def test_a_computed_menu_passes_its_own_check(directory: Path, market: Path, tmp_path: Path) -> None:
    """``menu`` writes the file whole and says what it earns; ``verify`` finds nothing wrong with it."""
    out = tmp_path / "menu.json"

    menu = tokencap(directory, "price", "menu", "--market", str(market), "--tiers", "2", "--out", str(out))
    checked = tokencap(directory, "price", "verify", str(out))

    written = json.loads(out.read_text())
    assert menu.returncode == 0, menu.stderr
    assert menu.stdout.startswith(f"Menu {written['version']}, the most profitable menu of at most 2 caps:\n")
    assert [line.split()[0] for line in menu.stdout.splitlines()[1:4]] == ["tier", "t1", "t2"]
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith(f"Menu {written['version']}: every figure is right")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["market.json", "menu.json"]


def test_a_menu_goes_through_a_pipe(directory: Path, market: Path) -> None:
    """``-`` is standard output for one and standard input for the other; ``--json`` is one object and nothing else."""
    menu = tokencap(directory, "price", "menu", "--market", "-", "--out", "-", stdin=market.read_text())
    checked = tokencap(directory, "price", "verify", "--json", "-", stdin=menu.stdout)

    verdict = json.loads(checked.stdout)
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""
    assert verdict["ok"] is True
    assert verdict["violation"] is None
    assert 0 < verdict["profit"] <= verdict["upper_bound"]


def test_the_same_market_and_wishes_are_the_same_version(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A menu's version is a hash of what it is computed from, so computing it twice is one menu."""
    versions = []
    for tiers in ("1", "2", "2"):
        assert run(["price", "menu", "--market", str(market), "--tiers", tiers, "--out", "-"]) == 0
        versions.append(json.loads(capsys.readouterr().out)["version"])

    assert versions[0] != versions[1] == versions[2]


def test_a_subscription_shows_its_fee(market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--bill subscription`` each tier has the fee of a period and what is included in it."""
    words = ["--market", str(market), "--bill", "subscription", "--out", str(tmp_path / "menu.json")]

    assert run(["price", "menu", *words]) == 0

    assert "fee of a period  conversations in it" in capsys.readouterr().out
    assert all("period_price_nanousd" in tier for tier in json.loads((tmp_path / "menu.json").read_text())["tiers"])


def test_where_resuming_pays_the_menu_that_lasts_is_offered(
    market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``price menu`` says so, and ``--objective profit_if_resumed`` earns no less than the best single plan then."""
    market.write_text(json.dumps(markets.lognormal()))
    once, lasting = tmp_path / "once.json", tmp_path / "lasting.json"
    words = ["price", "menu", "--market", str(market)]

    assert run([*words, "--out", str(once)]) == 0
    offered = "--objective profit_if_resumed computes it." in capsys.readouterr().out
    assert run([*words, "--out", str(lasting), "--objective", "profit_if_resumed"]) == 0
    assert run(["price", "verify", str(lasting)]) == 0

    before, after = (json.loads(path.read_text())["totals"] for path in (once, lasting))
    assert offered
    assert before["profit_if_resumed_nanousd"] < before["single_plan_profit_nanousd"]
    assert after["profit_if_resumed_nanousd"] >= after["single_plan_profit_nanousd"] - 1
    assert after["profit_nanousd"] < before["profit_nanousd"]


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (put(lambda price: price + 1, "tiers", 0, "price_nanousd"), "tiers[quick].price_nanousd"),
        (put(lambda price: price - 1, "tiers", 1, "price_nanousd"), "tiers[long].price_nanousd"),
        (put(lambda cap: cap + 1, "tiers", 0, "conversation_tokens_max"), "tiers[quick].conversation_tokens_max"),
        (put(None, "tiers", 1, "conversation_tokens_max"), "conversation_tokens_max"),
        (put("slow", "tiers", 1, "name"), "tier"),
        (put(100, "tiers", 1, "requests_per_minute"), "requests_per_minute"),
        (put(lambda share: share + 1e-6, "tiers", 0, "expected", "share"), "tiers[quick].expected.share"),
        (put(lambda tokens: tokens + 1, "tiers", 0, "expected", "tokens"), "tiers[quick].expected.tokens"),
        (put(0.5, "tiers", 1, "expected", "p_answer"), "tiers[long].expected.p_answer"),
        (put(lambda cost: cost * 2, "tiers", 1, "expected", "cost_nanousd"), "tiers[long].expected.cost_nanousd"),
        (put(1, "tiers", 0, "expected", "margin_nanousd"), "tiers[quick].expected.margin_nanousd"),
        (put(lambda share: share + 1e-6, "assignment", 0, "share"), "assignment[0].share"),
        (put(0.06, "assignment", 0, "urgency_per_s"), "assignment[0].urgency_per_s"),
        (put("quick", "assignment", 0, "tier"), "assignment[0].tier"),
        (put(lambda profit: profit + 1, "totals", "profit_nanousd"), "totals.profit_nanousd"),
        (put(1, "totals", "single_plan_profit_nanousd"), "totals.single_plan_profit_nanousd"),
        (put(0, "totals", "resume_gain_nanousd"), "totals.resume_gain_nanousd"),
        (put(lambda share: share - 1e-6, "market", "types", 1, "share"), "shares of types"),
        (put(lambda urgency: urgency * 2, "market", "types", 1, "urgency_per_s"), "market.types"),
        (put(lambda value: value + 1, "market", "value_nanousd"), "market.value_nanousd"),
        (put(50, "market", "answer_length", "mean_tokens"), "market.answer_length"),
        (put(9_000, "market", "cost_nanousd_per_token"), "market.cost_nanousd_per_token"),
        (put("0123456789abcdef", "version"), "version"),
        (put("EUR", "currency"), "currency"),
        (put("2020-01-01T00:00:00.000Z", "created"), "created"),
        (put("the most profitable of all mechanisms", "certificate", "claim"), "certificate.claim"),
        (put(3, "certificate", "wishes", "tiers"), "certificate.wishes"),
        (put(9.0, "certificate", "conditions", "own_choice_slack_nanousd"), "own_choice_slack_nanousd"),
        (put(0.0, "certificate", "profit_before_rounding", "by_prices_nanousd"), "by_prices_nanousd"),
        (put(0.0, "certificate", "rounding", "loss_nanousd"), "certificate.rounding.loss_nanousd"),
        (put(1.0, "certificate", "bound", "upper_bound_nanousd"), "certificate.bound.upper_bound_nanousd"),
        (put(9.0, "certificate", "bound", "multipliers", "flow", 0), "certificate.bound"),
        (put("0" * 64, "certificate", "digests", "totals"), "totals"),
    ],
)
def test_a_figure_that_was_changed_is_named(
    menu: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], tamper: Tamper, named: str
) -> None:
    """Exit 1, nothing on stdout, and one sentence that says where."""
    changed = deepcopy(menu)
    tamper(changed)
    path = tmp_path / "menu.json"
    path.write_text(json.dumps(changed))

    assert run(["price", "verify", str(path)]) == 1

    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert named in output.err


def test_a_broken_menu_has_a_verdict_in_json_too(
    menu: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--json`` prints the same sentence as a field, and the exit code stays."""
    path = tmp_path / "menu.json"
    path.write_text(json.dumps(menu | {"tiers": menu["tiers"][:1]}))

    assert run(["price", "verify", "--json", str(path)]) == 1

    output = capsys.readouterr()
    verdict = json.loads(output.out)
    assert verdict["ok"] is False
    assert verdict["violation"] == output.err.rstrip("\n")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "line 1 is not JSON"),
        (b'{"version": "a",\n1}', "line 2 is not JSON"),
        (b"[1, 2]", "holds no JSON object, which MENU must be."),
        (b'{"version": NaN}', "NaN is no JSON number"),
        (b"\xff\xfe", "is not JSON that can be read"),
        (b"[" * 100_000, "is not JSON that can be read"),
        (b'{"n": ' + b"9" * 5_000 + b"}", "is not JSON that can be read"),
    ],
)
def test_what_is_no_menu_file_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, sentence: str
) -> None:
    """Exit 2 and one sentence that begins with the file's name."""
    path = tmp_path / "menu.json"
    path.write_bytes(content)

    assert run(["price", "verify", str(path)]) == 2

    output = capsys.readouterr()
    assert output.err.startswith(str(path))
    assert sentence in output.err
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "words", "sentence"),
    [
        ({"types": []}, (), "types is a list"),
        ({"value_nanousd": 0}, (), "value_nanousd is a finite number above 0"),
        ({"answer_length": TABLE | {"tokens": [10, 20, 20]}}, (), "answer_length.tokens rise strictly"),
        ({"cost_nanousd_per_token": 1}, (), "cap_tokens_max is required"),
        ({}, ("--tiers", "2", "--names", "a,b,c"), "--names: The menu has 2 tiers, so it takes 2 names, not 3."),
        ({}, ("--names", "not a name"), "--names: 'not a name' is not a tier's name"),
        ({}, ("--tiers", "0"), "Invalid value for '--tiers'"),
        ({}, ("--bill", "token"), "Invalid value for '--bill'"),
    ],
)
def test_a_market_or_wish_that_cannot_be_is_wrong_use(
    market: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    words: tuple[str, ...],
    sentence: str,
) -> None:
    """Exit 2, one sentence, no file."""
    market.write_text(json.dumps(MARKET | changes))
    out = tmp_path / "menu.json"

    assert run(["price", "menu", "--market", str(market), *words, "--out", str(out)]) == 2

    output = capsys.readouterr()
    assert sentence in output.err
    assert output.err.count("\n") == 1
    assert not out.exists()


def test_files_that_cannot_be_had_are_named(market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read is wrong use, exit status 2; a place that cannot be written to is unavailable, 3."""
    nowhere = tmp_path / "nowhere"

    assert run(["price", "verify", str(nowhere)]) == 2
    assert run(["price", "verify", str(tmp_path)]) == 2
    assert run(["price", "menu", "--market", str(nowhere), "--out", "-"]) == 2
    assert run(["price", "menu", "--market", str(market), "--out", str(nowhere / "menu.json")]) == 3

    assert capsys.readouterr().err.splitlines() == [
        f"{nowhere}: No such file or directory.",
        f"{tmp_path}: Is a directory.",
        f"{nowhere}: No such file or directory.",
        f"{nowhere / 'menu.json.part'}: No such file or directory.",
    ]


def test_a_market_that_cannot_be_served_sells_nothing(
    market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where each token costs more than an answer is worth the menu is empty, says so, and is sound."""
    market.write_text(json.dumps(COSTLY | {"cost_nanousd_per_token": 30_000_000}))
    out = tmp_path / "menu.json"

    assert run(["price", "menu", "--market", str(market), "--out", str(out)]) == 0
    assert "Nothing is sold" in capsys.readouterr().out
    assert run(["price", "verify", str(out)]) == 0
