"""A data directory belongs to one process at a time, and remembers what runs on it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import StartupError
from gateway.runtime.data_directory import Child, DataDir, Running, claimed
from gateway.runtime.orphans import retire
from gateway.runtime.private_files import make_private
from gateway.runtime.processes import Process

HOLD = """
import sys
from pathlib import Path
from gateway.runtime.data_directory import claimed
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


def test_a_list_is_replaced_whole(directory: Path) -> None:
    """A process that reads while another list is written has all of the old one."""
    with claimed(directory) as data:
        data.remember(Running(ended_workers=("w_1",)))
        before = data.running_file.read_text()
        with data.running_file.open() as reading:
            data.remember(Running(ended_workers=("w_2",)))

            assert reading.read() == before
        assert data.remembered().ended_workers == ("w_2",)
        assert sorted(path.name for path in directory.glob("running*")) == ["running.json"]


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


def test_a_copy_takes_nothing_of_the_list_it_was_copied_with(directory: Path) -> None:
    """What runs on one directory is not of its copy, wherever that is."""
    with claimed(directory) as data:
        data.remember(Running((Child("worker", Process.of_pid(os.getpid()), "w_1"),), str(data.new_socket())))
        shutil.copytree(directory, directory.with_name("copy"))

    assert DataDir(directory.with_name("copy")).remembered() == Running()


def test_a_list_goes_with_a_directory_that_was_moved(directory: Path) -> None:
    """It is the same directory; its socket is where the directory is now."""
    left = Running((Child("worker", Process.of_pid(os.getpid()), "w_1"),), str(directory / "valkey" / "valkey.sock"))
    with claimed(directory) as data:
        data.remember(left)

    moved = directory.rename(directory.with_name("moved"))

    assert DataDir(moved).remembered() == replace(left, socket=str(moved / "valkey" / "valkey.sock"))


def test_a_link_to_a_directory_is_that_directory(directory: Path) -> None:
    """Who runs on it is named, by whichever path it is asked for."""
    link = directory.with_name("link")
    link.symlink_to(directory)
    with claimed(directory) as data:
        data.remember(Running(ended_workers=("w_1",)))

        assert DataDir(link).remembered() == Running(ended_workers=("w_1",))
        with pytest.raises(StartupError, match=f"in use by process {os.getpid()}"), claimed(link):
            pass


def test_nothing_is_written_or_removed_where_another_directory_was_put_in_its_place(directory: Path) -> None:
    """The list and the socket there are another gateway's."""
    with claimed(directory) as data:
        socket = data.new_socket()
        directory.rename(directory.with_name("moved"))
        shutil.copytree(directory.with_name("moved"), directory)
        socket.touch()

        data.drop_socket(socket)
        with pytest.raises(OSError, match="another directory is in its place"):
            data.remember(Running())

    assert socket.exists()
    assert not data.running_file.exists()


def _modes(directory: Path) -> dict[str, int]:
    return {
        str(found.relative_to(directory)): stat.S_IMODE(found.lstat().st_mode)
        for found in (directory, *directory.rglob("*"))
        if not found.is_symlink()
    }


def test_a_directory_that_was_there_becomes_its_owners_alone(directory: Path) -> None:
    """All that is in it, too; what a link in it leads to is not touched."""
    outside = directory.with_name("outside")
    outside.write_text("somebody reads this")
    outside.chmod(0o644)
    (directory / "valkey" / "appendonlydir").mkdir(parents=True)
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "valkey/appendonlydir/a.aof", "notes"):
        (directory / name).touch()
    for found in (directory, *directory.rglob("*")):
        found.chmod(0o755 if found.is_dir() else 0o664)
    (directory / "link").symlink_to(outside)

    with claimed(directory) as data:
        data.remember(Running())
        (directory / "made now").touch()

    folders = {".", "valkey", "valkey/appendonlydir"}
    assert _modes(directory) == {name: 0o700 if name in folders else 0o600 for name in _modes(directory)}
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644


def test_the_mode_of_new_files_is_what_it_was_once_the_directory_is_given_back(directory: Path) -> None:
    """What this process makes later is not the data directory's business."""
    before = os.umask(0o022)
    try:
        with claimed(directory):
            pass

        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_what_belongs_to_another_user_is_refused(directory: Path) -> None:
    """Its owner could change what is in it; nothing is changed."""
    (directory / "valkey").mkdir(parents=True)
    directory.chmod(0o755)
    me = os.geteuid()

    with pytest.raises(StartupError, match=f"belongs to user {me} and this is user {me + 1}") as refused:
        make_private(directory, me + 1)

    assert refused.value.exit_code == 3
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755


def test_a_directory_of_other_files_is_refused(directory: Path) -> None:
    """Its files would become unreadable for those they are for: somebody mistook it."""
    directory.mkdir(mode=0o755)
    (directory / "hosts").touch()

    with pytest.raises(StartupError, match="name a directory of its own"), claimed(directory):
        pass

    assert stat.S_IMODE(directory.stat().st_mode) == 0o755


def test_a_new_volume_is_taken(directory: Path) -> None:
    """It comes with a folder of the file system's own."""
    (directory / "lost+found").mkdir(parents=True)

    with claimed(directory) as data:
        assert data.path == directory


INHERIT = """
import os, subprocess, sys
from pathlib import Path
from gateway.runtime.data_directory import claimed
with claimed(Path(sys.argv[1])) as data:
    import asyncio
    assert asyncio.run(data.alone(0))
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], pass_fds=data.held)
    print(child.pid, flush=True)
    os._exit(0)
"""


async def test_a_process_that_cannot_be_seen_holds_its_directory(directory: Path) -> None:
    """What a killed supervisor started is known to run though no list names it, and to have ended once it has."""
    command = [sys.executable, "-c", INHERIT, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        left = int(supervisor.stdout.readline())
        assert supervisor.wait() == 0
        with claimed(directory) as data:
            assert not await data.alone(0)
            with pytest.raises(StartupError, match="is not seen from here"):
                await retire(data, patience_s=0)

            os.kill(left, signal.SIGKILL)

            assert await data.alone(20)
