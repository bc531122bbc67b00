"""A TCP connection between any two parts that a test can cut, stall and delay."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.servers import free_ports
from tests.waiting import until

PIECE = 64 * 1024
ASKS = b"POST /v1/"
ABORTED = struct.pack("ii", 1, 0)
"""The SO_LINGER value for no lingering: closing sends a reset."""


class Wire:
    """Listens on a port of 127.0.0.1 and passes bytes to ``target``, a path of a unix socket or (host, port)."""

    def __init__(self, target: str | tuple[str, int]) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._there, self._back = asyncio.Event(), asyncio.Event()
        self._flow()
        self._delay_s = 0.0
        self._loses = b""
        self.lost = 0
        """Replies that were lost on purpose."""
        self.requests = 0
        """Requests to a model that have passed through."""
        self.reply = bytearray()
        """The bytes that came back since the last request to a model."""
        [self.port] = free_ports(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._do(self._cut)

    def reset(self) -> None:
        """Reset every connection; new connections are accepted."""
        self._do(self._reset)

    def mend(self) -> None:
        """Accept connections and pass bytes again, as at the beginning."""
        self._do(self._mend)

    def stall(self, *, replies_only: bool = False) -> None:
        """Keep every connection but pass nothing on, or only no replies."""
        self._do(self._stall if not replies_only else self._stall_replies)

    def lose_reply_to(self, words: bytes) -> None:
        """Pass the next request that contains ``words``, and break the connection in place of its reply."""
        self._loses = words

    def delay(self, seconds: float) -> None:
        """Pass everything on this much later."""
        self._delay_s = seconds

    @property
    def connections(self) -> int:
        return len(self._open) // 2

    def _do(self, act: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset()

    async def _reset(self) -> None:
        for writer in self._open:
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTED)
            writer.transport.abort()  # what is held back is dropped
        self._flow()

    async def _mend(self) -> None:
        self._flow()
        if self._server is None:
            self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port, backlog=1024)

    async def _stall(self) -> None:
        self._there.clear()
        self._back.clear()

    async def _stall_replies(self) -> None:
        self._back.clear()

    def _flow(self) -> None:
        self._there.set()
        self._back.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if isinstance(self._target, str):
                far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            else:
                far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._open |= ends
        try:
            is_lost = asyncio.Event()
            there = self._pass(reader, far_writer, self._there, lambda piece: self._note(piece, is_lost))
            back = self._pass(far_reader, writer, self._back, lambda piece: self._keep(piece, is_lost))
            await asyncio.gather(there, back)
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    def _note(self, piece: bytes, is_lost: asyncio.Event) -> None:
        if piece.startswith(ASKS):
            self.requests, self.reply = self.requests + 1, bytearray()
        if self._loses and self._loses in piece:
            self._loses = b""
            is_lost.set()

    def _keep(self, piece: bytes, is_lost: asyncio.Event) -> None:
        if self.requests:
            self.reply += piece
        if is_lost.is_set():
            self.lost += 1
            raise ConnectionResetError("as the test says")

    async def _pass(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        flowing: asyncio.Event,
        look_at: Callable[[bytes], None],
    ) -> None:
        try:
            while piece := await source.read(PIECE):
                look_at(piece)
                await flowing.wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                sink.write(piece)
                await sink.drain()
        except OSError:
            sink.transport.abort()
        sink.close()

    def start(self) -> None:
        self._thread.start()
        self.mend()

    def stop(self) -> None:
        self.cut()
        until(lambda: not self._open)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def wire(target: str | tuple[str, int]) -> Iterator[Wire]:
    """Yield a wire to ``target`` that lets everything through."""
    between = Wire(target)
    between.start()
    try:
        yield between
    finally:
        between.stop()
