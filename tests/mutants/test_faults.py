"""The list of faults fits the code."""

from __future__ import annotations

import ast
from functools import cache
from itertools import groupby

import pytest

from tests.house.files import ROOT
from tests.mutants.faults import PROMISES, Fault, faults

FAULTS = faults()
BY_FILE = [
    (path, list(found)) for path, found in groupby(sorted(FAULTS, key=lambda one: one.path), lambda one: one.path)
]


def test_there_are_at_least_three_hundred() -> None:
    """No two faults are the same."""
    assert len({(fault.path, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS) >= 300


@pytest.mark.parametrize(("path", "found"), BY_FILE, ids=[path for path, _ in BY_FILE])
def test_each_can_be_put_in(path: str, found: list[Fault]) -> None:
    """The old text occurs once, the new text differs from it, and the file compiles with the fault put in."""
    text = (ROOT / path).read_text("utf-8")
    tree = ast.dump(ast.parse(text)) if found[0].is_python else ""

    for fault in found:
        assert text.count(fault.old) == 1, fault
        assert fault.old != fault.new, fault
        assert fault.breaks is None or fault.breaks in PROMISES, fault
        if fault.is_python:
            faulty = fault.put_into(text)
            compile(faulty, path, "exec")
            assert ast.dump(ast.parse(faulty)) != tree, fault


@pytest.mark.parametrize("test", sorted({test for fault in FAULTS for test in fault.tests}))
def test_each_names_tests_that_are_there(test: str) -> None:
    """Each name is a file, or a function in a file."""
    path, _, name = test.partition("::")

    assert (ROOT / path).exists()
    assert not name or name.partition("[")[0] in _functions(path)


@cache
def _functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
