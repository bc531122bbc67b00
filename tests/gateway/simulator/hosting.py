"""A simulator on a real port, for as long as a test wants it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from gateway.simulator.model_server import Law, build
from tests.serving import served

FAST = Law(tokens_per_s=float("inf"), first_token_s=0, mean_tokens=20)


@contextmanager
def simulator(law: Law = FAST) -> Iterator[httpx.Client]:
    """Serve ``law`` and yield a client whose base URL is the simulator's."""
    with served(build(law)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def question(text: str = "How long is a piece of string?", **more: Any) -> dict[str, Any]:
    """Return the body of a chat completion, with ``more`` fields."""
    return {"model": "aligned-1", "messages": [{"role": "user", "content": text}], **more}
