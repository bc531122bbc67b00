"""Where the model's endpoint is, and what every request there carries: a query behind its path, headers, the house's key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

BEARER = "authorization"
"""The header in which a key is sent as OpenAI's clients do; in any other it stands alone."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address below which routes are, such as ``https://host/v1?api-version=1``."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """The key and what the operator adds, by lower-case names."""

    @classmethod
    def of(
        cls, url: str, key: str | None = None, key_header: str = BEARER, more: Mapping[str, str] | None = None
    ) -> Endpoint:
        shown = {} if key is None else {key_header: f"Bearer {key}" if key_header == BEARER else key}
        return cls(url, {**shown, **(more or {})})

    @property
    def query(self) -> str:
        return urlsplit(self.url).query

    def at(self, path: str) -> str:
        """Return the URL of a route: ``/models``."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))

    def beside(self, path: str) -> str:
        """Return the URL of a route that stands beside the endpoint's ``/v1``: ``/tokenize``."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/").removesuffix("/v1") + path))
