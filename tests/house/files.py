"""The project's own files, as the house tests read them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("gateway", "pricing", "tests", "benchmarks", "docs", "deploy", ".ci")
WRITTEN = frozenset(
    {".py", ".lua", ".sql", ".md", ".toml", ".yml", ".yaml", ".json", ".html", ".css", ".js", ".sh", ""}
)
"""Endings of files that people write."""


def python_files() -> list[Path]:
    """Return every Python file of the project, sorted."""
    return [path for path in written_files() if path.suffix == ".py"]


def written_files() -> list[Path]:
    """Return every file of the project that people write and read, sorted; vendored ones are left out."""
    found = [path for path in ROOT.iterdir() if path.is_file() and path.name not in {"LICENSE", ".git"}]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(
        path
        for path in found
        if path.suffix in WRITTEN and not {"__pycache__", "static", "node_modules"} & set(path.parts)
    )


def name_of(path: Path) -> str:
    """Return a file's name from the root on, as a test's id."""
    return path.relative_to(ROOT).as_posix()
