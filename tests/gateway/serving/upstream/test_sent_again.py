"""A request on a kept connection that the server closes meanwhile is sent again if the server has not read it."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

import pytest
import uvloop

from gateway.errors import UpstreamUnavailable
from gateway.serving.upstream.transport import Transport
from tests.gateway.serving.clients import BODY, PATIENCE_S, WHOLE, all_of, pool, post

GivesUp = Callable[[socket.socket], None]
MUCH = b"x" * 2**25
"""More than all buffers in between can hold."""


@dataclass
class Engine:
    """A server of one connection at a time, on bare sockets: bytes that it does not read stay in the kernel."""

    listening: socket.socket
    gives_up: GivesUp
    """How it ends each connection except the last, after an answer."""
    answers: tuple[bool, ...] = (True, True)
    """Whether it answers the first request of each connection."""
    seen: list[int] = field(default_factory=list)
    """How many requests it read on each connection."""
    may_give_up: threading.Event = field(default_factory=threading.Event)
    has_given_up: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}/v1"

    def serve(self) -> None:
        with suppress(OSError):
            for number, is_answered in enumerate(self.answers, 1):
                here, _ = self.listening.accept()
                with closing(here):
                    here.settimeout(PATIENCE_S)
                    self.seen.append(0)
                    if is_answered:
                        self._answer(here)
                    if number < len(self.answers):
                        self.may_give_up.wait(PATIENCE_S)
                        self.gives_up(here)
                        self.has_given_up.set()

    def _answer(self, here: socket.socket) -> None:
        received = here.recv(2**16)
        head, _, body = received.partition(b"\r\n\r\n")
        size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < size:
            body += here.recv(2**20)
        self.seen[-1] += 1
        here.sendall(WHOLE)


@contextmanager
def engine(gives_up: GivesUp, *answers: bool) -> Iterator[Engine]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE_S)
        one = Engine(listening, gives_up, answers or (True, True))
        thread = threading.Thread(target=one.serve)
        thread.start()
        try:
            yield one
        finally:
            one.may_give_up.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def unread(here: socket.socket) -> None:
    """Close once a request has arrived, without reading it, like a server whose idle timer ends just then."""
    here.recv(1, socket.MSG_PEEK)
    here.close()


def half(here: socket.socket) -> None:
    """Close the server's half while most of a request is still to come."""
    here.recv(1, socket.MSG_PEEK)
    here.shutdown(socket.SHUT_WR)


def read_first(here: socket.socket) -> None:
    """Read a request, then close."""
    here.recv(2**16)
    here.close()


def head_first(here: socket.socket) -> None:
    """Send one byte of an answer, then close without having read the request."""
    here.recv(1, socket.MSG_PEEK)
    here.sendall(b"H")
    here.close()


loops = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
Loop = Callable[[], asyncio.AbstractEventLoop]


def run(loop: Loop, far: Engine, second: Callable[[Transport], object]) -> None:
    """Make a call, and then run ``second``, with a client of the engine."""

    async def calls() -> None:
        transport = pool(far.url)
        try:
            assert await all_of(await post(transport)) == b"{}"
            await second(transport)  # type: ignore[misc]
        finally:
            await transport.aclose()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(calls())


@loops
@pytest.mark.parametrize(("gives_up", "body"), [(unread, BODY), (half, MUCH)], ids=["unread", "half"])
def test_what_nobody_has_read_is_sent_again_on_a_new_connection(loop: Loop, gives_up: GivesUp, body: bytes) -> None:
    with engine(gives_up) as far:
        far.may_give_up.set()

        async def again(transport: Transport) -> None:
            assert await all_of(await post(transport, body)) == b"{}"

        run(loop, far, again)

    assert far.seen == [1, 1]


@loops
def test_what_is_sent_to_who_had_closed_already_is_sent_again(loop: Loop) -> None:
    """The event loop has had no turn yet in which it could notice the close."""
    with engine(socket.socket.close) as far:

        async def at_once(transport: Transport) -> None:
            far.may_give_up.set()
            far.has_given_up.wait(PATIENCE_S)
            assert await all_of(await post(transport)) == b"{}"

        run(loop, far, at_once)

    assert far.seen == [1, 1]


@loops
@pytest.mark.parametrize("gives_up", [read_first, head_first])
def test_what_may_have_been_read_is_not_sent_again(loop: Loop, gives_up: GivesUp) -> None:
    with engine(gives_up) as far:
        far.may_give_up.set()

        async def in_vain(transport: Transport) -> None:
            with pytest.raises(UpstreamUnavailable):
                await post(transport)

        run(loop, far, in_vain)
        assert far.seen == [1]


@loops
def test_it_is_sent_again_once(loop: Loop) -> None:
    """If the new connection is closed, too, the server has a reason other than idleness."""
    with engine(unread, True, False, True) as far:
        far.may_give_up.set()

        async def in_vain(transport: Transport) -> None:
            with pytest.raises(UpstreamUnavailable):
                await post(transport)

        run(loop, far, in_vain)
        assert far.seen == [1, 0]


@loops
@pytest.mark.parametrize("is_read", [False, True])
def test_an_end_is_followed_by_word_of_what_was_not_read(loop: Loop, is_read: bool) -> None:
    """A server shuts a connection down and then closes it: only the close shows that a request was left unread."""

    async def answer(listening: socket.socket) -> socket.socket:
        here = asyncio.get_running_loop()
        connection, _ = await here.sock_accept(listening)
        await here.sock_recv(connection, 2**16)
        await here.sock_sendall(connection, WHOLE)
        return connection

    async def calls() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            transport = pool(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
            kept, first = await asyncio.gather(answer(listening), post(transport))
            assert await all_of(first) == b"{}"

            again, second = asyncio.create_task(answer(listening)), asyncio.create_task(post(transport))
            await asyncio.to_thread(select.select, [kept], [], [])
            if is_read:
                kept.recv(2**16)
            kept.shutdown(socket.SHUT_RDWR)
            for _ in range(20):
                await asyncio.sleep(0)  # the client reads the end
            kept.close()

            if is_read:
                with pytest.raises(UpstreamUnavailable):
                    await second
                again.cancel()
            else:
                assert await all_of(await second) == b"{}"
                (await again).close()
            await transport.aclose()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(calls())
