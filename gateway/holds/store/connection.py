"""The connection to Redis that all calls of a worker share: commands of the same moment leave in one batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import hiredis
import redis
from redis.exceptions import BusyLoadingError, NoScriptError, RedisError, ResponseError

from gateway.errors import MeteringUnavailable
from gateway.holds.store.address import Address, Words

packed: Callable[[Words], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub takes tuples of length 1

WAITING_MOST = 16_384
"""Commands without a reply; a further command is refused at once. A call has one or two such commands at a time."""

QUIET_TICKS = 2
"""The number of ticks in a row for which a server that owes a reply may be silent."""

_ERRORS: dict[str, type[RedisError]] = {"NOSCRIPT": NoScriptError, "LOADING": BusyLoadingError}


class RedisConnection(Protocol):
    """A connection to Redis. Every command may be sent twice, so every command must be repeatable."""

    def execute(self, *words: bytes | str | int) -> Awaitable[Any]:
        """Send one command and return its reply, or raise RedisError."""

    async def aclose(self) -> None:
        """Disconnect."""


class Command:
    """One command that waits for its reply."""

    __slots__ = ("is_repeat", "packed", "reply")

    def __init__(self, words: Words, reply: asyncio.Future[Any]) -> None:
        self.packed = packed(words)
        self.reply = reply
        self.is_repeat = False


class SharedConnection:
    """One connection that many calls share, opened when it is first needed and again after a loss.

    Commands leave together once in each turn of the event loop, or one by one without ``batches``, and their replies
    come back in the same order. A command that had no reply when a connection was lost is sent once more on the next
    connection, and then given up.

    Time is counted in ticks: where a server that owes a reply is silent for ``timeout_s``, the connection is given up.
    An event loop that was busy for longer than that ticks once, and reads what arrived meanwhile before it ticks again.
    """

    def __init__(self, address: Address, timeout_s: float, *, batches: bool = True) -> None:
        self._address = address
        self._batches = batches
        self._tick_s = timeout_s / QUIET_TICKS
        self._waiting: list[Command] = []
        self._link: _Socket | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._is_due = False
        self._ticking: asyncio.TimerHandle | None = None
        self._quiet = 0
        self._is_closed = False

    def execute(self, *words: bytes | str | int) -> asyncio.Future[Any]:
        if self._is_closed:
            raise redis.ConnectionError("The line to Redis was closed.")
        if len(self._waiting) + (len(self._link.sent) if self._link else 0) >= WAITING_MOST:
            raise MeteringUnavailable("Too much is waiting for Redis; nothing was charged.")
        loop = asyncio.get_running_loop()
        command = Command(words, loop.create_future())
        self._waiting.append(command)
        if not self._batches:
            self._send()
        elif not self._is_due:
            self._is_due = True
            loop.call_soon(self._send)
        return command.reply

    async def aclose(self) -> None:
        self._is_closed = True
        closed = redis.ConnectionError("The line to Redis was closed.")
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        if self._link is not None:
            self._link.abandon(closed)
        self._give_up(closed)

    def _send(self) -> None:
        self._is_due = False
        if self._link is not None:
            self._link.send(self._waiting)
            self._waiting = []
        elif self._connecting is None and self._waiting:
            self._quiet = 0
            self._connecting = asyncio.create_task(self._connect(), name="connect to Redis")
        if self._ticking is None:
            self._tick_later()

    async def _connect(self) -> None:
        """Connect and send the waiting commands, or give up all of them."""
        link = _Socket(self._note_data, self._lost)
        try:
            await self._address.open(lambda: link)
            await link.introduce(self._address)
        except asyncio.CancelledError:
            link.abandon(_lost())
            self._give_up(redis.TimeoutError("Redis does not answer."))
        except OSError as error:
            self._give_up(redis.ConnectionError(f"Redis cannot be reached: {error}."))
        except RedisError as error:
            link.abandon(error)
            self._give_up(error)
        except Exception as error:  # noqa: BLE001 - after any error the next command connects again
            lost = redis.ConnectionError(f"Redis cannot be reached: {error}.")
            link.abandon(lost)
            self._give_up(lost)
        else:
            self._connecting, self._link = None, link
            self._send()

    def _give_up(self, error: RedisError) -> None:
        self._connecting = None
        waiting, self._waiting = self._waiting, []
        for command in waiting:
            _fail(command, error)

    def _note_data(self) -> None:
        self._quiet = 0

    def _lost(self, link: _Socket) -> None:
        """Send once more the commands that had no reply when the connection was lost."""
        if link is not self._link:
            link.abandon(_lost())  # the connection failed during its introduction
            return
        self._link = None
        repeats = []
        for command in link.sent:
            if command.is_repeat or self._is_closed:
                _fail(command, _lost())
            elif not command.reply.done():
                command.is_repeat = True
                repeats.append(command)
        self._waiting = repeats + self._waiting
        if self._waiting:
            self._send()

    def _tick_later(self) -> None:
        self._ticking = asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        if self._connecting is None and not (self._link and self._link.sent):
            return
        self._quiet += 1
        if self._quiet < QUIET_TICKS:
            self._tick_later()
        elif self._connecting is not None:
            self._connecting.cancel()
        else:
            link, self._link = self._link, None
            assert link is not None
            link.abandon(redis.TimeoutError("Redis does not answer."))


class _Socket(asyncio.Protocol):
    """One connection, and the commands sent on it in the order in which the replies come."""

    def __init__(self, on_data: Callable[[], None], on_loss: Callable[[_Socket], None]) -> None:
        self.sent: deque[Command] = deque()
        self._note_data = on_data
        self._lost = on_loss
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(replyError=_error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    async def introduce(self, address: Address) -> None:
        """Send the introduction; raises RedisError if the server refuses it or the connection is lost meanwhile."""
        loop = asyncio.get_running_loop()
        commands = [Command(words, loop.create_future()) for words in address.introduction]
        self.send(commands)
        for command in commands:
            await command.reply
        if self._transport is None:
            raise _lost()

    def send(self, commands: list[Command]) -> None:
        """Send commands in one write, without those that no caller waits for any more."""
        pending = [command for command in commands if not command.reply.done()]
        if not pending:
            return
        if self._transport is None:
            raise _lost()
        if not self.sent:
            self._note_data()  # no reply was owed until now
        self.sent.extend(pending)
        if not self._transport.is_closing():  # else the loss is about to be reported
            self._transport.write(b"".join([command.packed for command in pending]))

    def data_received(self, data: bytes) -> None:
        self._note_data()
        reader, sent = self._reader, self.sent
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                command = sent.popleft()
                if command.reply.done():
                    continue
                if isinstance(reply, Exception):
                    command.reply.set_exception(reply)
                else:
                    command.reply.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            assert self._transport is not None
            self._transport.abort()  # the server is not Redis, or its replies are out of order

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost(self)

    def abandon(self, error: RedisError) -> None:
        """Hang up and give up the commands that were sent."""
        sent, self.sent = self.sent, deque()
        if self._transport is not None:
            self._transport.abort()
        for command in sent:
            _fail(command, error)


def _lost() -> redis.ConnectionError:
    return redis.ConnectionError("The connection to Redis was lost.")


def _fail(command: Command, error: RedisError) -> None:
    if not command.reply.done():
        command.reply.set_exception(error)


def _error(message: str) -> RedisError:
    """Return a server's error as redis-py would raise it."""
    return _ERRORS.get(message.partition(" ")[0], ResponseError)(message)
