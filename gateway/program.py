"""How a process of this gateway starts another one of tokencap: the one place that says so."""

from __future__ import annotations

import sys

PROGRAM = (sys.executable, "-P", "-m", "gateway.cli.main")
"""The words of a command follow. ``-P``: nothing in the current directory is imported, whatever it is called."""
