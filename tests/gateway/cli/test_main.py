"""The command line as a whole: its list of commands, its exit codes, its one-sentence errors, its quick start."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer

from gateway.cli.main import COMMANDS, run
from tests.gateway.cli.commands import COMMAND, tokencap

PUBLIC = [name for name, entry in COMMANDS.items() if not entry.hidden]
HEAVY = ("numpy", "scipy", "fastapi", "sqlalchemy", "redis", "uvicorn", "httpx", "pydantic")


def test_help_lists_what_a_user_may_call(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command with its line, and neither of the two that only the supervisor calls."""
    assert run(["--help"]) == 0

    listed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert all(f"{name} {COMMANDS[name].help}" in listed for name in PUBLIC)
    assert "worker" not in listed
    assert "bookkeeper" not in listed


def test_without_a_command_the_list_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Who types only the name wants to know what there is."""
    assert run([]) == 0
    assert "serve" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` of each command works and is about that command."""
    assert run([name, "--help"]) == 0
    assert f"Usage: tokencap {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", PUBLIC)
def test_every_command_is_a_program_by_itself(name: str) -> None:
    """Loaded alone by a new interpreter, with nothing that another command has loaded before."""
    ran = subprocess.run([*COMMAND, name, "--help"], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_in_the_module_that_the_list_names(name: str) -> None:
    """The module adds the command under the name that it is called by, and nothing else."""
    app: typer.Typer = import_module(COMMANDS[name].module).app

    assert [app.info.name] == [name] or [command.name for command in app.registered_commands] == [name]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sell"], "No such command 'sell'."),
        (["serve", "--fast"], "No such option: --fast"),
        (["serve", "--workers", "many"], "Invalid value for '--workers': "),
        (["simulate", "extra"], "Got unexpected extra argument"),
        (["simulate", "--tokens-per-s", "0"], "tokens_per_s is a positive number."),
    ],
)
def test_wrong_use_is_told_in_one_line(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one line on stderr, nothing on stdout."""
    assert run(words) == 2

    output = capsys.readouterr()
    assert output.err.startswith(sentence)
    assert output.err.count("\n") == 1
    assert output.out == ""


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [(["--help"], HEAVY), (["price", "starter", "--out", "-"], ("numpy", "scipy", "fastapi", "sqlalchemy", "redis"))],
)
def test_a_command_waits_for_nothing_that_it_does_not_need(words: list[str], unneeded: tuple[str, ...]) -> None:
    """The list of commands is there without loading numerics, servers or databases, and so is a file that is shipped."""
    program = f"import sys; from gateway.cli.main import run; run({words}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert "typer" in loaded.split()
    assert not set(unneeded) & set(loaded.split())


def test_a_fault_of_our_own_is_one_sentence_too(directory: Path) -> None:
    """Whatever happens there is no traceback: here the current directory is gone before the command starts."""
    directory.mkdir(parents=True)
    program = (
        "import os, sys; from gateway.cli.main import run; "
        "os.rmdir(os.getcwd()); sys.exit(run(['admin-token']))"
    )  # fmt: skip
    failed = subprocess.run([sys.executable, "-c", program], cwd=directory, capture_output=True, text=True, check=False)

    assert failed.returncode == 3
    assert len(failed.stderr.splitlines()) == 1


def test_the_installed_command_is_this_one(directory: Path) -> None:
    """``python -m gateway.cli.main`` and ``tokencap`` are the same program."""
    assert tokencap(directory, "--help").returncode == 0
    assert subprocess.run([*COMMAND, "--help"], check=False).returncode == 0
    assert subprocess.run([Path(sys.executable).with_name("tokencap"), "--help"], check=False).returncode == 0
