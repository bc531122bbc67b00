"""The time until ``tokencap serve`` serves, from its call and from its Redis' start, and a worker's CPU until then.

python -m benchmarks.gateway.start
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gateway.processes import TICKS_PER_S, cpu_s, tree

STARTS = 7
TICK_S = 1 / TICKS_PER_S


def started_s(pid: int) -> float:
    """Return when a process was started, in seconds since the machine's start."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) * TICK_S


def part(pids: list[int], word: str) -> int:
    """Return the process whose command line contains a word."""
    return next(pid for pid in pids if word in Path(f"/proc/{pid}/cmdline").read_text())


def start(directory: str) -> tuple[float, float, float]:
    """Start a gateway once; return the seconds from its call, from its Redis' start, and the worker's CPU seconds."""
    environment = {
        **os.environ,
        **{"TOKENCAP_UPSTREAM_URL": "http://127.0.0.1:9/v1", "TOKENCAP_UPSTREAM_PROFILE": "openai"},
        **{"TOKENCAP_MODEL": "aligned-1", "TOKENCAP_PORT": "0", "TOKENCAP_DATA_DIR": f"{directory}/data"},
    }
    call_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    command = [sys.executable, "-P", "-m", "gateway.cli.main", "serve"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as gateway:
        assert gateway.stdout is not None
        gateway.stdout.readline()
        ready_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        pids = tree(gateway.pid)
        valkey, worker = part(pids, "valkey-server"), part(pids, "worker")
        times = ready_s - call_s, ready_s - started_s(valkey), cpu_s([worker])
        gateway.terminate()
        gateway.stdout.read()
    return times


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory(prefix="start") as directory:
        start(directory)  # the first start makes the ledger
        starts = [start(directory) for _ in range(STARTS)]
    names = ("s from the call", "s from its Redis' start", "CPU s of a worker")
    for name, values in zip(names, zip(*starts, strict=True), strict=True):
        print(f"{statistics.median(values):.2f} {name} ({min(values):.2f} to {max(values):.2f} in {STARTS} starts)")


if __name__ == "__main__":
    main()
