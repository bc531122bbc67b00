"""A worker that cannot renew its holds stops relaying: others may take it for dead and give its tokens away."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import redis

from gateway.simulator.model_server import Law
from tests.loop.rig import rig
from tests.waiting import until

SLOW = Law(tokens_per_s=50, first_token_s=0, mean_tokens=1e6)
CAP = 500
SILENT_S = 1.0
"""An event arrives every 20 ms; a silence this long is a stop."""


@contextmanager
def standing_still(url: str) -> Iterator[None]:
    """Stop a Valkey from answering while it still accepts connections."""
    with redis.Redis.from_url(url) as client:
        process = int(client.info("server")["process_id"])
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def test_a_worker_that_cannot_renew_relays_nothing_until_it_has(
    valkey_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    """The upstream goes on and is read; the caller receives no more tokens than the record will bill."""
    body = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with rig(valkey_url, sqlite_url, tmp_path, law=SLOW, lease_s=0.5) as loop:
        loop.tier("open", conversation_tokens_max=CAP, price_nanousd=1)
        who = loop.customer("open")
        received, stopped = b"", False
        async with (
            httpx.AsyncClient(timeout=httpx.Timeout(60, read=SILENT_S), headers=who.headers) as client,
            client.stream("POST", f"{loop.url}/v1/chat/completions", json=body) as answer,
        ):
            pieces = answer.aiter_raw()
            received += await anext(pieces)
            with standing_still(valkey_url):
                try:
                    async for piece in pieces:
                        received += piece
                except httpx.ReadTimeout:
                    stopped = True
        loop.until_nothing_is_held()
        until(lambda: len(loop.usage(who)) == 1)
        (record,) = loop.usage(who)

    pieces_received = received.count(b'"content"')
    assert stopped, "the answer went on to its end without a renewal"
    assert pieces_received < CAP
    assert record["billed_output_tokens"] >= pieces_received
