"""Clients for the Redis URL of the settings, and the only place where Redis' errors become the gateway's errors."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import redis
import redis.asyncio
from redis import driver_info
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from gateway.errors import MeteringUnavailable, StartupError
from gateway.holds.store.address import address_of
from gateway.holds.store.connection import RedisConnection, SharedConnection
from gateway.redaction import NO_URL

CLUSTER = "redis+cluster://"
TIMEOUT_S = 5.0


def connect(url: str) -> redis.Redis:
    """Return a blocking client, for the admin side and the bookkeeper.

    The client repeats a command only once: where Redis does not answer, an operator gets an error soon, and row locks
    are short.
    """
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "driver_info": _driver_info(),
    }
    with _understood():
        if url.startswith(CLUSTER):
            return cast(redis.Redis, redis.RedisCluster.from_url("redis://" + url.removeprefix(CLUSTER), **options))
        return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 1), **options)


def connect_shared(url: str, *, batches: bool = True) -> RedisConnection:
    """Return the serving path's connection to Redis, which connects with its first command.

    Args:
        batches: whether commands of the same moment leave in one batch; in a cluster they never do.
    """
    with _understood():
        if url.startswith(CLUSTER):
            options: dict[str, Any] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
            return _ClusterConnection(
                redis.asyncio.RedisCluster.from_url("redis://" + url.removeprefix(CLUSTER), **options)
            )
        return SharedConnection(address_of(url), TIMEOUT_S, batches=batches)


@cache
def _driver_info() -> driver_info.DriverInfo:
    """Return what connections tell the server of redis-py; else redis-py reads its version from disk for each one."""
    return driver_info.DriverInfo()


@contextmanager
def _understood() -> Iterator[None]:
    """Raise an error that does not quote an invalid URL: its password may be the invalid part."""
    try:
        yield
    except ValueError as error:
        raise StartupError(NO_URL.format("TOKENCAP_REDIS_URL"), exit_code=2) from error


class _ClusterConnection:
    """A connection over redis-py's client of a cluster, which knows the nodes and follows them."""

    def __init__(self, client: redis.asyncio.RedisCluster) -> None:
        self._client = client

    def execute(self, *words: bytes | str | int) -> Awaitable[Any]:
        return self._client.execute_command(*words)

    async def aclose(self) -> None:
        await self._client.aclose()


def text(reply: Any) -> str:
    """Return one part of a reply as text."""
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def texts(reply: Iterable[bytes]) -> list[str]:
    """Return the parts of a script's reply as text."""
    return list(map(bytes.decode, reply))


def fields(reply: Mapping[Any, Any]) -> dict[str, str]:
    """Return the fields of a hash or of a stream's entry as text."""
    return {text(name): text(value) for name, value in reply.items()}


class translated:  # noqa: N801 - it reads as a word of the statement it stands in
    """Turns every failure of Redis inside the block into MeteringUnavailable."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, RedisError | OSError):
            raise MeteringUnavailable from error


Fields = dict[bytes, bytes]
"""The fields of one entry of a stream."""


def next_entries(
    client: redis.Redis, after: Mapping[str, str], most: int
) -> list[tuple[str, list[tuple[str, Fields]]]]:
    """Return the next entries of each stream that has any: at most ``most`` of each, each with its id.

    With one server this is one command: a command for each bucket costs an idle process more than all its other duties.

    Args:
        after: the last entry read of each stream, ``0-0`` before the first.

    Raises:
        MeteringUnavailable: Redis is unavailable.
    """
    with translated():
        if isinstance(client, redis.RedisCluster):
            with client.pipeline(transaction=False) as batch:
                for stream, last in after.items():
                    batch.xread({stream: last}, count=most)
                found = [entries for reply in batch.execute() for entries in reply]
        else:
            found = cast(Any, client).execute_command("XREAD", "COUNT", most, "STREAMS", *after, *after.values())
    return [(stream.decode(), [(name.decode(), fields) for name, fields in entries]) for stream, entries in found]
