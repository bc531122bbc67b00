"""Real engines behind the gateway: each call is also made to the engine directly, and both answers must agree.

``python -m tests.engines.run`` first installs the engines (under .engines), then prints a line for each kind of calls,
and exits with 1 if a call broke a promise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.engines.bench import Bench
from tests.engines.engines import ENGINES, MODEL, DidNotStart, Engine
from tests.engines.kinds import Kind, hang_ups, kinds
from tests.faults.wire import wire
from tests.loop.rig import rig
from tests.servers import short_directory, valkey_in

SHOWN = 5
"""The most breaches that are printed for a kind of calls."""


MANNERS: tuple[dict[str, str], ...] = (
    {"on_hangup": "finish"},
    *({"on_hangup": "stop", "hangup_bills": bills} for bills in ("visible", "timed", "granted")),
)
"""The operator's settings for calls whose caller has left."""


@contextmanager
def bench(engine: Engine, url: str, **settings: Any) -> Iterator[Bench]:
    """Start a gateway before an engine, which the gateway detects."""
    at = urlsplit(url)
    with (
        tempfile.TemporaryDirectory() as data,
        short_directory() as beside,
        valkey_in(beside) as redis_url,
        wire((str(at.hostname), at.port or 80)) as between,
        rig(redis_url, f"sqlite:///{data}/ledger", Path(data), upstream=between.url, model=MODEL, **settings) as house,
    ):
        yield Bench(engine, url, house, between)


def all_kinds(engine: Engine, url: str) -> Iterator[Kind]:
    """Yield every kind of calls, each while its gateway runs."""
    with bench(engine, url) as one:
        yield from kinds(one)
    for settings in MANNERS:
        with bench(engine, url, **settings) as one:
            yield from hang_ups(one)


def tried(engine: Engine, chosen: Sequence[str]) -> int:
    """Check one engine, or only the kinds with one of these words; return how many calls broke a promise."""
    engine.install()
    print(f"{engine.name}: {engine.version()}", flush=True)
    calls, broken, began = 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as data, engine.running(Path(data) / "engine.log") as url:
        for kind in all_kinds(engine, url):
            if chosen and not any(word in kind.name for word in chosen):
                continue
            breaches = list(kind.breaches())
            calls, broken = calls + kind.calls, broken + len({str(call) for call, _ in breaches})
            print(f"{engine.name:18} {kind.name:58} {kind.calls:4} calls", *kind.figures, flush=True)
            for call, breach in breaches[:SHOWN]:
                print(f"  {call}: {breach}", flush=True)
            if len(breaches) > SHOWN:
                print(f"  and {len(breaches) - SHOWN} more", flush=True)
    print(f"{engine.name}: {calls} calls, {broken} broken, {time.monotonic() - began:.0f} s", flush=True)
    return broken


def main() -> int:
    by_name = {engine.name: engine for engine in ENGINES}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="*", default=list(by_name), choices=list(by_name))
    parser.add_argument(
        "--kinds", nargs="*", default=[], metavar="WORD", help="only kinds with one of these words in their name"
    )
    settings = parser.parse_args()
    broken = {}
    for name in settings.engines:
        try:
            broken[name] = tried(by_name[name], settings.kinds)
        except (DidNotStart, TimeoutError) as error:
            broken[name] = 1
            print(f"{name}: {error}", flush=True)
    held = not any(broken.values())
    print("Every promise held." if held else f"{sum(broken.values())} breaches: {broken}")
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
