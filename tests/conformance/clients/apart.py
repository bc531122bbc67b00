"""Python clients that need older libraries than the suite: scripts beside ``apart/ask.py``, run in ``.clients``."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.clients.driver import Driver

FOLDER = Path(__file__).parents[1] / "apart"

APART = Driver(FOLDER.parents[2] / ".clients" / "bin" / "python", FOLDER / "ask.py")
