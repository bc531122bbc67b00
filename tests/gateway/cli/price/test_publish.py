"""``tokencap price publish`` puts a menu in force at a running gateway, or says in one sentence why not."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli.main import run
from gateway.simulator.model_server import Law
from gateway.simulator.model_server import build as build_simulator
from tests.gateway.cli.commands import COMMAND, environment, tokencap
from tests.gateway.cli.price.test_commands import MARKET
from tests.loop.rig import Rig, rig
from tests.serving import served


@pytest.fixture(scope="module")
def menus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Menus of one market: ``one`` tier, which nobody gains by resuming, and ``three``, where somebody does."""
    directory = tmp_path_factory.mktemp("menus")
    market = directory / "market.json"
    market.write_text(json.dumps(MARKET))
    for name, tiers in (("one", "only"), ("three", "quick,normal,long")):
        words = ["--tiers", str(len(tiers.split(","))), "--names", tiers, "--out", str(directory / f"{name}.json")]
        assert run(["price", "menu", "--market", str(market), *words]) == 0
    return {name: directory / f"{name}.json" for name in ("one", "three")}


@pytest.fixture
def gateway(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(valkey_url, sqlite_url, tmp_path) as running:
        yield running


def token_of(gateway: Rig) -> str:
    return gateway.admin.headers["authorization"].removeprefix("Bearer ")


def publish(directory: Path, gateway: Rig, menu: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Publish with the address and the token in the environment."""
    settings = {"url": gateway.url, "admin_token": token_of(gateway)}
    return tokencap(directory, "price", "publish", str(menu), *words, **settings)


def on_sale(gateway: Rig) -> Any:
    """Return the menu that any visitor sees, None before the first."""
    shown = httpx.get(f"{gateway.url}/v1/menu")
    return shown.json() if shown.is_success else None


def version_of(menu: Path) -> str:
    return str(json.loads(menu.read_text())["version"])


def test_a_published_menu_is_what_is_sold(directory: Path, gateway: Rig, menus: dict[str, Path]) -> None:
    """The gateway takes it, checks it and sells it; a customer can be given one of its tiers."""
    published = publish(directory, gateway, menus["one"])

    assert published.returncode == 0, published.stderr
    assert published.stdout == f"Menu {version_of(menus['one'])} is published at {gateway.url}.\n"
    assert on_sale(gateway)["version"] == version_of(menus["one"])
    assert gateway.account(gateway.customer("only"))["menu_version"] == version_of(menus["one"])


def test_publishing_again_changes_nothing(
    directory: Path, gateway: Rig, menus: dict[str, Path], tmp_path: Path
) -> None:
    """Computed anew at another time it is the same menu; the one that the gateway has stays as it came."""
    again = tmp_path / "again.json"
    market = tmp_path / "market.json"
    market.write_text(json.dumps(MARKET))
    assert run(["price", "menu", "--market", str(market), "--tiers", "1", "--names", "only", "--out", str(again)]) == 0

    codes = [publish(directory, gateway, menu).returncode for menu in (menus["one"], menus["one"], again)]

    assert codes == [0, 0, 0]
    assert on_sale(gateway)["created"] == json.loads(menus["one"].read_text())["created"]


def test_a_changed_menu_is_refused_with_its_violation(
    directory: Path, gateway: Rig, menus: dict[str, Path], tmp_path: Path
) -> None:
    """Exit 1, the violation as the one sentence, nothing on sale; also where the sound one is there already."""
    menu = json.loads(menus["one"].read_text())
    menu["tiers"][0]["price_nanousd"] -= 1
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(menu))

    refused = publish(directory, gateway, changed)
    nothing = on_sale(gateway)
    publish(directory, gateway, menus["one"])
    refused_again = publish(directory, gateway, changed)

    assert refused.returncode == refused_again.returncode == 1
    assert refused.stderr.startswith("tiers[only].price_nanousd is ")
    assert len(refused.stderr.splitlines()) == 1
    assert nothing is None
    assert refused_again.stderr == f"The gateway has another menu {menu['version']}; a menu never changes.\n"


def test_customers_are_not_left_without_a_tier(directory: Path, gateway: Rig, menus: dict[str, Path]) -> None:
    """A menu without somebody's tier wants ``--moves``, and with it they are moved."""
    publish(directory, gateway, menus["one"])
    who = gateway.customer("only")

    refused = publish(directory, gateway, menus["three"], "--yes")
    moved = publish(directory, gateway, menus["three"], "--yes", "--moves", "only=long")

    assert refused.returncode == 1
    assert who.id in refused.stderr
    assert "'only'" in refused.stderr
    assert refused.stderr.endswith("Or say with --moves old=new where they go.\n")
    assert moved.returncode == 0, moved.stderr
    assert gateway.account(who)["tier"] == "long"


def test_a_menu_may_wait_for_the_next_period(directory: Path, gateway: Rig, menus: dict[str, Path]) -> None:
    """With ``--effective next_period`` customers keep their menu until their period ends."""
    publish(directory, gateway, menus["one"])
    who = gateway.customer("only")

    words = ("--yes", "--effective", "next_period", "--moves", "only=quick")
    published = publish(directory, gateway, menus["three"], *words)

    account = gateway.account(who)
    assert published.returncode == 0, published.stderr
    assert (account["tier"], account["menu_version"]) == ("only", version_of(menus["one"]))
    assert (account["next"]["tier"], account["next"]["menu_version"]) == ("quick", version_of(menus["three"]))
    assert account["next"]["effective"] == account["period"]["end"]


def test_a_menu_that_resuming_beats_wants_consent(directory: Path, gateway: Rig, menus: dict[str, Path]) -> None:
    """Where nobody can be asked, only ``--yes`` is consent; the refusal says what customers gain."""
    refused = publish(directory, gateway, menus["three"])
    nothing = gateway.admin.get("/admin/menus").json()["data"]
    published = publish(directory, gateway, menus["three"], "--yes")

    assert refused.returncode == 1
    assert refused.stderr.startswith("Nothing is published without --yes: Customers who send cut answers back")
    assert len(refused.stderr.splitlines()) == 1
    assert nothing == []
    assert published.returncode == 0, published.stderr


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("", 1), ("y", 0), ("YES", 0)])
def test_at_a_terminal_it_asks(directory: Path, gateway: Rig, menus: dict[str, Path], answer: str, code: int) -> None:
    """The question is put on standard error, and only a yes is a yes."""
    ours, theirs = os.openpty()
    words = ["price", "publish", str(menus["three"]), "--url", gateway.url, "--token", token_of(gateway)]
    os.write(ours, f"{answer}\n".encode())
    try:
        ran = subprocess.run(
            [*COMMAND, *words],
            env=environment(directory),
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)

    assert "Publish it all the same? [y/N]" in ran.stderr
    assert ran.returncode == code
    assert (on_sale(gateway) is not None) == (code == 0)


def test_a_wrong_token_is_refused(directory: Path, gateway: Rig, menus: dict[str, Path]) -> None:
    """Exit 1 and the gateway's own sentence."""
    refused = tokencap(directory, "price", "publish", str(menus["one"]), "--url", gateway.url, "--token", "tca-other")

    assert refused.returncode == 1
    assert refused.stderr.startswith("Send the admin token")
    assert len(refused.stderr.splitlines()) == 1


def test_a_gateway_that_is_not_there_is_unavailable(menus: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 3 where nothing listens, and where what answers is no gateway."""
    words = ["price", "publish", str(menus["one"]), "--token", "tca-any", "--url"]
    with served(build_simulator(Law())) as other:
        assert run([*words, other]) == 3
    assert run([*words, other]) == 3

    nobody, gone = capsys.readouterr().err.splitlines()
    assert nobody == "There is no admin side of tokencap here: status 404."
    assert gone.startswith(f"The gateway at {other} does not answer: ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--token", "tca-any"), "Missing option '--url' (env var: 'TOKENCAP_URL')."),
        (("--url", "http://127.0.0.1:1"), "Missing option '--token' (env var: 'TOKENCAP_ADMIN_TOKEN')."),
        (("--url", "127.0.0.1:8080", "--token", "a"), "--url is an address such as http://127.0.0.1:8080."),
        (("--url", "http://gateway:port", "--token", "a"), "--url is no URL."),
        (("--url", "http://127.0.0.1:1", "--token", "tokén"), "--token is no admin token"),
        (("--url", "http://127.0.0.1:1", "--token", "a", "--moves", "only"), "--moves is written old=new,old=new"),
        (("--url", "http://127.0.0.1:1", "--token", "a", "--moves", "a=b,a=c"), "--moves is written old=new,old=new"),
        (("--url", "http://127.0.0.1:1", "--token", "a", "--effective", "soon"), "Invalid value for '--effective'"),
    ],
)
def test_wrong_use_of_publish(directory: Path, menus: dict[str, Path], words: tuple[str, ...], sentence: str) -> None:
    """Exit 2 and one sentence, before anything is sent."""
    refused = tokencap(directory, "price", "publish", str(menus["one"]), *words)

    assert refused.returncode == 2
    assert refused.stderr.startswith(sentence)
    assert len(refused.stderr.splitlines()) == 1


def test_a_file_that_is_no_menu_is_refused_by_the_gateway(directory: Path, gateway: Rig, tmp_path: Path) -> None:
    """What is JSON but no menu gets the gateway's sentence."""
    path = tmp_path / "menu.json"
    path.write_text('{"totals": 3}')

    refused = publish(directory, gateway, path)

    assert refused.returncode == 1
    assert refused.stderr == "version: A menu has version, a string.\n"
