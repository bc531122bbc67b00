"""Where a Redis URL leads: to a socket of this machine or a host, in clear or over TLS, and under which user."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio.connection import RedisSSLContext, parse_url

Words = tuple[bytes | str | int, ...]

_TLS = "ssl_"


@dataclass(frozen=True, slots=True)
class Address:
    """One server; ``introduction`` has the commands that a new connection begins with."""

    path: str | None
    host: str
    port: int
    tls: ssl.SSLContext | None
    introduction: tuple[Words, ...]

    async def open(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Connect; an OSError names the reason of a failure."""
        loop = asyncio.get_running_loop()
        if self.path is not None:
            await loop.create_unix_connection(protocol, self.path)
        else:
            await loop.create_connection(protocol, self.host, self.port, ssl=self.tls)


def address_of(url: str) -> Address:
    """Return the address of ``redis://``, ``rediss://`` or ``unix://``, with the options that redis-py reads there.

    Raises:
        ValueError: the URL has none of the three schemes.
    """
    url_options: dict[str, Any] = dict(parse_url(url))
    user, password, database = url_options.get("username"), url_options.get("password"), int(url_options.get("db") or 0)
    introduction: list[Words] = []
    if password is not None:
        introduction.append(("AUTH", password) if user is None else ("AUTH", user, password))
    if database:
        introduction.append(("SELECT", database))
    return Address(
        url_options.get("path"),
        url_options.get("host", "localhost"),
        url_options.get("port", 6379),
        _tls(url_options) if url.startswith("rediss://") else None,
        tuple(introduction),
    )


def _tls(url_options: dict[str, Any]) -> ssl.SSLContext:
    """Return the TLS context that redis-py creates from the ``ssl_`` options; only they can turn verification off."""
    options: dict[str, Any] = {"cert_reqs": "required", "check_hostname": True}
    options |= {name.removeprefix(_TLS): value for name, value in url_options.items() if name.startswith(_TLS)}
    return RedisSSLContext(**options).get()
