"""mypy runs beside the other tests: run alone, it would leave one of two cores idle for half a minute."""

from __future__ import annotations

import subprocess
import sys

from tests.house.files import ROOT


def test_mypy_finds_nothing() -> None:
    """``make check`` runs the same; ``pyproject.toml`` lists the folders."""
    checked = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr
