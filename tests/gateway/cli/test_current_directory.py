"""Whatever the current directory is called and holds, none of it is imported by any process of the gateway."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from gateway.cli.main import run
from tests.gateway.cli.commands import environment, serving
from tests.gateway.cli.price.test_commands import MARKET
from tests.house.files import ROOT, name_of, python_files
from tests.waiting import until

RUN_S = 240.0
POISON = 'raise SystemExit("the current directory was imported")\n'
SHADOWS = ("pricing", "gateway", "json", "redis", "uvicorn", "fastapi", "numpy", "scipy", "sqlalchemy", "logging")
"""What a folder of an operator may well be called, or a file in it."""

OURS = [path for path in python_files() if name_of(path).startswith(("gateway/", "pricing/"))]
STARTS = ROOT / "gateway" / "settings.py"

COMMAND = (str(Path(sys.executable).with_name("tokencap")),)


@pytest.fixture
def poisoned(directory: Path) -> Path:
    """The directory that the gateway is started in: packages and files that stop whoever imports them."""
    home = directory.parent
    for name in SHADOWS:
        (home / name).mkdir()
        (home / name / "__init__.py").write_text(POISON)
        (home / f"{name}.py").write_text(POISON)
    (home / "sitecustomize.py").write_text(POISON)
    return home


def test_a_menu_is_checked_and_a_run_computed_in_a_folder_that_shadows_everything(
    poisoned: Path, directory: Path
) -> None:
    """The console script serves, a posted menu is verified by a child, a pricing run by another."""
    market, menu = poisoned / "market.json", poisoned / "menu.json"
    market.write_text(json.dumps(MARKET))
    assert run(["price", "menu", "--market", str(market), "--tiers", "1", "--out", str(menu)]) == 0
    with serving(directory, program=COMMAND) as gateway:
        admin = httpx.Client(
            base_url=f"{gateway.url}/admin", headers={"authorization": f"Bearer {gateway.admin_token()}"}, timeout=60
        )

        posted = admin.post("/menus", json=json.loads(menu.read_text()))
        answer = admin.post("/pricing/runs", json={})
        where = f"/pricing/runs/{answer.json()['id']}"
        until(lambda: admin.get(where).json()["state"] not in ("queued", "running"), RUN_S)
        ended = admin.get(where).json()

    assert posted.status_code == 201, posted.text
    assert ended["state"] == "refused", "nobody has called, which only a run that was computed can say"
    assert not [line for line in gateway.errors.queue if "imported" in line]


@pytest.mark.parametrize("words", [("--help",), ("price", "starter", "chat", "--out", "-"), ("doctor",)])
def test_commands_do_not_import_it_either(poisoned: Path, directory: Path, words: tuple[str, ...]) -> None:
    """The installed command looks where it is installed and nowhere else."""
    ran = subprocess.run(
        [*COMMAND, *words], env=environment(directory), cwd=poisoned, capture_output=True, text=True, check=False
    )

    assert "imported" not in ran.stdout + ran.stderr
    assert ran.returncode in (0, 1)


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_one_place_says_how_a_process_of_ours_is_started(path: Path) -> None:
    """Nobody else names the interpreter, so nobody can leave out the option that keeps the current directory out."""
    named = [
        node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)
        and node.attr == "executable"
    ]  # fmt: skip

    assert (named != []) == (path == STARTS)
