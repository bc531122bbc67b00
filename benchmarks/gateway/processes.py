"""Starts the processes of a benchmark on their cores, and reads the CPU time of each process tree."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 60.0


@contextmanager
def running(
    command: Sequence[str | Path],
    core: int | None,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[int]:
    """Run a command, pinned to ``core`` with all its children, and yield its process id; the block's end stops it."""
    words = [str(word) for word in command]
    pinned = words if core is None else ["taskset", "-c", str(core), *words]
    with (log or Path(os.devnull)).open("ab") as out:
        process = subprocess.Popen(
            pinned, env={**os.environ, **(environment or {})}, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants that still run."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    process_ids = [pid]
    for process_id in process_ids:
        process_ids += children.get(process_id, [])
    return process_ids


def cpu_s(pids: Sequence[int]) -> float:
    """Return the CPU time, user and system, that processes have used so far, in ticks of 10 ms."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def cpu_of_tree_s(pid: int) -> float:
    """Return the CPU time of a process and its descendants so far, including those that ended and were waited for."""
    total = 0
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile, and counts as a child of its parent soon
        total += sum(map(int, fields[11:15]))
    return total / TICKS_PER_S


def memory_mb(pids: Sequence[int]) -> float:
    """Return the memory of processes in MB, shared pages counted proportionally."""
    total_kb = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total_kb += int(line.split()[1])
    return total_kb / 1024


def words_of(pid: int) -> list[str]:
    """Return the command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def until_listening(port: int) -> None:
    """Wait until a process accepts connections on a port of this machine."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return
