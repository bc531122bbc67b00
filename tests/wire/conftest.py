"""One gateway before one player: every transcript is played to it once, and the tests look at what came of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.loop.rig import rig
from tests.servers import short_directory, valkey_in
from tests.wire.player import playing
from tests.wire.transcripts import TRANSCRIPTS, Transcript

PIECES = (None, 1, 61)
"""Bytes in a piece: all of them, one, and as many as cut most events somewhere else."""


@dataclass(frozen=True)
class Played:
    """What came of one call."""

    transcript: Transcript
    stream: bool
    status: int
    headers: dict[str, str]
    body: bytes
    record: dict[str, Any] | None


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Played]]]:
    """What came of each transcript, by its name, streamed and whole, in each size of pieces."""
    directory = tmp_path_factory.mktemp("wire")
    ledger = f"sqlite:///{directory / 'ledger.sqlite'}"
    with (
        short_directory() as short,
        valkey_in(short) as redis_url,
        playing() as (player, address),
        rig(redis_url, ledger, directory, upstream=address) as loop,
        httpx.Client(base_url=loop.url, timeout=30) as client,
    ):
        loop.tier("open", period_tokens_max=10_000_000)
        who = loop.customer("open")
        answers: list[tuple[Transcript, bool, httpx.Response]] = []
        for transcript in TRANSCRIPTS:
            for stream, size in [(stream, size) for stream in (True, False) for size in PIECES]:
                player.transcript, player.size = transcript, size
                body = {"model": "aligned-1", **transcript.request, "stream": stream}
                if stream and "messages" not in transcript.endpoint and "responses" not in transcript.endpoint:
                    body["stream_options"] = {"include_usage": True}
                answers.append((transcript, stream, client.post(transcript.endpoint, json=body, headers=who.headers)))
        records = {record["id"]: record for record in loop.usage(who)}
        loop.until_nothing_is_held()
        found: dict[str, list[Played]] = {}
        for transcript, stream, answer in answers:
            record = records.get(answer.headers["x-request-id"])
            came_to = Played(transcript, stream, answer.status_code, dict(answer.headers), answer.content, record)
            found.setdefault(transcript.name, []).append(came_to)
        yield found
