"""The loop as most tests want it: one gateway, a fast simulated model, SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from tests.loop.rig import Rig, rig


@pytest.fixture
def loop(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(valkey_url, sqlite_url, tmp_path, model_aliases=("gpt-4o",)) as running:
        yield running


@pytest.fixture
def words(tmp_path: Path) -> str:
    """A ``tokenizer.json`` that makes a token of each word."""
    tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = Split(" ", "removed")
    path = str(tmp_path / "tokenizer.json")
    tokenizer.save(path)
    return path
