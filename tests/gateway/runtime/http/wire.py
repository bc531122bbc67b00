"""Raw bytes to the real server, on a clock that a test moves by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gateway.deadlines import Deadlines, Watched
from gateway.runtime import sockets
from gateway.runtime.http.connections import Door
from gateway.runtime.http.limits import HttpLimits
from gateway.runtime.http.server import serve
from tests.serving import body_of, outlived

LONG_S = 20


class HandClock(Deadlines):
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: set[Watched] = set()

    def within(self, seconds: float) -> int:
        return round(seconds)

    def watch(self, one: Watched) -> None:
        self.watched.add(one)

    def leave(self, one: Watched) -> None:
        self.watched.discard(one)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            for one in list(self.watched):
                one.tick()


class Echo:
    """An app that answers with the method, the path and the body of each request, and knows all of them."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if await outlived(scope, receive, send):
            return
        self.scopes.append(scope)
        body = b"" if scope["path"] == "/at-once" else await body_of(receive)
        self.seen.append((scope["method"], scope["path"], body))
        text = f"{scope['method']} {scope['path']} {len(body)}\n".encode()
        lines = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        await send({"type": "http.response.body", "body": text})


class House:
    """A served app, its port, its clock, and its door."""

    def __init__(self, app: Any, port: int, clock: HandClock, door: Door) -> None:
        self.app = app
        self.port = port
        self.clock = clock
        self.door = door

    async def send_all(self, *pieces: bytes) -> bytes:
        """Send pieces, each read by itself, and return what is answered until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await seen_to()
        answer = await asyncio.wait_for(reader.read(), LONG_S)
        writer.close()
        return answer


async def seen_to() -> None:
    """Give the server, which runs in this loop, the turns to read and answer what was sent."""
    for _ in range(6):
        await asyncio.sleep(0)


@asynccontextmanager
async def house(
    app: Any = None, limits: HttpLimits | None = None, door_of: Callable[..., Door] = Door
) -> AsyncIterator[House]:
    app = Echo() if app is None else app
    clock = HandClock()
    door = door_of(limits, clock, tick_s=1.0)
    listener = sockets.listen("127.0.0.1", 0)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve([(app, listener)], stop.wait(), 1, lambda: door))
    try:
        yield House(app, listener.getsockname()[1], clock, door)
    finally:
        stop.set()
        while not serving.done():
            clock.run(1)
            await asyncio.sleep(0.01)
        await serving


def statuses(answers: bytes) -> list[int]:
    """Return the statuses of the answers, each told by its Content-Length."""
    found = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        found.append(int(lines[0].split()[1]))
        lengths = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
        answers = rest[lengths[0] if lengths else 0 :]
    return found


def refusal(answer: bytes) -> tuple[int, str]:
    """Return the status and the code of the one refusal that an answer is; it ends the connection and is JSON."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"content-type: application/json" in head
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


def request(*lines: str, target: str = "/v1/x", method: str = "POST", version: str = "1.1", body: bytes = b"") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: here", *lines, "", ""]).encode("latin-1") + body


def cuts(raw: bytes) -> Sequence[tuple[bytes, bytes]]:
    """Return all ways to cut bytes in two."""
    return [(raw[:place], raw[place:]) for place in range(1, len(raw))]
