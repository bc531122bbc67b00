"""A run of the tests that is stopped from outside leaves nothing running: a stop at the terminal reaches a whole group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.runtime.data_directory import DataDir
from gateway.runtime.processes import Process
from tests.house.files import ROOT
from tests.waiting import until

PROGRAM = """
import signal, sys
from pathlib import Path
from tests.gateway.cli.commands import serving

with serving(Path(sys.argv[1])) as gateway:
    print(gateway.process.pid, flush=True)
    signal.pause()
"""
"""A test that has started a gateway with its own Valkey and waits."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_gateway_of_a_test_ends_with_the_group_of_the_tests(directory: Path, number: signal.Signals) -> None:
    """Neither signal lets the test clean up; the process that forks for it stops what it has started."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    with program.stdout:
        gateway = Process.of_pid(int(program.stdout.readline()))
    left = [gateway, *(child.process for child in DataDir(directory).remembered().children)]
    assert all(process.is_running() for process in left)

    os.killpg(program.pid, number)
    program.wait()

    try:
        until(lambda: not any(process.is_running() for process in left))
    finally:
        for process in left:
            process.kill()
