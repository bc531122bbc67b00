"""The cost of an upgrade that builds the indexes of the records anew: CPU µs a record, and additional memory.

python -m benchmarks.billing.upgrade                     a million records in SQLite
python -m benchmarks.billing.upgrade --rows 100000 --database postgresql://…     a server on this machine: its CPU counts, too

The ledger has the mixed records of `benchmarks.billing.months` and the tables of version 0027, the last version before
narrower indexes of the time of records; then it is brought to this version's tables, as `tokencap ledger migrate` does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config

from benchmarks.billing.mixed_rows import planned, prepare
from benchmarks.billing.months import Meter, fill
from gateway.ledger.database import WRITER_CACHE_KB, Database
from gateway.ledger.versions import MIGRATIONS

BEFORE = "0027"


def build_before(database: Database) -> None:
    """Give an empty database the tables of the version before."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, BEFORE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", help="an empty database; else SQLite in a directory of its own")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        url = arguments.database or f"sqlite:///{Path(directory) / 'ledger.sqlite'}"
        database = Database(url, cache_kb=WRITER_CACHE_KB)
        build_before(database)
        prepare(database)
        meter = Meter(database)
        fill(database, planned(arguments.rows, is_settled=True), meter)
        meter.timed(f"upgrade from {BEFORE}", arguments.rows, database.migrate)
        database.close()


if __name__ == "__main__":
    main()
