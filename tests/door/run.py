"""The long run: every case cut at every place, then mutated requests, over every route.

``python -m tests.door.run --mutations 100000 --cuts none`` prints what it found and exits with 1 for a breach.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.door.corpus import cases, themes
from tests.door.front_ends import DIRECT, ROUTES
from tests.door.house import Found, House, house
from tests.door.player import Places, everywhere, in_bytes, play, whole
from tests.door.stranger import storm

BATCH = 5_000
"""How many mutated requests are sent before everything is compared."""

WAYS: dict[str, tuple[Places, ...]] = {"none": (), "whole": (whole,), "all": (whole, in_bytes, everywhere)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=100_000, help="how many mutated requests")
    parser.add_argument("--first", type=int, default=0, help="the number of the first request")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the mutations")
    parser.add_argument("--cuts", choices=WAYS, default="all", help="how the corpus is cut")
    parser.add_argument("--themes", nargs="*", default=themes(), help="files of the corpus")
    parser.add_argument("--routes", nargs="*", choices=ROUTES, default=None, help="the corpus goes through: direct")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, house(Path(directory)) as running:
        breaches = _corpus(running, arguments.themes, arguments.routes or (DIRECT,), WAYS[arguments.cuts])
        breaches += _mutations(
            running,
            range(arguments.first, arguments.first + arguments.mutations),
            arguments.seed,
            arguments.routes or ROUTES,
        )
    print(f"{len(breaches)} breaches." if breaches else "Every promise held.")
    return 1 if breaches else 0


def _corpus(running: House, names: Iterable[str], routes: Iterable[str], ways: tuple[Places, ...]) -> list[str]:
    breaches = []
    for theme in names if ways else ():
        for route in routes:
            for way in ways:
                found = play(running, route, cases(theme), way)
                print(
                    f"{theme:12} {route:16} {way.__name__:12} {found.plays:7} plays {len(found.breaches):4} breaches",
                    *found.breaches,
                    sep="\n",
                    flush=True,
                )
                breaches += found.breaches
    return breaches


def _mutations(running: House, numbers: range, seed: int, routes: Iterable[str]) -> list[str]:
    total, cpu_s = Found(), time.process_time()
    for start in range(0, len(numbers), BATCH):
        found = storm(running, numbers[start : start + BATCH], seed, tuple(routes))
        total.plays, total.requests = total.plays + found.plays, total.requests + found.requests
        total.calls, total.records = total.calls + found.calls, total.records + found.records
        total.answered_calls += found.answered_calls
        total.statuses += found.statuses
        total.breaches += found.breaches
        print(
            f"{total.plays:7} mutated requests, {len(total.breaches)} breaches", *found.breaches, sep="\n", flush=True
        )
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(total.statuses.items()))
    print(f"answers    {total.requests}: {statuses}")
    print(
        f"calls      {total.calls} reached the model, {total.answered_calls} were answered, {total.records} are on record"
    )
    print(f"CPU        {time.process_time() - cpu_s:.0f} s of this process")
    return total.breaches


if __name__ == "__main__":
    sys.exit(main())
