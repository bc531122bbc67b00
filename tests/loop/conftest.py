"""The loop that most tests use: one gateway, a fast simulated model, SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from tests.loop.rig import Rig, rig
from tests.servers import emptied, short_directory, valkey_in


@pytest.fixture
def loop(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(valkey_url, sqlite_url, tmp_path, model_aliases=("gpt-4o",)) as running:
        yield running


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[str]:
    """A Valkey for loops that many tests share; the session's Valkey is emptied for each test."""
    with short_directory() as directory, valkey_in(directory) as url:
        yield url


@pytest.fixture(scope="module")
def shared(shared_valkey: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """Arguments of a loop that all tests of a file share: an empty Valkey, a path for a ledger, a data directory."""
    folder = tmp_path_factory.mktemp("shared")
    return emptied(shared_valkey), f"sqlite:///{folder / 'ledger.sqlite'}", folder


@pytest.fixture
def calls_before(loop: Rig) -> int:
    """How many calls the simulated model has received before a test of a shared loop."""
    count: int = loop.counted()["calls"]
    return count


@pytest.fixture
def words(tmp_path: Path) -> str:
    """A ``tokenizer.json`` that makes a token of each word."""
    tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = Split(" ", "removed")
    path = str(tmp_path / "tokenizer.json")
    tokenizer.save(path)
    return path
