"""One caller's request and response on plain ASGI: reads the body, sends the answer, notices when the caller leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Set
from types import TracebackType
from typing import Any, TypeVar

from gateway.body_drain import BodyDrain
from gateway.deadlines import Deadlines
from gateway.errors import CallerGone
from gateway.serving.caller.headers import Headers, length_header, written
from gateway.serving.json_codec import dumps
from gateway.single_headers import repeated_header

WhenGone = Callable[[Callable[[], None] | None], None]
"""Takes the callback for the caller's hang-up, in place of the previous callback."""


class CallerWatch:
    """A block that ends with CallerGone when its caller hangs up, and with TimeoutError after ``seconds``.

    If the caller has already hung up, the block does not run. ``on_disconnect``, if given, is called once the caller
    has left, and returns for how many seconds the block goes on; after these seconds it ends with CallerGone.

    Our own server reports a hang-up at once, to the callback that ``when_gone`` takes. On another server only
    ``receive()`` reports a hang-up, to a task that awaits it. That task is created with the first tick, because most
    whole answers end before it. ``task`` is the task that runs the block, if known; otherwise it is looked up.
    """

    is_unheard = False
    """Whether the block goes on although its caller has left."""
    _why: Exception | None = None
    _watch: asyncio.Task[None] | None = None

    def __init__(
        self,
        receive: Callable[[], Awaitable[Any]],
        when_gone: WhenGone | None,
        deadlines: Deadlines,
        seconds: float,
        *,
        heeds_caller: bool,
        on_disconnect: Callable[[], float] | None = None,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        self._receive = receive
        self._when_gone = when_gone if heeds_caller else None
        self._deadlines = deadlines
        self._ticks_left = deadlines.within(seconds)
        self._has_to_wait = heeds_caller and when_gone is None
        self._on_disconnect = on_disconnect
        self._task = task

    async def __aenter__(self) -> None:
        if self._task is None:
            self._task = asyncio.current_task()
        self._deadlines.watch(self)
        if self._when_gone is not None:
            self._when_gone(self._leave)
        if self._why is not None:
            try:
                await asyncio.sleep(0)  # the cancellation by ``_end`` is raised here
            except asyncio.CancelledError as error:
                await self.__aexit__(type(error), error, None)
                raise

    def tick(self) -> None:
        self._ticks_left -= 1
        if self._ticks_left == 0:
            self._end(CallerGone("The caller hung up.") if self.is_unheard else TimeoutError())
        elif self._has_to_wait and self._watch is None:
            self._watch = asyncio.create_task(self._until_disconnect())

    async def _until_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self.stays():
            self._end(CallerGone("The caller hung up."))

    def stays(self) -> bool:
        """Note that the caller has left; return whether the block goes on."""
        if self._on_disconnect is not None:
            seconds, self._on_disconnect = self._on_disconnect(), None
            if seconds:
                self.is_unheard = True
                self._ticks_left = min(self._ticks_left, self._deadlines.within(seconds))
        return self.is_unheard

    def _end(self, why: Exception) -> None:
        if self._why is None:
            assert self._task is not None
            self._why = why
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.leave(self)
        self._on_disconnect = None
        if self._when_gone is not None:
            self._when_gone(None)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None  # the exception keeps its frames, and the frames keep the task
        if self._why is not None:
            assert self._task is not None
            if self._task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
                why, self._why = self._why, None
                try:
                    raise why from None
                finally:
                    del why  # else the exception and this frame would keep each other


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

Result = TypeVar("Result")

WRITE_NOW = "tokencap.write_now"
"""The server's extension of a scope. ``write`` sends bytes of a body at once and returns whether the caller keeps up;
``when_gone`` takes the callback for the caller's hang-up."""


class Exchange:
    """A caller's request, the response to it, and whether the caller is still connected."""

    id_headers: tuple[bytes, ...] = (b"x-request-id",)
    """Response headers that carry the gateway's id of the request."""
    answers = True
    """Whether a head can still be sent."""
    records = False
    """Whether the written bytes are remembered, for an answer that is kept."""
    repeated: str | None = None
    """The first header of ``single_headers.ONCE`` that came twice, or None."""
    body_was_read = False
    """Whether the body was read to its end."""
    _body_was_begun = False
    _is_behind = False
    _is_abandoned = False
    _ticks_left = 0
    _coming: asyncio.Future[Any] | None = None
    _caller_watch: CallerWatch | None = None
    _sign = b""
    _sign_ticks = _quiet_ticks = 0

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, deadlines: Deadlines, write_ticks: int
    ) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: str = scope["query_string"].decode("latin-1")
        self.request_id = request_id
        self.more_headers: Headers = []
        """The headers of every answer to this caller."""
        self._written: list[bytes] = []
        self._buffered: list[bytes] = []
        extension = scope.get("extensions", {}).get(WRITE_NOW, {})
        self._write_now: Callable[[bytes], bool] | None = extension.get("write")
        self._when_gone: WhenGone | None = extension.get("when_gone")
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        if len(self._headers) != len(scope["headers"]):
            self.repeated = repeated_header(scope["headers"])
        self._receive = receive
        self._send = send
        self._deadlines = deadlines
        self._write_ticks = write_ticks
        self._task = asyncio.current_task()
        self._releases: list[Callable[[], None]] = []

    def header(self, name: bytes) -> str | None:
        """Return a request header's value by its lower-case name, the last value where the header comes twice."""
        return self._headers[name].decode("latin-1") if name in self._headers else None

    def has_any_header(self, names: Set[bytes]) -> bool:
        """Return whether the request has one of these headers, named in lower case."""
        return not names.isdisjoint(self._headers)

    def __enter__(self) -> Exchange:
        self._deadlines.watch(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._deadlines.leave(self)
        self.release_body()

    async def more(self) -> bytes | None:
        """Return the next bytes of the body, or None after its end.

        Raises:
            CallerGone: the caller hung up before the whole body had arrived.
        """
        if self.body_was_read:
            return None
        self._body_was_begun = True
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise CallerGone("The caller hung up.")
        self.body_was_read = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    async def drop_body(self, dropping: BodyDrain) -> bool:
        """Read and drop the rest of the body, so that the caller reads its refusal; return whether nothing is left.

        Where the caller still waits for ``100 Continue``, nothing is read, so that it is never sent ``100 Continue``.
        """
        if not self._body_was_begun and self.header(b"expect") is not None:
            return False
        return await dropping.drop(self.more)

    def at_release(self, release: Callable[[], None]) -> None:
        """Have ``release`` called once the body is no longer kept here."""
        self._releases.append(release)

    def release_body(self) -> None:
        """Note that the body is no longer kept here."""
        while self._releases:
            self._releases.pop()()

    async def start(self, status: int, headers: Headers, content_type: bytes) -> None:
        """Send the head."""
        self.answers = False
        request_id = written(self.request_id)
        ids = [(name, request_id) for name in self.id_headers]
        lines = [(b"content-type", content_type), *ids, *headers, *self.more_headers]
        await self._send({"type": "http.response.start", "status": status, "headers": lines})

    def keep_awake(self, sign: bytes, seconds: float) -> None:
        """Have a begun stream send a ``sign`` of life after each ``seconds`` in which nothing was sent; 0 means never.

        This needs a server that can write at once: bytes kept for ``flush`` would come too late.
        """
        if seconds and self._write_now is not None:
            self._sign, self._sign_ticks = sign, self._deadlines.within(seconds)

    def write_now(self, chunk: bytes) -> bool:
        """Send bytes of the body without waiting; return whether nothing is left for ``flush``.

        Where the server cannot write at once, or the caller does not keep up, ``flush`` sends the bytes later.
        """
        if not chunk:
            return True
        if self._write_now is None or self._buffered or self._is_abandoned:
            self._buffered.append(chunk)
            return False
        if self.records:
            self._written.append(chunk)
        self._quiet_ticks = 0
        self._is_behind = not self._write_now(chunk)
        return not self._is_behind

    def keep(self, chunk: bytes) -> bool:
        """Keep bytes of the body for ``flush``; return whether there is anything to flush."""
        if chunk:
            self._buffered.append(chunk)
        return bool(self._buffered or self._is_behind)

    async def flush(self) -> None:
        """Send the kept bytes; wait while the caller reads more slowly than the bytes come.

        Raises:
            CallerGone: the caller read nothing for too long, and its answer does not go on.
        """
        if not self._buffered and not self._is_behind:
            return
        pending, self._buffered, self._is_behind = b"".join(self._buffered), [], False
        if self.records:
            self._written.append(pending)
        if not self._is_abandoned:
            await self._write({"type": "http.response.body", "body": pending, "more_body": True})

    async def end(self, chunk: bytes = b"") -> None:
        """Send the last bytes."""
        self._sign = b""
        if not self._is_abandoned:
            await self._write({"type": "http.response.body", "body": chunk, "more_body": False})

    async def _write(self, message: Message) -> None:
        self._ticks_left, self._quiet_ticks = self._write_ticks, 0
        try:
            await self._send(message)
        except asyncio.CancelledError:
            if not self._is_abandoned or (self._task is not None and self._task.uncancel() > 0):
                raise
            if not (self.records or (self._caller_watch is not None and self._caller_watch.stays())):
                raise CallerGone("The caller took nothing for too long.") from None
        finally:
            self._ticks_left = 0

    def tick(self) -> None:
        """Count a tick: towards a sign of life, the caller's deadline for reading, and the deadline of ``in_time``."""
        if self._sign:
            self._quiet_ticks += 1
            if self._quiet_ticks >= self._sign_ticks:
                self._show_life()
        if self._ticks_left > 0:
            self._ticks_left -= 1
            if self._ticks_left > 0:
                return
            if self._coming is not None:
                if not self._coming.done():
                    self._coming.set_result(None)
            elif self._task is not None:
                self._is_abandoned = True
                self._task.cancel()

    def _show_life(self) -> None:
        """Send a sign of life to a caller that keeps up; it is not remembered with an answer that is kept."""
        self._quiet_ticks = 0
        if self._write_now is not None and not (
            self._buffered or self._is_behind or self._is_abandoned or self.is_unheard
        ):
            self._is_behind = not self._write_now(self._sign)

    async def reply(self, status: int, body: Any, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send a whole JSON answer."""
        encoded = dumps(body)
        lines = [(name.encode("latin-1"), written(value)) for name, value in headers]
        await self.start(status, [*lines, length_header(encoded)], b"application/json")
        await self.end(encoded)

    def attended(
        self, seconds: float, *, to_its_end: bool = False, on_disconnect: Callable[[], float] | None = None
    ) -> CallerWatch:
        """Return a context that ends with TimeoutError after ``seconds``, and with CallerGone once the caller has left.

        A block that goes on ``to_its_end`` ignores that the caller left; any other goes on for the seconds that
        ``on_disconnect`` returns.
        """
        self._caller_watch = CallerWatch(
            self._receive,
            self._when_gone,
            self._deadlines,
            seconds,
            heeds_caller=not to_its_end,
            on_disconnect=on_disconnect,
            task=self._task,
        )
        return self._caller_watch

    @property
    def is_unheard(self) -> bool:
        """Whether the answer goes on although its caller has left."""
        return self._caller_watch is not None and self._caller_watch.is_unheard

    async def in_time(self, future: asyncio.Future[Result | None], seconds: float) -> Result | None:
        """Return a future's result, or None where the result does not come in time: the future is then set to None."""
        self._coming, self._ticks_left = future, self._deadlines.within(seconds)
        try:
            return await future
        finally:
            self._coming, self._ticks_left = None, 0

    @property
    def recorded(self) -> bytes:
        """The bytes written so far, where ``records`` was set before."""
        return b"".join(self._written)
