"""After a supervisor that was killed the next start waits, clears up, and knows which workers are dead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import StartupError
from gateway.runtime import valkey
from gateway.runtime.data_directory import Child, Running, claimed
from gateway.runtime.orphans import retire
from gateway.runtime.processes import Process
from tests.servers import valkey_command
from tests.waiting import until

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); signal.pause()"


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[str]]:
    """A process that ends at no friendly word."""
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    yield process
    process.kill()
    process.communicate()


async def test_nothing_left_is_nothing_to_do(directory: Path) -> None:
    """A first start, or one after a clean stop, clears up nothing."""
    with claimed(directory) as data:
        await retire(data, patience_s=0)

        assert data.remembered() == Running()


async def test_workers_that_are_gone_are_known_to_be_dead(directory: Path) -> None:
    """Also one whose number belongs to another process by now, and one that Redis could not be told of."""
    reused = Process(Process.of_pid(1).pid, began="another boot/1")
    with claimed(directory) as data:
        data.remember(Running((Child("worker", reused, "w_2"), Child("bookkeeper", reused)), None, ("w_1",)))

        await retire(data, patience_s=0)

        assert data.remembered() == Running(ended_workers=("w_1", "w_2"))


async def test_a_worker_that_does_not_end_is_killed(directory: Path, worker: subprocess.Popen[str]) -> None:
    """It had its time; its beginning shows that it is the one."""
    with claimed(directory) as data:
        data.remember(Running((Child("worker", Process.of_pid(worker.pid), "w_1"),)))

        await retire(data, patience_s=0.05)

        assert data.remembered().ended_workers == ("w_1",)
    assert worker.wait() == -9


async def test_a_process_that_may_be_another_program_is_not_killed(
    directory: Path, worker: subprocess.Popen[str]
) -> None:
    """Where the system does not say when it began, the operator decides; its worker is not called dead."""
    left = Running((Child("worker", Process(worker.pid, began=None), "w_1"),))
    with claimed(directory) as data:
        data.remember(left)

        with pytest.raises(
            StartupError, match=f"Process {worker.pid}, the worker of an earlier start on .*, does not end: stop it"
        ):
            await retire(data, patience_s=0.05)

        assert data.remembered() == left
    assert worker.poll() is None


async def test_an_orphaned_valkey_is_shut_down(directory: Path) -> None:
    """It writes out what it has and ends; its socket is gone."""
    with claimed(directory) as data:
        socket = data.valkey / "valkey.sock"
        server = subprocess.Popen(valkey_command(data.valkey), stdout=subprocess.DEVNULL, start_new_session=True)
        until(socket.exists)
        await valkey.until_up(socket)
        data.remember(Running((Child("valkey", Process.of_pid(server.pid)),), str(socket)))

        await retire(data, patience_s=0)

        assert server.wait() == 0
        assert not socket.exists()
