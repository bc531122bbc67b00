"""The tasks of every client: a new client is a small file in ``clients/`` and a line in ``CLIENTS``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol

MODEL = "aligned-1"
QUESTION = "How long is a piece of string?"
TOOL = "measure"
TOOL_SAYS = "Measure a thing."
RESULT = "3 m"

EXCEPTIONS = {401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError"}
"""The exceptions of OpenAI's and Anthropic's clients."""


@dataclass(frozen=True)
class Where:
    """The gateway's address, and a customer's key."""

    url: str
    key: str


@dataclass(frozen=True)
class Answer:
    """An answer as a client reports it."""

    text: str
    was_cut: bool
    """Whether the client shows that the answer was cut at its cap."""


class Refused(Exception):
    """A client's own exception, by its name, with the status and code that the client reports (None: it keeps none)."""

    def __init__(self, name: str, status: int | None, code: str | None) -> None:
        super().__init__(name, status, code)
        self.name, self.status, self.code = name, status, code


class Late:
    """The ``Client`` of a file in ``clients/``, whose library is loaded at its first use.

    Each process of a run lists the clients, and only one process uses them.
    """

    def __init__(self, file: str, *arguments: Any) -> None:
        self._file, self._arguments = file, arguments

    @cached_property
    def _client(self) -> Client:
        client: Client = import_module(f"tests.conformance.clients.{self._file}").Client(*self._arguments)
        return client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class Client(Protocol):
    """One client, unmodified except for its address and key."""

    endpoint: str
    """The route it speaks to."""
    exceptions: Mapping[int, str]
    """The exception it documents for 401, 404 and 429."""

    def complete(self, where: Where, *, model: str = MODEL) -> Answer:
        """Make a call and return the whole answer."""

    def stream(self, where: Where) -> Answer:
        """Make a call and read its stream."""

    def loop(self, where: Where) -> int:
        """Make calls with a tool, send back each result until the answer is text, and return the number of results."""
