"""A newcomer finds a file by its name: folders are small, files are worth opening, names say one thing."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.house.files import ROOT, name_of

FILES_MOST = 14
LINES_LEAST = 40
SOURCES = sorted(path for room in ("gateway", "pricing") for path in (ROOT / room).rglob("*.py"))
MIGRATIONS = ROOT / "gateway" / "ledger" / "migrations"
FOLDERS = sorted(
    {path.parent for path in SOURCES if MIGRATIONS not in path.parents} | {*(ROOT / "gateway").rglob("lua")}
)


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_a_folder_is_seen_at_a_glance(folder: Path) -> None:
    """No folder of source has more than fourteen files; migrations are a list."""
    files = [path for path in folder.iterdir() if path.suffix in {".py", ".lua"} and path.name != "__init__.py"]

    assert len(files) <= FILES_MOST


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_is_worth_opening(path: Path) -> None:
    """No source file has fewer than forty lines, but registries, migrations and ``__init__``."""
    is_short_by_nature = path.name in {"__init__.py", "registry.py"} or MIGRATIONS in path.parents

    assert is_short_by_nature or len(path.read_text("utf-8").splitlines()) >= LINES_LEAST


def imports() -> dict[str, set[str]]:
    """Return, by folder, the folders whose files it imports."""
    found: dict[str, set[str]] = defaultdict(set)
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in SOURCES}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for name in (node.module, *(f"{node.module}.{each.name}" for each in node.names)):
                    if name in modules:
                        found[name_of(path.parent)].add(name_of(modules[name].parent))
    return found


def test_no_two_files_that_meet_have_one_name() -> None:
    """Where one folder imports another, no file of the one is called as a file of the other."""
    names = {
        folder: Counter(path.name for path in (ROOT / folder).glob("*.py"))
        for folder in map(name_of, FOLDERS)
        if (ROOT / folder).is_dir()
    }
    same = {
        (one, other, name)
        for one, others in imports().items()
        for other in others
        if one != other and one in names and other in names
        for name in names[one].keys() & names[other].keys() - {"__init__.py"}
    }

    assert same == set()
