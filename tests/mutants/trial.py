"""Runs tests in a copy of the project, with a time limit and nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.tree import Tree

PATIENCE_S = 20.0
"""How long a run may take to end after its signal."""


UNUSED = ("cacheprovider", "langsmith_plugin", "schemathesis")
"""Plugins of other installed libraries: loading them would be half of a short run's time."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a run of tests ended."""

    is_green: bool
    is_late: bool
    seconds: float
    output: str
    """The end of what pytest printed."""


class Trials:
    """All test runs of one process, which are ended together."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._is_over = False

    def run(self, tree: Tree, tests: Sequence[str], scratch: Path, limit_s: float) -> Result:
        """Run tests until the first fails.

        Raises:
            InterruptedError: ``stop`` was called.
        """
        command = [
            *(str(tree.python), "-m", "pytest", "-x", "--tb=line", "--no-header", f"--hypothesis-seed={self._seed}"),
            *(word for plugin in UNUSED for word in ("-p", f"no:{plugin}")),
            *tests,
        ]
        environment = {**os.environ, "TMPDIR": str(scratch)} | {"PYTHONDONTWRITEBYTECODE": ""}
        began = time.monotonic()
        with self._lock:
            if self._is_over:
                raise InterruptedError
            running = subprocess.Popen(
                command,
                cwd=tree.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(running)
        try:
            is_late = False
            try:
                output, _ = running.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                is_late = True
                _end(running)
                output = b"too late"
        finally:
            with self._lock:
                self._running.discard(running)
        if self._is_over:
            raise InterruptedError
        taken_s = time.monotonic() - began
        return Result(running.returncode == 0, is_late, taken_s, output.decode("utf-8", "replace")[-2000:])

    def stop(self) -> None:
        """End every run, and start no more."""
        with self._lock:
            self._is_over = True
            running = list(self._running)
        for one in running:
            _end(one)


def _end(running: subprocess.Popen[bytes]) -> None:
    """Have pytest end its own processes; if it does not, kill them."""
    with suppress(ProcessLookupError):
        running.send_signal(signal.SIGINT)
    try:
        running.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
