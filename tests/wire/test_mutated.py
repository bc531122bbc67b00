"""Whatever an upstream sends, the caller's client accepts the answer, and no more than the grant is billed."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import pytest

from tests.wire.fuzz import Fuzz, run
from tests.wire.mutations import Mutated, events_of
from tests.wire.transcripts import TRANSCRIPTS

BROKEN = sorted((Path(__file__).parent / "broken").glob("*.toml"))
CASES = 1_000


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_what_broke_a_promise_once_breaks_none(path: Path) -> None:
    data = tomllib.loads(path.read_text("utf-8"))
    like = next(one for one in TRANSCRIPTS if one.name == data["like"])
    events = events_of(data["body"].encode())
    case = Mutated(like, events, None, is_whole=True, cuts=(20,), most=data["most"], retyped=not data.get("typed"))

    assert asyncio.run(Fuzz().breach(case, hears=True)) is None


def test_mutated_transcripts_break_no_promise() -> None:
    assert run(range(CASES), seed=1).breaches == {}
