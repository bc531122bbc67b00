"""Long work shows on a terminal that it is going on, leaves nothing behind there, and is silent anywhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

PROGRAM = """
from threading import Event
from gateway.cli.progress import timed
with timed("Working"):
    Event().wait({seconds})
"""


def shown(seconds: float) -> str:
    """Return what a terminal gets from work of so many seconds."""
    terminal, ours = os.openpty()
    subprocess.run([sys.executable, "-c", PROGRAM.format(seconds=seconds)], stderr=ours, check=True)
    os.close(ours)
    text = b""
    with suppress(OSError):  # how Linux tells that nobody writes there any more
        while chunk := os.read(terminal, 4096):
            text += chunk
    os.close(terminal)
    return text.decode()


def test_long_work_shows_for_how_long() -> None:
    """The seconds stand on one line, which is empty again at the end."""
    output = shown(1.3)

    assert "Working: 1 s" in output
    assert output.endswith("\r\x1b[K")
    assert "\n" not in output


def test_short_work_shows_nothing() -> None:
    """What takes less than a second needs no words."""
    assert shown(0.0).replace("\r\x1b[K", "") == ""


def test_a_pipe_gets_nothing() -> None:
    """Only a terminal is drawn on."""
    quiet = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(seconds=1.3)], capture_output=True, text=True, check=True
    )

    assert (quiet.stdout, quiet.stderr) == ("", "")
