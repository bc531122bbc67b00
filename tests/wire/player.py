"""A raw server that plays transcripts: the bytes of the next transcript, in one piece or in pieces of a set size."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.wire.transcripts import Sent, Transcript


class Player:
    """The transcript for the next POST, and the bodies received so far."""

    def __init__(self) -> None:
        self.transcript: Transcript | None = None
        self.size: int | None = None
        """Bytes of the body in a piece; None sends one piece."""
        self.bodies: list[bytes] = []
        """The bodies that were posted."""

    def sent_to(self, body: bytes) -> Sent:
        assert self.transcript is not None
        self.bodies.append(body)
        stream = b'"stream":true' in body.replace(b" ", b"")
        return self.transcript.sent(stream=stream)


class _Handler(socketserver.StreamRequestHandler):
    """Handles one request for each connection; each piece of the answer is one HTTP chunk."""

    server: _Server

    def handle(self) -> None:
        with suppress(OSError):
            self._answer()

    def _answer(self) -> None:
        method = self.rfile.readline(4_096).split(b" ")[0]
        size = 0
        while (line := self.rfile.readline(65_536)) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            size = int(value) if name.lower() == b"content-length" else size
        if method != b"POST":
            self.wfile.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return
        sent = self.server.player.sent_to(self.rfile.read(size))
        headers = {**sent.headers, "transfer-encoding": "chunked", "connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.wfile.write(f"HTTP/1.1 {sent.status} Said\r\n{lines}\r\n".encode("latin-1"))
        step = self.server.player.size or len(sent.body) or 1
        for start in range(0, len(sent.body), step):
            piece = sent.body[start : start + step]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if sent.is_whole:
            self.wfile.write(b"0\r\n\r\n")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = False
    allow_reuse_address = True

    def __init__(self, player: Player) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.player = player

    def process_request(self, request: Any, client_address: Any) -> None:
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().process_request(request, client_address)


@contextmanager
def playing() -> Iterator[tuple[Player, str]]:
    """Yield a player and the address at which it plays."""
    player = Player()
    with _Server(player) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield player, f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
