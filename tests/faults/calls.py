"""Calls against the loop with the upstream of ``truth.py``: how they are made, and how they end."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from tests.faults.dialects import Chat
from tests.faults.truth import Script, Truth, UpstreamCall
from tests.faults.wire import ABORTED
from tests.loop.rig import Rig, Sold, rig
from tests.servers import short_directory, valkey_in
from tests.waiting import until

ALWAYS, AS_ASKED = "always", "as_asked"
"""The ways of asking the upstream. They differ only for whole answers: a streaming caller's is streamed in both."""

CALLS = {"stream": (ALWAYS, True), "whole, always": (ALWAYS, False), "whole, as asked": (AS_ASKED, False)}
every_call = pytest.mark.parametrize(("way", "stream"), CALLS.values(), ids=CALLS, indirect=["way"])
both_ways = pytest.mark.parametrize("way", [ALWAYS, AS_ASKED], indirect=True)

CAP = 20
DEADLINE_S = 1.0
LEFT_S = 10.0
"""Within this time the upstream's connection is closed, even on a busy machine; abandoned answers take longer."""


@dataclass(frozen=True)
class Faulty:
    """The loop, and the upstream's own count."""

    loop: Rig
    truth: Truth

    @property
    def address(self) -> str:
        return f"{self.loop.url}/v1/chat/completions"

    def say(self, dialect: Any, who: Sold, script: Script, **more: Any) -> httpx.Response:
        """Make a call in one of the formats."""
        body = {"model": "aligned-1", **dialect.request(asdict(script)), **more}
        return httpx.post(self.loop.url + dialect.endpoint, json=body, headers=who.headers, timeout=30)

    @contextmanager
    def leaving(self, dialect: Any, who: Sold, script: Script) -> Iterator[Iterator[bytes]]:
        """Request a stream and yield its pieces as they arrive; leaving the block hangs up."""
        body = {"model": "aligned-1", **dialect.request(asdict(script)), "stream": True}
        with httpx.stream("POST", self.loop.url + dialect.endpoint, json=body, headers=who.headers) as answer:
            yield answer.iter_raw()

    def post(self, who: Sold, script: Script, **more: Any) -> httpx.Response:
        return httpx.post(self.address, json=body(script, **more), headers=who.headers, timeout=30)

    def upstream_call(self, record: dict[str, Any]) -> UpstreamCall:
        return self.truth.calls[record["id"]]

    def until_over(self, who: Sold) -> None:
        """Wait until no call is live at the upstream, and nothing is held for a customer."""
        until(lambda: self.truth.live == 0, LEFT_S)
        until(lambda: self.loop.account(who)["period"]["tokens_held"] == 0, LEFT_S)


def body(script: Script, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hello"}]
    return {"model": "aligned-1", "messages": messages, "metadata": asdict(script), **more}


@contextmanager
def faulty_loop(directory: Path, *, far: tuple[Truth, str] | None = None, **settings: Any) -> Iterator[Faulty]:
    """Run the loop with short deadlines, its own Valkey and tiers ``small`` (a cap of 20 tokens), ``open``, ``scarce``.

    The upstream is always asked to stream, so that the tokens of a broken answer are known, unless a test chooses the
    other way; ``test_as_asked.py`` has each ending of the other way.

    ``far`` is an upstream that already runs, and the address at which the gateways reach it.
    """
    truth, address = far if far is not None else (Truth(), None)
    short = {"first_token_deadline_s": DEADLINE_S, "idle_deadline_s": DEADLINE_S}
    with ExitStack() as stack:
        url = settings.pop("redis_url", None) or stack.enter_context(valkey_in(stack.enter_context(short_directory())))
        ledger = settings.pop("ledger_url", f"sqlite:///{directory / 'ledger.sqlite'}")
        loop = stack.enter_context(
            rig(
                url,
                ledger,
                directory,
                upstream=address or truth,
                **{"lease_s": 10, "upstream_streams": "always", **short, **settings},
            )
        )
        loop.tier("small", conversation_tokens_max=CAP, price_nanousd=1_000)
        loop.tier("open", period_tokens_max=10_000_000)
        loop.tier("scarce", period_tokens_max=17)
        yield Faulty(loop, truth)


class Caller:
    """A caller on a bare socket, who reads as much as the test says and leaves as the test says."""

    def __init__(
        self,
        faulty: Faulty,
        who: Sold,
        script: Script,
        *,
        receive_bytes: int = 0,
        dialect: Any = Chat,
        headers: Mapping[str, str] = MappingProxyType({}),
        **more: Any,
    ) -> None:
        url = httpx.URL(faulty.loop.url + dialect.endpoint)
        self._socket = socket.socket()
        if receive_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.settimeout(30)
        self._socket.connect((url.host, url.port))
        raw = json.dumps({"model": "aligned-1", **dialect.request(asdict(script)), **more}).encode()
        head = f"POST {url.path} HTTP/1.1\r\nhost: {url.host}\r\nauthorization: Bearer {who.key}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._socket.sendall(f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw)

    def read_until(self, text: bytes) -> bytes:
        """Return the bytes received so far, once they contain ``text``."""
        received = b""
        while text not in received:
            piece = self._socket.recv(65_536)
            assert piece, received[-200:]
            received += piece
        return received

    def read_to_the_end_in(self, pieces: int) -> bytes:
        """Return the bytes up to ``[DONE]``, read in small pieces."""
        received = b""
        while not received.endswith(b"[DONE]\n\n\r\n0\r\n\r\n"):
            piece = self._socket.recv(pieces)
            assert piece, received[-200:]
            received += piece
        return received

    def read_whole(self, pieces: int = 4_096) -> bytes:
        """Return a whole answer, as long as its ``Content-Length``, read in small pieces."""
        head, _, body = self.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < size:
            piece = self._socket.recv(pieces)
            assert piece, (len(body), size)
            body += piece
        return head + b"\r\n\r\n" + body

    def read_the_answer(self, *, stream: bool) -> None:
        """Read a streamed answer to its end, or a whole one."""
        if stream:
            self.read_to_the_end_in(4_096)
        else:
            assert self.read_whole().startswith(b"HTTP/1.1 200")

    def hang_up(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTED)
        self._socket.close()
