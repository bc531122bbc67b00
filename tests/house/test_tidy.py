"""Every file can be read in one go, says what it is for, and is finished."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.house.files import ROOT, name_of, python_files, written_files

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK|WIP|NotImplementedError)\b")
LEFT_OUT = re.compile(r"\bpytest\.(?:skip|importorskip|mark\.skip|mark\.skipif|mark\.xfail)\b")
PATCHED = re.compile(r"\b(?:unittest\.mock|monkeypatch|MagicMock)\b")
WAITING = re.compile(r"\btime\.sleep\(")
ONE_MACHINE = re.compile(r"(?<![\w.])/(?:root|home|Users|work)/")

THIS_FILE = Path(__file__)  # it has to name what the others must not say
TESTS = [path for path in python_files() if path.is_relative_to(ROOT / "tests") and path != THIS_FILE]
every_python_file = pytest.mark.parametrize("path", python_files(), ids=name_of)


@every_python_file
def test_a_file_is_read_in_one_go(path: Path) -> None:
    """No Python file has more than 400 lines, no function more than 60."""
    text = path.read_text("utf-8")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]

    assert len(text.splitlines()) <= FILE_LINES_MAX
    for function in functions:
        assert (function.end_lineno or 0) - function.lineno + 1 <= FUNCTION_LINES_MAX, function.name


NOT_EMPTY = [path for path in python_files() if path.name != "__init__.py" or path.stat().st_size]


@pytest.mark.parametrize("path", NOT_EMPTY, ids=name_of)
def test_a_file_opens_with_a_sentence(path: Path) -> None:
    """The first thing in a file is one sentence that says what it is for; an ``__init__`` may be empty."""
    text = path.read_text("utf-8")
    opening = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]

    assert text.startswith('"""')
    assert re.fullmatch(r"\S[^.!?].*[.:]", opening, re.DOTALL), opening


PUBLIC = ROOT / "pricing" / "__init__.py"  # the names of a library that people import
PACKAGES = [path for path in python_files() if path.name == "__init__.py" and path != PUBLIC]


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_nothing_is_handed_on_by_a_package(path: Path) -> None:
    """A name is imported from the file that defines it: an ``__init__`` holds a sentence at most."""
    body = ast.parse(path.read_text("utf-8")).body

    assert all(isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) for statement in body)


@pytest.mark.parametrize("path", [path for path in written_files() if path != THIS_FILE], ids=name_of)
def test_nothing_is_left_for_later_or_bound_to_one_machine(path: Path) -> None:
    """No file has a word that says it is unfinished, or a path that is there on one machine only."""
    text = path.read_text("utf-8")

    assert not UNFINISHED.search(text)
    assert not ONE_MACHINE.search(text)


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_tests_run_patch_nothing_and_wait_in_one_way(path: Path) -> None:
    """No test is left out, none replaces a part of the product, and only ``tests/waiting.py`` sleeps."""
    text = path.read_text("utf-8")

    assert not LEFT_OUT.search(text)
    assert not PATCHED.search(text)
    assert path == ROOT / "tests" / "waiting.py" or not WAITING.search(text)
