"""A process is known by its number and its beginning, so that a reused number is not taken for it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest

from gateway.runtime.processes import Process
from tests.waiting import until


@pytest.fixture
def sleeper() -> subprocess.Popen[bytes]:
    """A process that runs until its standard input ends."""
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


def test_a_process_runs_until_it_has_ended(sleeper: subprocess.Popen[bytes]) -> None:
    """One whose status nobody has asked for yet, a zombie, has ended, too."""
    process = Process.of_pid(sleeper.pid)
    assert process.is_running()

    sleeper.kill()

    until(lambda: not process.is_running())
    sleeper.communicate()
    assert not process.is_running()


def test_a_number_that_was_given_to_another_is_not_the_process(sleeper: subprocess.Popen[bytes]) -> None:
    """A process with the number but another beginning is somebody else, and is not killed."""
    other = replace(Process.of_pid(sleeper.pid), began="an earlier boot/1")

    other.kill()

    assert not other.is_running()
    assert Process.of_pid(sleeper.pid).is_running()
    sleeper.communicate()
    assert sleeper.returncode == 0, "nobody has killed it"


def test_without_a_beginning_a_process_is_waited_for_and_never_killed(sleeper: subprocess.Popen[bytes]) -> None:
    """Where the system does not tell when a process began, only its number counts."""
    process = Process(sleeper.pid, began=None)

    process.kill()

    assert process.is_running()
    sleeper.communicate()
    assert sleeper.returncode == 0, "nobody has killed it"
    assert not process.is_running()


async def test_patience_with_a_process_ends(sleeper: subprocess.Popen[bytes]) -> None:
    """Whoever waits learns whether it ended in time."""
    process = Process.of_pid(sleeper.pid)

    assert not await process.ended(patience_s=0.05)
    process.kill()
    assert await process.ended(patience_s=5)
    sleeper.communicate()


def test_a_process_that_never_was_does_not_run() -> None:
    """A number beyond all numbers is nobody."""
    assert not Process.of_pid(2**22 + 1).is_running()
    assert not Process(2**22 + 1, began=None).is_running()
    assert Process.of_pid(os.getpid()).is_running()
