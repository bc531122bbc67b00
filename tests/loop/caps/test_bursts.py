"""A burst of one customer delays no other: another customer's call finds a place at the upstream without waiting."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx

from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law
from tests.loop.rig import Rig, Sold, rig
from tests.waiting import until

ENDLESS = Law(tokens_per_s=20, first_token_s=0, lengths=Table((100_000,), (1.0,)))
PLACES = 4


def first_token(loop: Rig, who: Sold, has_come: threading.Event, leave: threading.Event) -> None:
    """Make a call, set ``has_come`` at its first token, and hang up once ``leave`` is set."""
    body = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with httpx.stream("POST", f"{loop.url}/v1/chat/completions", json=body, headers=who.headers, timeout=60) as answer:
        for line in answer.iter_lines():
            if '"content":' in line:
                has_come.set()
            if leave.is_set():
                return


def test_a_burst_leaves_others_a_place_at_the_upstream(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    """While twelve endless calls of one customer want four places, another customer's call has its first token."""
    with rig(valkey_url, sqlite_url, tmp_path, law=ENDLESS, upstream_concurrency_max=PLACES, on_hangup="stop") as loop:
        loop.tier("open")
        acme, beta = loop.customer("open"), loop.customer("open")
        leave, has_come = threading.Event(), threading.Event()
        burst = [
            threading.Thread(target=first_token, args=(loop, acme, threading.Event(), leave)) for _ in range(3 * PLACES)
        ]
        for caller in burst:
            caller.start()
        until(lambda: loop.open_holds() == 3 * PLACES)
        until(lambda: loop.counted()["live"] == PLACES - 1)
        other = threading.Thread(target=first_token, args=(loop, beta, has_come, leave))
        other.start()

        assert has_come.wait(20)
        assert loop.counted()["live"] == PLACES
        assert loop.counted()["closed"] == 0, "no other call had to end for it"
        leave.set()
        for caller in (*burst, other):
            caller.join()
        loop.until_nothing_is_held()
