"""A simulator on a real port, in a thread of its own, for as long as a test wants it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from gateway.local.simulator import Law, build
from tests.waiting import until

FAST = Law(tokens_per_s=float("inf"), first_token_s=0, mean_tokens=20)


@contextmanager
def simulator(law: Law = FAST) -> Iterator[httpx.Client]:
    """Serve ``law`` and yield a client whose base URL is the simulator's."""
    config = uvicorn.Config(build(law), log_level="warning", access_log=False, server_header=False)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started)
            with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def question(text: str = "How long is a piece of string?", **more: Any) -> dict[str, Any]:
    """Return the body of a chat completion, with ``more`` fields."""
    return {"model": "aligned-1", "messages": [{"role": "user", "content": text}], **more}
