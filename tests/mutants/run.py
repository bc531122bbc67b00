"""Puts one fault after another into a copy of the project, and reports which faults no test notices.

``python -m tests.mutants.run --only gateway/holds --jobs 2 --seed 1`` exits with 1 if a serious fault survives, or more
than one fault in twenty.
"""

from __future__ import annotations

import argparse
import queue
import random
import signal
import sys
import tempfile
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from tests.mutants.faults import Fault, faults
from tests.mutants.tree import Tree
from tests.mutants.trial import Trials

KILLED_LEAST = 0.95
LIMIT_LEAST_S, LIMIT_TIMES = 90.0, 6
"""A run with a fault is late after this time, or this multiple of a run without a fault, if longer: late is noticed."""

Group = tuple[tuple[str, ...], list[Fault]]


@dataclass
class Verdicts:
    """The verdicts so far."""

    total: int
    killed: list[Fault] = field(default_factory=list)
    survived: list[Fault] = field(default_factory=list)
    unproven: list[tuple[str, ...]] = field(default_factory=list)
    """Tests that fail without a fault."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, fault: Fault, *, is_killed: bool, output: str) -> None:
        with self.lock:
            (self.killed if is_killed else self.survived).append(fault)
            done = len(self.killed) + len(self.survived)
            print(f"{done:4}/{self.total} {output} {fault}", flush=True)

    def refuse(self, tests: tuple[str, ...], found: list[Fault], output: str) -> None:
        with self.lock:
            self.unproven.append(tests)
            self.survived += found
            print("red without a fault:", *tests, "\n" + output, flush=True)

    def report(self) -> bool:
        """Print the shares and the survivors; return whether few enough faults survive."""
        rooms: dict[str, list[bool]] = defaultdict(list)
        for found, is_killed in ((self.killed, True), (self.survived, False)):
            for fault in found:
                rooms[fault.room].append(is_killed)
        for room, killed in sorted(rooms.items()):
            print(f"{room:24} {sum(killed):4} of {len(killed):4} killed")
        serious = [fault for fault in self.survived if fault.breaks]
        share = len(self.killed) / max(self.total, 1)
        print(f"{'all':24} {len(self.killed):4} of {self.total:4} killed, {share:.1%}; {len(serious)} serious survived")
        for fault in self.survived:
            print("survived", fault)
        return not serious and share >= KILLED_LEAST


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of files: gateway/holds pricing/bound")
    parser.add_argument("--serious", action="store_true", help="only faults that break a promise")
    parser.add_argument("--jobs", type=int, default=2, help="how many copies at once")
    parser.add_argument("--seed", type=int, default=1, help="of the order, and of what hypothesis draws")
    arguments = parser.parse_args()
    chosen = [
        one for one in faults() if one.path.startswith(tuple(arguments.only)) and (one.breaks or not arguments.serious)
    ]
    groups: dict[tuple[str, ...], list[Fault]] = defaultdict(list)
    for fault in chosen:
        groups[fault.tests].append(fault)
    waiting: queue.SimpleQueue[Group] = queue.SimpleQueue()
    for group in random.Random(arguments.seed).sample(list(groups.items()), len(groups)):
        waiting.put(group)
    verdicts, trials = Verdicts(len(chosen)), Trials(arguments.seed)
    for kind in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, _interrupted)
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        jobs = [
            threading.Thread(target=_work, args=(Path(directory, str(number)), waiting, verdicts, trials))
            for number in range(arguments.jobs)
        ]
        try:
            for job in jobs:
                job.start()
            for job in jobs:
                job.join()
        finally:
            trials.stop()
            for job in jobs:
                job.join()
    return 0 if verdicts.report() else 1


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _work(directory: Path, waiting: queue.SimpleQueue[Group], verdicts: Verdicts, trials: Trials) -> None:
    """Try one group of faults after another in a separate copy."""
    scratch = directory / "t"
    scratch.mkdir(parents=True)
    tree = Tree(directory / "p")
    try:
        while True:
            tests, found = waiting.get_nowait()
            whole = trials.run(tree, tests, scratch, 600)
            if not whole.is_green:
                verdicts.refuse(tests, found, whole.output)
                continue
            for fault in found:
                _try(fault, tree, scratch, max(LIMIT_LEAST_S, LIMIT_TIMES * whole.seconds), verdicts, trials)
    except (queue.Empty, InterruptedError):
        return


def _try(fault: Fault, tree: Tree, scratch: Path, limit_s: float, verdicts: Verdicts, trials: Trials) -> None:
    with tree.faulty(fault):
        result = trials.run(tree, fault.tests, scratch, limit_s)
    output = "SURVIVED" if result.is_green else "late    " if result.is_late else "killed  "
    verdicts.take(fault, is_killed=not result.is_green, output=f"{output} {result.seconds:5.1f} s")


if __name__ == "__main__":
    sys.exit(main())
