"""Upgrades a gateway to this version and back under load, by SIGHUP, and compares the counts of all three sides.

python -m tests.faults.versions --before COMMIT            needs the git history: the version before is checked out

The program is replaced on disk while its processes run, as an upgrade of an installed package does. The exit status is
1 unless each call was answered and is in the ledger once with the model's tokens, and nothing is held or a dead letter.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.ledger.book.dead_letters import count_dead_letters
from gateway.ledger.database import Database
from gateway.ledger.versions import found
from tests.gateway.cli.commands import COMMAND, Serving, serving
from tests.loop.rig import Rig, Sold
from tests.servers import short_directory
from tests.waiting import until

HERE = Path(__file__).parents[2]
CALLERS = 6
CALLS_BETWEEN = 150
DEADLINE_S = 300.0
ASKED: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 40}


class Load:
    """Callers that call until the block ends: whole answers and streams, in conversations of several calls."""

    def __init__(self, url: str, people: list[Sold]) -> None:
        self.answers: Counter[int | str] = Counter()
        self._url = f"{url}/v1/chat/completions"
        self._is_over = threading.Event()
        self._callers = [threading.Thread(target=self._call, args=(who, place)) for place, who in enumerate(people)]

    def __enter__(self) -> Load:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for caller in self._callers:
            caller.join()

    def goes_on(self, calls: int = CALLS_BETWEEN) -> None:
        """Wait until ``calls`` more calls were answered."""
        upto = self.answers.total() + calls
        until(lambda: self.answers.total() >= upto, DEADLINE_S)

    def _call(self, who: Sold, place: int) -> None:
        number = 0
        with httpx.Client(timeout=60) as client:
            while not self._is_over.is_set():
                number += 1
                headers = {**who.headers, "x-conversation-id": f"talk-{place}-{number // 7}"}
                body = {**ASKED, "stream": number % 2 == 0}
                try:
                    answer = client.post(self._url, json=body, headers=headers)
                    is_whole = number % 2 == 1 or answer.text.rstrip().endswith("[DONE]")
                    self.answers[answer.status_code if is_whole else "cut"] += 1
                except httpx.HTTPError as error:
                    self.answers[type(error).__name__] += 1


@contextmanager
def trees(before: str, place: Path) -> Iterator[dict[str, Path]]:
    """Yield the sources of both versions, checked out."""
    paths = {"before": place / "before", "after": place / "after"}
    for name, commit in (("before", before), ("after", "HEAD")):
        subprocess.run(["git", "-C", HERE, "worktree", "add", "-q", "--detach", "-f", paths[name], commit], check=True)
    try:
        yield paths
    finally:
        for path in paths.values():
            subprocess.run(["git", "-C", HERE, "worktree", "remove", "--force", path], check=True)


def installed(link: Path, tree: Path) -> None:
    """Switch the sources that the running processes load to those of a version, atomically."""
    (new := link.with_suffix(".new")).symlink_to(tree)
    new.replace(link)


def reload(gateway: Serving) -> None:
    """Reload the gateway, and wait until all its workers and its bookkeeper are new processes."""
    roles = ("worker", "bookkeeper")
    old = {child.process.pid for role in roles for child in gateway.children(role)}
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: not old & {child.process.pid for role in roles for child in gateway.children(role)}, DEADLINE_S)


def differences(rig: Rig, load: Load, ledger: Path) -> list[str]:
    """Return what does not agree after all callers have ended."""
    rig.until_nothing_is_held(60)
    records, made = rig.usage(), rig.counted()
    with closing(Database(f"sqlite:///{ledger}")) as database:
        aside = count_dead_letters(database)
    told = {
        "answers that were not 200": (load.answers.total() - load.answers[200], 0),
        "records and answers": (len(records), load.answers[200]),
        "calls at the model and records": (made["calls"], len(records)),
        "tokens in the ledger and at the model": (
            sum(one["output_tokens"] for one in records),
            made["completion_tokens"],
        ),
        "records under one id": (len({one["id"] for one in records}), len(records)),
        "records set aside": (aside, 0),
    }
    return [f"{name}: {found} and {wanted}" for name, (found, wanted) in told.items() if found != wanted]


def run(before: str) -> list[str]:
    with short_directory() as place, trees(before, place) as paths:
        directory, link = place / "data", place / "installed"
        installed(link, paths["before"])
        os.environ["PYTHONPATH"] = str(link)
        words = [*COMMAND, "simulate", "--port", "0", "--tokens-per-s", "400", "--mean-tokens", "25"]
        model = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=place)
        assert model.stdout is not None
        try:
            url = next(word for word in model.stdout.readline().split() if word.startswith("http")).rstrip(".,")
            base = url.removesuffix("/v1")
            given = {"workers": 2, "upstream_url": f"{base}/v1", "model": "aligned-1"}
            with serving(directory, program=COMMAND, **given) as gateway:
                rig = gateway.rig(gateway.admin_token())
                rig = Rig(rig.urls, base, rig.settings, rig.admin)
                rig.tier("large", conversation_tokens_max=4_000, price_nanousd=3)
                people = [rig.customer("large") for _ in range(CALLERS)]
                with Load(gateway.url, people) as load:
                    for version in ("after", "before", "after"):
                        load.goes_on()
                        installed(link, paths[version])
                        reload(gateway)
                        print(
                            f"{version}: reloaded after {load.answers.total()} answers: {dict(load.answers)}",
                            flush=True,
                        )
                    load.goes_on()
                with (
                    closing(Database(f"sqlite:///{directory / 'ledger.sqlite'}")) as database,
                    database.read() as ledger,
                ):
                    print(f"tables {found(ledger)}, {load.answers.total()} answers", flush=True)
                wrong = differences(rig, load, directory / "ledger.sqlite")
                if wrong:
                    print("\n".join(gateway.errors.queue), file=sys.stderr)
                return wrong
        finally:
            model.terminate()
            model.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="the commit of the version before")
    wrong = run(parser.parse_args().before)
    print("\n".join(wrong) or "Nothing was lost, doubled or set aside.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
