"""Gateways before one player, which ask as their callers ask or always for a stream: every transcript
is played to them once, and the tests compare the results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loop.rig import Rig, rig
from tests.servers import short_directory, valkey_in
from tests.wire.player import playing
from tests.wire.transcripts import TRANSCRIPTS, Transcript

PIECES = (None, 1, 61)
"""Bytes in a piece: all, one, and a number that cuts most events at another place."""

AS_ASKED, ALWAYS = "as_asked", "always"
WAYS = [
    *((AS_ASKED, True, size) for size in PIECES),
    *((AS_ASKED, False, size) for size in PIECES[:2]),
    *((ALWAYS, False, size) for size in PIECES),
]
"""How the upstream is asked, whether the caller streams, and the size of pieces: both ways request streams alike."""


@dataclass(frozen=True)
class Played:
    """The result of one call."""

    transcript: Transcript
    stream: bool
    status: int
    headers: dict[str, str]
    body: bytes
    record: dict[str, Any] | None


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Played]]]:
    """The results of each transcript, by its name, streamed and whole, in each size of pieces."""
    with playing() as (player, address), ExitStack() as stack:
        loops = {
            (way, profile): stack.enter_context(_loop(tmp_path_factory.mktemp(way), address, way, profile))
            for way in (AS_ASKED, ALWAYS)
            for profile in sorted({transcript.profile for transcript in TRANSCRIPTS})
        }
        sold = {kind: loop.customer("open") for kind, loop in loops.items()}
        answers: list[tuple[Transcript, bool, httpx.Response]] = []
        client = stack.enter_context(httpx.Client(timeout=30))
        for transcript in TRANSCRIPTS:
            for way, stream, size in WAYS:
                player.transcript, player.size = transcript, size
                body = {"model": "aligned-1", **transcript.request, "stream": stream}
                if stream and "messages" not in transcript.endpoint and "responses" not in transcript.endpoint:
                    body["stream_options"] = {"include_usage": True}
                kind = (way, transcript.profile)
                url = loops[kind].url + transcript.endpoint
                answers.append((transcript, stream, client.post(url, json=body, headers=sold[kind].headers)))
        records = {record["id"]: record for kind, loop in loops.items() for record in loop.usage(sold[kind])}
        for loop in loops.values():
            loop.until_nothing_is_held()
        found: dict[str, list[Played]] = {}
        for transcript, stream, answer in answers:
            record = records.get(answer.headers["x-request-id"])
            came_to = Played(transcript, stream, answer.status_code, dict(answer.headers), answer.content, record)
            found.setdefault(transcript.name, []).append(came_to)
        yield found


@contextmanager
def _loop(directory: Path, upstream: str, way: str, profile: str) -> Iterator[Rig]:
    ledger = f"sqlite:///{directory / 'ledger.sqlite'}"
    with (
        short_directory() as short,
        valkey_in(short) as redis_url,
        rig(redis_url, ledger, directory, upstream=upstream, upstream_streams=way, upstream_profile=profile) as loop,
    ):
        loop.tier("open", period_tokens_max=10_000_000)
        yield loop
