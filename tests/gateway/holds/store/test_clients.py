"""A blocking client opens a connection cheaply, and the server still learns the name and version of redis-py."""

from __future__ import annotations

import sys
from typing import Any

import redis

from gateway.holds.store.clients import connect

CALLS_MOST = 1_000
"""Functions that opening a connection calls. To read redis-py's version from its metadata takes another thousand."""


def test_a_connection_looks_up_no_version(valkey_url: str) -> None:
    """For each connection redis-py would read its own metadata."""
    with connect(valkey_url) as first:
        first.ping()
    calls = 0

    def count(_frame: Any, event: str, _given: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        with connect(valkey_url) as client:
            client.ping()
    finally:
        sys.setprofile(None)
    with connect(valkey_url) as client:
        told = client.client_info()

    assert calls <= CALLS_MOST
    assert (told["lib-name"], told["lib-ver"]) == ("redis-py", redis.__version__)
