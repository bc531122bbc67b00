"""The worker's one connection to Redis: what it batches, what it asks again, and when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.clock import now_ms
from gateway.errors import MeteringUnavailable
from gateway.holds.store.address import address_of
from gateway.holds.store.clients import connect, connect_shared
from gateway.holds.store.connection import WAITING_MOST, SharedConnection
from gateway.holds.store.scripts import Script
from tests.certificates import certified
from tests.faults.wire import Wire, wire

TIMEOUT_S = 1.0

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def between(valkey_url: str) -> Iterator[Wire]:
    with wire(valkey_url.removeprefix("unix://")) as between:
        yield between


@asynccontextmanager
async def line_to(url: str, timeout_s: float = TIMEOUT_S) -> AsyncIterator[SharedConnection]:
    connection = SharedConnection(address_of(url), timeout_s)
    try:
        yield connection
    finally:
        await connection.aclose()


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[str]:
    async with await asyncio.start_server(_closing(talk), "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def count(url: str, name: str) -> int:
    with connect(url) as client:
        found: dict[str, Any] = client.info("stats")
        return int(found[name])


async def test_a_thousand_commands_at_once_use_one_connection_and_come_back_in_order(valkey_url: str) -> None:
    before = count(valkey_url, "total_connections_received")
    async with line_to(valkey_url) as connection:
        replies = await asyncio.gather(*(connection.execute("ECHO", str(number)) for number in range(1000)))

    assert replies == [str(number).encode() for number in range(1000)]
    assert count(valkey_url, "total_connections_received") - before == 2, "this one, and the one that counts"


async def test_commands_of_one_turn_leave_in_one_piece(valkey_url: str) -> None:
    async with line_to(valkey_url) as connection:
        await connection.execute("PING")
        before = count(valkey_url, "total_reads_processed")
        await asyncio.gather(*(connection.execute("PING") for _ in range(100)))

        assert count(valkey_url, "total_reads_processed") - before < 10


async def test_a_lost_connection_is_made_again_and_its_commands_are_sent_once_more(
    between: Wire, valkey_url: str
) -> None:
    async with line_to(f"redis://127.0.0.1:{between.port}") as connection:
        assert await connection.execute("SET", "a", 1) == b"OK"
        between.lose_reply_to(b"a-words")
        assert await connection.execute("APPEND", "a-words", "x") == 2, "the first was done, too"
        between.reset()
        assert await connection.execute("GET", "a") == b"1"


async def test_a_command_that_is_lost_twice_is_given_up() -> None:
    requests = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(100))
        writer.close()

    async with serving(hang_up) as url, line_to(url) as connection:
        with pytest.raises(redis.ConnectionError):
            await connection.execute("PING")

        assert requests == [b"*1\r\n$4\r\nPING\r\n"] * 2


async def test_a_server_that_refuses_connections_is_gone_at_once_and_found_again(between: Wire) -> None:
    async with line_to(f"redis://127.0.0.1:{between.port}") as connection:
        await connection.execute("PING")
        between.cut()
        for _ in range(3):
            with pytest.raises(redis.ConnectionError):
                await connection.execute("PING")
        between.mend()
        assert await connection.execute("PING") == b"PONG"


async def test_a_server_that_says_nothing_is_given_up_and_asked_on_another_connection_later(between: Wire) -> None:
    async with line_to(f"redis://127.0.0.1:{between.port}") as connection:
        await connection.execute("PING")
        between.stall()
        with pytest.raises(redis.TimeoutError):
            await connection.execute("PING")
        between.mend()
        assert await connection.execute("ECHO", "fresh") == b"fresh", "not what the first connection still had to say"


async def test_an_event_loop_that_was_busy_takes_no_server_for_slow(valkey_url: str) -> None:
    async with line_to(valkey_url, timeout_s=0.1) as connection:
        await connection.execute("PING")
        replies = [connection.execute("PING") for _ in range(3)]
        await asyncio.sleep(0)  # they are sent
        with connect(valkey_url) as client:
            client.blpop(["nothing"], timeout=0.5)  # type: ignore[arg-type]  # nothing else runs for so long
        assert await asyncio.gather(*replies) == [b"PONG"] * 3


async def test_a_line_whose_queue_is_full_refuses_at_once(valkey_url: str) -> None:
    async with line_to(valkey_url) as connection:
        replies = [connection.execute("PING") for _ in range(WAITING_MOST)]
        with pytest.raises(MeteringUnavailable):
            connection.execute("PING")

        assert set(await asyncio.gather(*replies)) == {b"PONG"}
        assert await connection.execute("PING") == b"PONG"


async def test_what_a_server_refuses_is_told_to_its_asker_only(valkey_url: str) -> None:
    async with line_to(valkey_url) as connection:
        wrong, right = await asyncio.gather(
            connection.execute("NONSENSE"), connection.execute("PING"), return_exceptions=True
        )

        assert isinstance(wrong, redis.ResponseError)
        assert right == b"PONG"


async def test_an_asker_who_is_gone_takes_no_reply_from_others(valkey_url: str) -> None:
    async with line_to(valkey_url) as connection:
        await connection.execute("PING")
        replies = [connection.execute("ECHO", str(number)) for number in range(3)]
        await asyncio.sleep(0)
        replies[1].cancel()

        assert (await replies[0], await replies[2]) == (b"0", b"2")


async def test_a_verb_that_the_server_has_forgotten_is_told_again(valkey_url: str) -> None:
    async with line_to(valkey_url) as connection:
        script = Script("withdraw")
        for number in range(2):
            await connection.execute("SCRIPT", "FLUSH")
            replies = ["inflight", "settled"], [f"c{number}", now_ms()]
            with pytest.raises(redis.exceptions.NoScriptError):
                await script.run_by_digest(connection, *replies)
            assert await script.run(connection, *replies) == b"withdrawn"
            assert await script.run_by_digest(connection, *replies) == b"withdrawn"


async def test_a_password_and_a_database_are_told_first(valkey_url: str) -> None:
    with connect(valkey_url) as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", ">se:cret", "~*", "+@all")  # type: ignore[no-untyped-call]
    path = valkey_url.removeprefix("unix://")
    async with line_to(f"unix://ann:se%3Acret@{path}?db=3") as connection:
        await connection.execute("SET", "a", 1)
        assert await connection.execute("ACL", "WHOAMI") == b"ann"
    with connect(f"{valkey_url}?db=3") as client:
        assert client.get("a") == b"1"

    async with line_to(f"unix://ann:wrong@{path}") as connection:
        with pytest.raises(redis.RedisError, match="WRONGPASS"):
            await connection.execute("PING")


async def test_a_server_over_tls_is_verified(between: Wire, tmp_path: Path) -> None:
    certificates = certified(tmp_path)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", between.port)
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    server = await asyncio.start_server(_closing(carry), "127.0.0.1", 0, ssl=certificates.context())
    port = server.sockets[0].getsockname()[1]
    async with server:
        async with line_to(f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificates.authority}") as connection:
            assert await connection.execute("ECHO", "x" * 100_000) == b"x" * 100_000
        async with line_to(f"rediss://127.0.0.1:{port}") as connection:
            with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
                await connection.execute("PING")


async def test_a_server_that_is_no_redis_is_given_up() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(talk) as url, line_to(url) as connection:
        with pytest.raises(redis.ConnectionError):
            await connection.execute("PING")


async def test_a_line_that_was_closed_says_so(valkey_url: str) -> None:
    connection = connect_shared(valkey_url)
    replies = connection.execute("PING")
    await connection.aclose()

    with pytest.raises(redis.ConnectionError):
        await replies
    with pytest.raises(redis.ConnectionError):
        await connection.execute("PING")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
    finally:
        writer.close()


def _closing(talk: Talk) -> Talk:
    """Return ``talk`` that leaves no connection open, however it ends."""

    async def talk_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    return talk_and_close


async def test_what_nobody_waits_for_any_more_is_not_asked(valkey_url: str) -> None:
    async with line_to(valkey_url) as connection:
        await connection.execute("PING")
        given_up = connection.execute("SET", "given up", "1")
        given_up.cancel()

        assert await connection.execute("GET", "given up") is None
