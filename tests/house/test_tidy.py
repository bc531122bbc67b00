"""Every file can be read in one go, says what it is for, and is finished."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
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

THIS_FILE = Path(__file__)  # this file names the words that other files must not contain
TESTS = [path for path in python_files() if path.is_relative_to(ROOT / "tests")]


def too_long(text: str) -> Iterator[str]:
    """Yield the parts of a Python file that are too long to read in one go."""
    lines = text.splitlines()
    if len(lines) > FILE_LINES_MAX:
        yield "the file"
    if len(lines) > FUNCTION_LINES_MAX:
        for node in ast.walk(ast.parse(text)):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX:
                yield node.name


def test_a_file_is_read_in_one_go() -> None:
    """No Python file has more than 400 lines, no function more than 60."""
    assert {name_of(path): found for path in python_files() if (found := [*too_long(path.read_text("utf-8"))])} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f():\n" + "  x\n" * 59, []),
        ("def f():\n" + "  x\n" * 60, ["f"]),
        ("class A:\n async def f():\n" + "  x\n" * 60, ["f"]),
        ("x\n" * 400, []),
        ("x\n" * 401, ["the file"]),
    ],
)
def test_what_is_too_long_is_found(text: str, found: list[str]) -> None:
    assert list(too_long(text)) == found


def opens_with_a_sentence(text: str) -> bool:
    """Return whether a Python file begins with a docstring whose first paragraph is one sentence."""
    end = text.find('"""', 3)
    if not text.startswith('"""') or end < 0:
        return False
    opening = (ast.get_docstring(ast.parse(text[: end + 3])) or "").split("\n\n")[0]
    return bool(re.fullmatch(r"\S[^.!?].*[.:]", opening, re.DOTALL))


def test_a_file_opens_with_a_sentence() -> None:
    """The sentence says what the file is for; an ``__init__`` may be empty."""
    files = [path for path in python_files() if path.name != "__init__.py" or path.stat().st_size]

    assert [name_of(path) for path in files if not opens_with_a_sentence(path.read_text("utf-8"))] == []


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ('"""Say what it is for."""\nx = 1', True),
        ('"""Say what it is for.\n\nMore of it\n"""\nx = 1', True),
        ('"""No sentence"""', False),
        ('"""Say\n\nmore."""', False),
        ("x = 1", False),
        ('# A remark.\n"""Say what it is for."""', False),
    ],
)
def test_what_opens_with_a_sentence(text: str, opens: bool) -> None:
    assert opens_with_a_sentence(text) == opens


PUBLIC = ROOT / "pricing" / "__init__.py"  # the names of a library that people import
PACKAGES = [path for path in python_files() if path.name == "__init__.py" and path != PUBLIC]


def test_nothing_is_handed_on_by_a_package() -> None:
    """A name is imported from the file that defines it: an ``__init__`` contains at most a docstring."""
    handing_on = [
        name_of(path)
        for path in PACKAGES
        for statement in ast.parse(path.read_text("utf-8")).body
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
    ]

    assert handing_on == []


def said_in(paths: list[Path], *unwanted: re.Pattern[str]) -> list[tuple[str, str]]:
    """Return each file that contains unwanted words, with the first of these words."""
    texts = ((name_of(path), path.read_text("utf-8")) for path in paths if path != THIS_FILE)
    return [(name, found[0]) for name, text in texts for words in unwanted if (found := words.search(text))]


def test_nothing_is_left_for_later_or_bound_to_one_machine() -> None:
    """No file contains a word for unfinished work, or a path of one machine."""
    assert said_in(written_files(), UNFINISHED, ONE_MACHINE) == []


def test_tests_run_patch_nothing_and_wait_in_one_way() -> None:
    """No test is skipped, no test replaces a part of the product, and only ``tests/waiting.py`` sleeps."""
    assert said_in(TESTS, LEFT_OUT, PATCHED) == []
    assert [name for name, _ in said_in(TESTS, WAITING)] == ["tests/waiting.py"]
