"""The upstream's endpoint: its address, the headers of every request, the names of its model, and JSON from it."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from gateway.serving.json_codec import loads

BEARER = "authorization"
"""The header in which ``Bearer`` precedes the key, as with OpenAI's clients; any other header has the key alone."""


@dataclass(frozen=True)
class Endpoint:
    """The address of the upstream's routes, such as ``https://host/v1?api-version=1``."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """The header with the key, and the operator's headers, by lower-case names."""

    @classmethod
    def of(
        cls, url: str, key: str | None = None, key_header: str = BEARER, more: Mapping[str, str] | None = None
    ) -> Endpoint:
        key_headers = {} if key is None else {key_header: f"Bearer {key}" if key_header == BEARER else key}
        return cls(url, {**key_headers, **(more or {})})

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """The context that verifies the endpoint's certificate. Only ``https`` reads the authorities, which takes 20 ms."""
        is_tls = urlsplit(self.url).scheme == "https"
        return httpx.create_ssl_context(trust_env=False) if is_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    @property
    def query(self) -> str:
        return urlsplit(self.url).query

    def at(self, path: str) -> str:
        """Return the URL of a route such as ``/models``."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))

    def beside(self, path: str) -> str:
        """Return the URL of a route such as ``/tokenize``, a sibling of the endpoint's ``/v1``."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/").removesuffix("/v1") + path))


async def json_of(client: httpx.AsyncClient, request: httpx.Request, most: int) -> Any:
    """Send a request and return the JSON of its answer.

    Raises:
        httpx.HTTPError: there is no answer, or its status is not 2xx.
        ValueError: the answer is not JSON, or has more than ``most`` bytes.
    """
    request.headers["accept-encoding"] = "identity"
    answer = await client.send(request, stream=True)
    try:
        answer.raise_for_status()
        raw = bytearray()
        async for chunk in answer.aiter_raw():
            raw += chunk
            if len(raw) > most:
                raise ValueError("the answer is too long")
    finally:
        await answer.aclose()
    return loads(bytes(raw))


OPEN = "*"
"""The end of a pattern that matches all names with its beginning, such as ``claude-*``."""


class Names:
    """A set of names and patterns such as ``claude-*``. Iteration yields only the names."""

    __slots__ = ("_beginnings", "_whole")

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self._whole = frozenset(name for name in names if not name.endswith(OPEN))
        self._beginnings = tuple(name.removesuffix(OPEN) for name in names if name.endswith(OPEN))

    def __contains__(self, name: str) -> bool:
        return name in self._whole or name.startswith(self._beginnings)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._whole))
