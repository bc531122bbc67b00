"""Each client of the upstream, and each way to read an answer."""

from __future__ import annotations

import pytest

from tests.gateway.serving.clients import Make, Read, all_of, httpx, pool, poured


@pytest.fixture(params=[pool, httpx], ids=["pool", "httpx"])
def make(request: pytest.FixtureRequest) -> Make:
    """Each client in turn."""
    make: Make = request.param
    return make


@pytest.fixture(params=[all_of, poured])
def read(request: pytest.FixtureRequest) -> Read:
    """Each way to read an answer."""
    way: Read = request.param
    return way
