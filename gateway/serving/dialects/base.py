"""The interface of a dialect: it keeps routes, holds and metering independent of any wire format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gateway.errors import TokencapError
from gateway.serving.caller.json_body import Body
from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.dialects.requests.prompt import Prompt


class Dialect(Protocol):
    """One wire format."""

    endpoint: str
    """The route, as records name it, for example ``/v1/chat/completions``."""
    path: str
    """The route's path below the upstream's URL, for example ``/chat/completions``."""
    id_headers: tuple[bytes, ...]
    """Response headers that carry the gateway's id of the request."""
    headers: Mapping[str, str]
    """Headers that are sent to the upstream with the body."""

    keep_alive: bytes
    """Bytes that keep a streaming caller's connection alive during a long silence and change no answer."""

    def read(self, body: Body, size: int) -> Parameters:
        """Return what a body of ``size`` bytes requests, or raise BadRequest naming the field."""

    def prompt(self, body: Body) -> Prompt | None:
        """Return the text of the prompt, or None where not all of it is text."""

    def forward(self, body: Body, request: Parameters, *, grant: int, model: str) -> bytes:
        """Return the body for the upstream: the fields that may pass, and the grant in every limit field."""

    def reading(self, request: Parameters, *, grant: int) -> Reading:
        """Return a reader of one answer."""

    def refusal(self, error: TokencapError, request_id: str) -> Any:
        """Return the JSON of an error as clients of this format expect it."""

    def broken_off(self, error: TokencapError, request_id: str) -> bytes:
        """Return the event with an error that ends a stream which has begun."""
