"""Every test can fail: it asserts something or expects an error, itself or in a function of the tests that it calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.house.files import ROOT, name_of, python_files

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
EXPECTS = frozenset({"raises", "warns", "until", "wait_for"})
"""Calls that fail if something does not happen: ``pytest.raises`` and the one way to wait."""

NUMPY = "assert_"
TESTS = [path for path in python_files() if path.is_relative_to(ROOT / "tests")]
WITH_TESTS = [path for path in TESTS if path.name.startswith("test_")]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def functions(path: Path) -> dict[str, FUNCTIONS]:
    return {node.name: node for node in tree(path).body if isinstance(node, FUNCTIONS)}


@cache
def methods_that_assert() -> frozenset[str]:
    """Return the names of methods in the tests that assert something themselves, of any class."""
    classes = (node for path in TESTS for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef))
    methods = (node for one in classes for node in one.body if isinstance(node, FUNCTIONS))
    return frozenset(node.name for node in methods if asserts(node))


@cache
def imported(path: Path) -> dict[str, tuple[Path, str]]:
    """Return the files and names of the functions that a file imports from other files of the tests."""
    found = {}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
            other = ROOT.joinpath(*str(node.module).split(".")).with_suffix(".py")
            found.update({name.asname or name.name: (other, name.name) for name in node.names})
    return found


def asserts(node: ast.AST) -> bool:
    """Return whether a function itself asserts something or expects an error."""
    if any(isinstance(each, ast.Assert) for each in ast.walk(node)):
        return True
    names = (one.attr if isinstance(one, ast.Attribute) else getattr(one, "id", "") for one in calls(node))
    return any(name in EXPECTS or name.startswith(NUMPY) for name in names)


def calls(node: ast.AST) -> Iterator[ast.expr]:
    return (each.func for each in ast.walk(node) if isinstance(each, ast.Call))


@cache
def can_fail(path: Path, name: str) -> bool:
    """Return whether a function of a file, or a function that it calls, asserts something."""
    node = functions(path).get(name)
    return node is not None and can_fail_in(path, node, frozenset({name}))


def can_fail_in(path: Path, node: ast.AST, seen: frozenset[str]) -> bool:
    if asserts(node):
        return True
    for called in calls(node):
        if isinstance(called, ast.Attribute) and called.attr in methods_that_assert():
            return True
        if isinstance(called, ast.Name) and called.id not in seen:
            other, name = imported(path).get(called.id, (path, called.id))
            inner = functions(other).get(name) if other.exists() else None
            if inner is not None and can_fail_in(other, inner, seen | {called.id}):
                return True
    return False


def ends_early(node: FUNCTIONS) -> Iterator[ast.Return]:
    """Yield the returns of a test itself that have no assertion before them in the same block."""
    blocks = [node.body]
    while blocks:
        block = blocks.pop()
        for place, statement in enumerate(block):
            if isinstance(statement, ast.Return) and not any(map(asserts, block[:place])):
                yield statement
            if not isinstance(statement, FUNCTIONS | ast.ClassDef):
                inner = (getattr(statement, name, []) for name in ("body", "orelse", "finalbody"))
                blocks += [*filter(None, inner), *(handler.body for handler in getattr(statement, "handlers", ()))]


def test_every_test_can_fail() -> None:
    """No test returns before an assertion: such a case would pass without a check."""
    tests = [(path, node) for path in WITH_TESTS for name, node in functions(path).items() if name.startswith("test_")]

    assert [(name_of(path), node.name) for path, node in tests if not can_fail(path, node.name)] == []
    assert [(name_of(path), one.lineno) for path, node in tests for one in ends_early(node)] == []


@pytest.mark.parametrize(
    ("written", "fails"),
    [
        ("def test_a(): pass", False),
        ("def test_a(): assert 1", True),
        ("def test_a():\n with pytest.raises(ValueError): int('x')", True),
        ("def test_a():\n def inner(): return 1\n inner()", False),
        ("def test_a(): np.testing.assert_allclose(1, 1)", True),
    ],
)
def test_what_is_an_assertion(written: str, fails: bool) -> None:
    assert asserts(ast.parse(written)) == fails


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ("def test_a():\n if x:\n  return\n assert 1", [3]),
        ("def test_a():\n if x:\n  assert y\n  return\n assert 1", []),
        ("def test_a():\n def inner():\n  return 1\n assert inner()", []),
        ("def test_a():\n with x:\n  for y in z:\n   return\n assert 1", [4]),
    ],
)
def test_what_ends_a_test_early(written: str, lines: list[int]) -> None:
    [test] = ast.parse(written).body
    assert isinstance(test, FUNCTIONS)

    assert [one.lineno for one in ends_early(test)] == lines
