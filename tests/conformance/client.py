"""What every client is asked to do, so that adding one is a small file beside the others and a line in ``clients``."""

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
"""What the clients of OpenAI and Anthropic raise."""


@dataclass(frozen=True)
class Where:
    """The gateway as its customers are told of it."""

    url: str
    key: str


@dataclass(frozen=True)
class Answer:
    """What a client makes of an answer."""

    text: str
    was_cut: bool
    """Whether the client can tell that it was cut at its cap."""


class Refused(Exception):
    """A client's own exception, by its name, with the status and code that the client reports (None: it keeps none)."""

    def __init__(self, name: str, status: int | None, code: str | None) -> None:
        super().__init__(name, status, code)
        self.name, self.status, self.code = name, status, code


class Late:
    """The ``Client`` of a file beside, whose library is loaded at its first use.

    Each process of a run reads which clients there are, and one of them uses them.
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
    """One client, unmodified but for its address and key."""

    endpoint: str
    """The route it speaks to."""
    exceptions: Mapping[int, str]
    """The exception it documents for 401, 404 and 429."""

    def complete(self, where: Where, *, model: str = MODEL) -> Answer:
        """Ask and wait for all of the answer."""

    def stream(self, where: Where) -> Answer:
        """Ask and read the answer as it comes."""

    def loop(self, where: Where) -> int:
        """Ask with a tool, bring back each result until there are words, and return how many there were."""
