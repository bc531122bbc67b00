"""A newcomer finds a file by its name: folders are small, and files are worth opening."""

from __future__ import annotations

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
