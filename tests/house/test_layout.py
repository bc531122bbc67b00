"""A newcomer finds a file by its name: folders are small, and files are worth opening."""

from __future__ import annotations

import ast
from collections import defaultdict
from itertools import combinations
from pathlib import Path

from tests.house.files import ROOT, name_of

FILES_MOST = 14
LINES_LEAST = 40
SOURCES = sorted(path for room in ("gateway", "pricing") for path in (ROOT / room).rglob("*.py"))
MIGRATIONS = ROOT / "gateway" / "ledger" / "migrations"
FOLDERS = sorted(
    {path.parent for path in SOURCES if MIGRATIONS not in path.parents} | {*(ROOT / "gateway").rglob("lua")}
)


def files_in(folder: Path) -> int:
    return sum(path.suffix in {".py", ".lua"} and path.name != "__init__.py" for path in folder.iterdir())


def test_a_folder_is_seen_at_a_glance() -> None:
    """No folder of source has more than fourteen files; migrations are exempt."""
    assert {name_of(folder): count for folder in FOLDERS if (count := files_in(folder)) > FILES_MOST} == {}


def test_a_file_is_worth_opening() -> None:
    """No source file has fewer than forty lines; registries, migrations and ``__init__`` are exempt."""
    by_nature = {"__init__.py", "registry.py"}
    files = [path for path in SOURCES if path.name not in by_nature and MIGRATIONS not in path.parents]

    assert [name_of(path) for path in files if len(path.read_text("utf-8").splitlines()) < LINES_LEAST] == []


def room_of(path: Path) -> str:
    """Return the folder below ``gateway`` or ``pricing`` that contains a file, or the package itself."""
    return "/".join(path.relative_to(ROOT).parent.parts[:2])


def imported(path: Path) -> set[Path]:
    """Return the files of the project that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return {ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in found}


def test_no_two_files_have_one_name_in_rooms_that_meet() -> None:
    """Within a room, and between rooms of which one imports the other, a file's name is unique."""
    meets, named = defaultdict(set), defaultdict(list)
    for path in SOURCES:
        meets[room_of(path)] |= {room_of(path), *(room_of(other) for other in imported(path).intersection(SOURCES))}
        named[path.name].append(path)
    del named["__init__.py"]

    confused = [
        (name_of(first), name_of(second))
        for paths in named.values()
        for first, second in combinations(paths, 2)
        if room_of(first) in meets[room_of(second)] or room_of(second) in meets[room_of(first)]
    ]

    assert not confused
