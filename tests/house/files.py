"""The project's own files, as the house tests read them."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("gateway", "pricing", "tests", "benchmarks", "docs", "deploy", ".ci")
WRITTEN = frozenset(
    {".py", ".lua", ".sql", ".md", ".toml", ".yml", ".yaml", ".json", ".html", ".css", ".js", ".sh", ""}
)
"""Suffixes of files that people write."""

LEFT_OUT = frozenset({"__pycache__", "static", "node_modules"})
"""Folders of files that are generated or vendored."""


def python_files() -> list[Path]:
    """Return every Python file of the project, sorted."""
    return [path for path in written_files() if path.suffix == ".py"]


def written_files() -> list[Path]:
    """Return every file of the project that people write and read, sorted; vendored ones are left out."""
    return list(_written())


@cache
def _written() -> tuple[Path, ...]:
    """List the files once in each process: no test adds a file to the project."""
    found = [path for path in ROOT.iterdir() if path.is_file() and path.name not in {"LICENSE", ".git"}]
    for top in FOLDERS:
        for folder, inner, names in os.walk(ROOT / top):
            inner[:] = [name for name in inner if name not in LEFT_OUT]
            found += [Path(folder, name) for name in names]
    return tuple(sorted(path for path in found if path.suffix in WRITTEN))


def name_of(path: Path) -> str:
    """Return a file's path from the root, as a test's id."""
    return path.relative_to(ROOT).as_posix()
