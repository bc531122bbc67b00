"""What a wire format has to say for itself, so that routes, holds and metering know none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from gateway.serving.body import Body
from gateway.serving.meter import Sight


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller's body asks for, in words that every dialect shares."""

    model: str
    """The name the caller used; the answer carries it."""
    requested_tokens: int | None
    choices: int
    stream: bool
    shows_usage: bool
    """Whether a streaming caller asked to see the usage."""
    tool_results: tuple[str, ...]
    """Tool calls whose results the caller brings back, newest first."""
    brought_back: str | None
    """The text of the model's last answer, where the caller brings one back."""
    input_bound: int
    input_estimate: int


class Reading(Protocol):
    """One answer as it comes in: counted, cut at the grant, and turned into what the caller may see."""

    tool_calls: list[str]
    """Ids of the tool calls in the answer."""
    ended_by_itself: bool
    """Whether the upstream brought the answer to its end."""

    @property
    def sight(self) -> Sight:
        """What went by so far, and what the upstream said of it."""

    @property
    def tails(self) -> list[str]:
        """The ends of the texts of its choices."""

    @property
    def uses_whole_grant(self) -> bool:
        """Whether a choice has had all that it was granted."""

    @property
    def is_over(self) -> bool:
        """Whether nothing that may still come is wanted."""

    @property
    def reasons(self) -> list[str]:
        """How each choice that has ended did."""

    def feed(self, data: bytes) -> bytes:
        """Take one event's data and return the bytes for a streaming caller, often none."""

    def feed_whole(self, answer: Any) -> bytes:
        """Take an answer that came whole, not as a stream."""

    def close(self) -> None:
        """Take note that the upstream has no more bytes."""

    def ending(self, billed: int, charge_nanousd: int | None, conversation_left: int | None) -> bytes:
        """Return the last bytes of a stream."""

    def whole(self, billed: int) -> Any:
        """Return the answer for a caller who does not stream."""


class Dialect(Protocol):
    """One wire format."""

    endpoint: str
    """The route, as records name it: ``/v1/chat/completions``."""
    path: str
    """The same below the upstream's URL: ``/chat/completions``."""

    def read(self, body: Body, size: int) -> Wanted:
        """Return what a body of ``size`` bytes asks for, or raise BadRequest naming the field."""

    def forward(self, body: Body, wanted: Wanted, *, grant: int, model: str) -> bytes:
        """Return the body for the upstream: what may pass, and the grant in every limit field."""

    def reading(self, wanted: Wanted, *, grant: int) -> Reading:
        """Return a reader of one answer."""
