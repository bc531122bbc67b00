"""Types are checked strictly, beside the other tests: alone it would keep one of two cores waiting for half a minute."""

from __future__ import annotations

import subprocess
import sys

from tests.house.files import ROOT


def test_mypy_finds_nothing() -> None:
    """Also what ``make check`` asks; ``pyproject.toml`` says of which folders."""
    checked = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr
