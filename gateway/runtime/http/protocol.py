"""HTTP/1.1 on one connection: which bytes belong to which request, the order of answers, and the connection's end.

Every byte after a head belongs to the body that the head declares until the body is complete; nothing else decides
that. An ``Upgrade`` is ignored, and the next head is read when the answer before it is written.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from gateway.errors import RequestTimeout, TokencapError
from gateway.runtime.http.answer import Answer, refusal
from gateway.runtime.http.chunked import Chunks
from gateway.runtime.http.connections import Door, group_of
from gateway.runtime.http.head import Fields, Head, check_beginning, read_head
from gateway.runtime.http.limits import LINGER_BYTES_MAX, LINGER_S, READ_MAX, UNREAD_CHUNKS_MAX, UNREAD_MAX
from gateway.runtime.sockets import reset

END = b"\r\n\r\n"


class Connection(asyncio.BufferedProtocol):
    """One caller's connection. Uvicorn makes it, notifies it when the server stops, and waits for it and its tasks."""

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        self.is_behind = False
        self._app = config.loaded_app
        self._server = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._door = door
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._address: str | None = None
        """The address from which the connection was admitted; None where it was refused."""
        self._client: tuple[str, int] | None = None
        self._local: tuple[str, int] | None = None
        self._caught_up = asyncio.Event()
        self._is_reading = True
        self._is_first = True
        """Whether no request has arrived."""
        self._ahead = bytearray()
        """Unread bytes: of the next request, or chunks of a body that the app has not requested yet."""
        self._searched = 0
        """How many of these bytes were searched for the end of a head."""
        self._had_empty_line = False
        self._answer: Answer | None = None
        self._body_is_open = False
        self._chunks: Chunks | None = None
        self._is_body_requested = False
        """Whether the app has requested the body, or has ended without it."""
        self._bytes_left = 0
        """The body's remaining bytes, where it is not chunked."""
        self._waits_to_go_on = False
        self._unread = 0
        """Bytes of the body that arrived after the answer was written."""
        self._credit = 0.0
        """The bytes by which the body may be late."""
        self._is_over = False
        """Whether no further request is read."""
        self._linger_left = 0
        self._idle_ticks = door.idle_ticks
        self._ticks_left = door.head_ticks
        self._write_ticks_left = 0
        self._unwritten = 0

    # Calls from the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)
        self._door.deadlines.watch(self)
        self._client, self._local = (_address(transport, which) for which in ("peername", "sockname"))
        address = "" if self._client is None else group_of(self._client[0])
        try:
            self._door.enter(self, address)
            self._address = address
        except TokencapError as error:
            if self._door.may_linger:
                self._door.lingering.add(self)
                self.refuse(error)
            else:
                self._door.refused(error, address)
                self._is_over = True
                self._transport.abort()

    def get_buffer(self, _: int) -> memoryview:
        return self._door.buffer

    def buffer_updated(self, count: int) -> None:
        if not self._is_over:
            self._take(self._door.buffer[:count].tobytes())
            return
        self._linger_left -= count
        if self._linger_left < 0:
            self._transport.abort()

    def eof_received(self) -> bool:
        """Treat a caller that has closed its half of the connection as gone."""
        return False

    def connection_lost(self, _: Exception | None) -> None:
        self._server.connections.discard(self)
        self._door.deadlines.leave(self)
        self._door.lingering.discard(self)
        if self._address is not None:
            self._door.leave(self, self._address)
        self._is_over = True
        if self._answer is not None:
            self._answer.leave()
            self._answer = None  # otherwise connection and answer keep each other alive
        self._caught_up.set()

    def pause_writing(self) -> None:
        self.is_behind = True
        self._caught_up.clear()

    def resume_writing(self) -> None:
        self.is_behind = False
        self._caught_up.set()

    # Calls from the server, the listener's connections and the clock.

    def shutdown(self) -> None:
        """End the connection: with the next answer, which notifies the caller, or soon if no request arrives.

        A caller whose connection ends while it sends a request does not learn why, and may not repeat the request.
        """
        self._idle_ticks = self._door.deadlines.within(self._door.limits.parting_s)
        if self._is_over:
            return
        if self._answer is None:
            self._ticks_left = self._idle_ticks
        elif not self._answer.has_begun:
            self._answer.keep_alive = False

    def make_room(self) -> None:
        self._close()

    def tick(self) -> None:
        unwritten = self._transport.get_write_buffer_size()
        if unwritten:
            self._watch_writing(unwritten)
        else:
            self._unwritten = 0
        if self._is_over or self._answer is None:
            if not unwritten:
                self._ticks_left -= 1
                if self._ticks_left <= 0:
                    self._lose_patience()
        elif self._body_is_open and self._is_reading and not self._waits_to_go_on:
            self._credit -= self._door.limits.body_rate_min * self._door.tick_s
            if self._credit < 0:
                self.refuse(RequestTimeout("The body of the request came too slowly."))

    def _watch_writing(self, unwritten: int) -> None:
        """End a connection whose caller reads next to nothing for too long."""
        limits = self._door.limits
        bytes_min = max(1, limits.body_rate_min * limits.write_deadline_s)
        if not self._unwritten or not self._unwritten - bytes_min < unwritten <= self._unwritten:
            self._unwritten = unwritten
            self._write_ticks_left = self._door.deadlines.within(limits.write_deadline_s)
            return
        self._write_ticks_left -= 1
        if self._write_ticks_left <= 0:
            self._transport.abort()

    def _lose_patience(self) -> None:
        if self._is_over:
            self._transport.abort()
        elif self._ahead:
            self.refuse(RequestTimeout("The head of the request came too slowly."))
        else:
            self._close()

    # Reading.

    def _take(self, data: bytes) -> None:
        try:
            is_for_later = self._body_is_open and self._chunks is not None and not self._is_body_requested
            if self._body_is_open and not is_for_later:
                data = self._take_body(data)
            if not data or self._is_over:
                return
            if self._answer is None:
                self._take_head(data)
            else:
                self._ahead += data
                if len(self._ahead) >= READ_MAX:
                    self._pause()
        except TokencapError as error:
            self.refuse(error)

    def _take_head(self, new: bytes) -> None:
        data: bytes | bytearray = new
        if self._ahead:
            self._ahead += new
            data = self._ahead
        if self._searched < 2 and not self._had_empty_line and data.startswith(b"\r\n"):
            data = bytes(data[2:])  # an empty line may precede a request
            self._had_empty_line, self._searched = True, 0
            self._ahead.clear()
        end = data.find(END, max(0, self._searched - 3))
        if end < 0:
            self._wait_for_head(data)
            return
        head, rest = read_head(bytes(data[:end]), self._door.limits.head_max), bytes(data[end + 4 :])
        self._ahead.clear()
        self._searched, self._had_empty_line = 0, False
        self._begin(head)
        if rest:
            self._take(rest)

    def _wait_for_head(self, data: bytes | bytearray) -> None:
        if not data:
            return
        if data != b"\r" or self._had_empty_line:
            check_beginning(data, self._searched, self._door.limits.head_max)
        if not (self._is_first or self._searched):
            self._ticks_left = self._door.head_ticks
        if data is not self._ahead:
            self._ahead += data
        self._searched = len(data)

    def _begin(self, head: Head) -> None:
        self._door.runs(self)
        self._is_first = False
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "method": head.method,
            "scheme": "http",
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "root_path": "",
            "headers": head.headers,
            "client": self._client,
            "server": self._local,
            "state": self._app_state.copy(),
        }
        has_body = head.length != 0
        self._answer = answer = Answer(self, scope, keep_alive=head.keeps_alive, has_body=has_body)
        if has_body:
            self._body_is_open = True
            self._chunks, self._is_body_requested = Chunks() if head.length is None else None, False
            self._bytes_left = head.length or 0
            self._waits_to_go_on = head.waits_to_go_on
            self._unread = 0
            self._credit = self._door.body_credit
        task = self._loop.create_task(answer.run(self._app))
        task.add_done_callback(self._server.tasks.discard)
        self._server.tasks.add(task)

    def _take_body(self, data: bytes) -> bytes:
        """Pass an app the bytes of its body; return the rest."""
        assert self._answer is not None
        self._waits_to_go_on = False
        if self._answer.is_complete:
            self._unread += len(data) if self._chunks is not None else min(len(data), self._bytes_left)
            if self._unread > (UNREAD_MAX if self._chunks is None else UNREAD_CHUNKS_MAX):
                self._linger()
                return b""
        if self._chunks is None:
            body, rest = data[: self._bytes_left], data[self._bytes_left :]
            self._bytes_left -= len(body)
            is_last = not self._bytes_left
        else:
            body, after = self._chunks.take(data)
            is_last, rest = after is not None, after or b""
        self._body_is_open = not is_last
        self._credit = min(self._credit + len(data), self._door.body_credit)
        if not self._answer.add_body(body, is_last=is_last):
            self._pause()
        if self._answer.is_complete and is_last:
            self._next()
        return rest

    # Answering.

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def caught_up(self) -> None:
        await self._caught_up.wait()

    def default_headers(self) -> Fields:
        headers: Fields = self._server.default_headers
        return headers

    def resume_body(self) -> None:
        if self._waits_to_go_on:
            self._waits_to_go_on = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._go_on_with_body()

    def may_stay(self) -> bool:
        """Return whether another request may follow, though the app did not read this request's body to its end."""
        if not self._body_is_open:
            return True
        return not self._waits_to_go_on and self._bytes_left <= UNREAD_MAX and len(self._ahead) <= UNREAD_CHUNKS_MAX

    def answered(self) -> None:
        assert self._answer is not None
        self._server.total_requests += 1
        if self._is_over:
            return
        if not self._answer.keep_alive:
            if self._body_is_open or self._ahead:
                self._linger()
            else:
                self._close()
        elif self._body_is_open:
            self._go_on_with_body()
        else:
            self._next()

    def _next(self) -> None:
        """Read the next request, if its bytes have arrived."""
        self._answer = None
        self._ticks_left = self._idle_ticks
        self._door.waits(self)
        self._resume()
        self._take_pipelined()

    def _go_on_with_body(self) -> None:
        """Read the body for an app that requests it, or drop it. So chunks of a caller without a key cost nothing."""
        self._resume()
        if not self._is_body_requested:
            self._is_body_requested = True
            self._take_pipelined()

    def _take_pipelined(self) -> None:
        if self._ahead:
            data = bytes(self._ahead)
            self._ahead.clear()
            self._take(data)

    def break_off(self) -> None:
        assert self._answer is not None
        if self._answer.scope["http_version"] == "1.0":
            self._is_over = True
            reset(self._transport)  # a close would count as the answer's end
        else:
            self._close()

    def refuse(self, error: TokencapError) -> None:
        if self._is_over:
            return
        self._door.refused(error, "" if self._client is None else self._client[0])
        answer = self._answer
        if answer is None or not answer.is_written:
            is_wanted = answer is None or answer.scope["method"] != "HEAD"
            self._transport.write(refusal(error, with_body=is_wanted))
        elif not answer.is_complete:
            answer.leave()
            self.break_off()
            return
        if answer is not None:
            answer.leave()
        self._linger()

    def _linger(self) -> None:
        """End the connection once the caller has read the last answer; closing while it sends would lose the answer."""
        self._is_over = True
        self._ahead.clear()
        self._linger_left = LINGER_BYTES_MAX
        self._ticks_left = self._door.deadlines.within(LINGER_S)
        if not self._transport.is_closing():
            self._transport.write_eof()
            self._resume()

    def _close(self) -> None:
        self._is_over = True
        self._transport.close()

    def _pause(self) -> None:
        if self._is_reading and not self._transport.is_closing():
            self._is_reading = False
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._is_reading and not self._transport.is_closing():
            self._is_reading = True
            self._transport.resume_reading()


def _address(transport: asyncio.BaseTransport, which: str) -> tuple[str, int] | None:
    address = transport.get_extra_info(which)
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None
