"""Clients of Redis from the one URL of the settings, and the one place where its errors become ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import redis
import redis.asyncio
import redis.asyncio.connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from gateway.errors import MeteringUnavailable

CLUSTER = "redis+cluster://"
TIMEOUT_S = 5.0


def connect(url: str) -> redis.Redis:
    """Return a blocking client, for the admin side and the bookkeeper.

    It too asks only once more: an operator is soon told, and no row of the ledger stays locked, while nobody answers.
    """
    options: dict[str, Any] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    if url.startswith(CLUSTER):
        return cast(redis.Redis, redis.RedisCluster.from_url("redis://" + url.removeprefix(CLUSTER), **options))
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 1), **options)


def connect_async(url: str) -> redis.asyncio.Redis:
    """Return the serving path's client.

    It asks once more after a lost connection and no more: every script is idempotent, and a caller who waits for a
    server that is not there is better told so.
    """
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": AsyncRetry(NoBackoff(), 1),
    }
    if url.startswith(CLUSTER):
        clustered = redis.asyncio.RedisCluster.from_url("redis://" + url.removeprefix(CLUSTER), **options)
        return cast(redis.asyncio.Redis, clustered)
    client = redis.asyncio.Redis.from_url(url, max_connections=512, **options)
    pool = client.connection_pool
    pool.connection_class = CLOSED_IS_LOST[pool.connection_class]
    return client


class _ClosedIsLost(redis.asyncio.connection.AbstractConnection):
    """A connection that was closed a moment ago is one that was lost.

    uvloop says so with a RuntimeError, which redis-py passes on: nothing would ask again, and no one here would take
    it for what it is.
    """

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            await self.disconnect(nowait=True)
            raise redis.ConnectionError("The connection was closed.") from error


class _Tcp(_ClosedIsLost, redis.asyncio.Connection):
    pass


class _Tls(_ClosedIsLost, redis.asyncio.SSLConnection):
    pass


class _Unix(_ClosedIsLost, redis.asyncio.UnixDomainSocketConnection):
    pass


CLOSED_IS_LOST = {
    redis.asyncio.Connection: _Tcp,
    redis.asyncio.SSLConnection: _Tls,
    redis.asyncio.UnixDomainSocketConnection: _Unix,
}


def text(reply: Any) -> str:
    """Return one part of a reply as text."""
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def fields(reply: Mapping[Any, Any]) -> dict[str, str]:
    """Return a hash as it was read, as text."""
    return {text(name): text(value) for name, value in reply.items()}


@contextmanager
def translated() -> Iterator[None]:
    """Turn every failure of Redis inside the block into MeteringUnavailable."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise MeteringUnavailable from error
