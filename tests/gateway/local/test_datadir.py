"""A data directory belongs to one process at a time, and remembers what runs on it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import StartupError
from gateway.local.datadir import Child, DataDir, Running, claimed
from gateway.local.processes import Process

HOLD = """
import sys
from pathlib import Path
from gateway.local.datadir import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def _holder(directory: Path) -> subprocess.Popen[str]:
    """Start another process that has the directory until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(directory)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "claimed\n"
    return holder


def test_a_directory_in_use_is_refused_naming_who_uses_it(directory: Path) -> None:
    """The sentence has the process and the directory, and the exit code is 3."""
    with _holder(directory) as holder:
        with pytest.raises(StartupError) as refused, claimed(directory):
            pass
        holder.kill()

    assert refused.value.message == f"The data directory {directory} is in use by process {holder.pid}."
    assert refused.value.exit_code == 3


def test_a_killed_process_holds_a_directory_no_longer(directory: Path) -> None:
    """The lock ends with its process, however that ends."""
    with _holder(directory) as holder:
        holder.kill()

    with claimed(directory) as data:
        assert data.path == directory


def test_a_directory_is_for_its_owner_only(directory: Path) -> None:
    """Nobody else on the machine may look at what is in it."""
    with claimed(directory) as data:
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (data.path, data.valkey)]

    assert modes == [0o700, 0o700]


def test_a_directory_that_cannot_be_made_is_refused(directory: Path) -> None:
    """A file in its place is a sentence, not a traceback."""
    directory.write_text("in the way")

    with pytest.raises(StartupError, match="cannot be used"), claimed(directory):
        pass


def test_what_runs_is_remembered(directory: Path) -> None:
    """What one start writes down is what the next one reads."""
    running = Running(
        children=(Child("worker", Process(12, "boot/34"), "w_1"), Child("bookkeeper", Process(13, None))),
        socket="/somewhere/valkey.sock",
        ended_workers=("w_0",),
    )
    with claimed(directory) as data:
        data.remember(running)

    assert DataDir(directory).remembered() == running


@pytest.mark.parametrize("text", ["", "{", "[]", '{"children": [{}]}', '{"children": 3, "socket": null}'])
def test_half_a_file_is_nothing_remembered(directory: Path, text: str) -> None:
    """After a power cut nothing runs, whatever the file looks like."""
    with claimed(directory) as data:
        data.running_file.write_text(text)

        assert data.remembered() == Running()


def test_a_socket_is_in_the_directory_where_its_path_is_short(directory: Path) -> None:
    """That is where anyone would look for it."""
    assert DataDir(directory).new_socket() == directory / "valkey" / "valkey.sock"


def test_a_socket_is_in_a_private_directory_where_its_path_would_be_too_long(directory: Path) -> None:
    """Its path has less than 104 bytes, and only the owner reaches it; the directory goes with the socket."""
    data = DataDir(directory / ("deep" * 30))

    socket = data.new_socket()

    assert len(os.fsencode(socket)) < 104
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    data.drop_socket(socket)
    assert not socket.parent.exists()
