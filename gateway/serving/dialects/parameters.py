"""What a caller's body asks for, in words that every dialect shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Parameters:
    """One request, read."""

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
    conversation: str | None = None
    """The conversation that the body names, in the caller's words."""
    references: tuple[str, ...] = ()
    """Ids of items of earlier answers that the body names in their place."""
    refers: bool = False
    """Whether the upstream is given to read what it kept of this conversation."""
    previous: str | None = None
    """The id of an earlier answer of ours that this call goes on from."""
    history: str = ""
    """What tells this conversation from others, for tool calls of its answer; empty where the body offers no tools."""
    brought_history: str = ""
    """The same as it was when the tool calls were made whose results are brought back."""
    end_user: str | None = None
    """Whom of the customer's own users it is for."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of its request that the upstream is sent."""
    dropped: tuple[str, ...] = ()
    """What was left out of the body, by name: the caller is told."""
    comes_whole: bool = False
    """Whether the upstream is asked for all of the answer at once."""
    counted_apart: bool = False
    """Whether each usage in a stream is that of one choice."""
    runs_apart: bool = False
    """Whether a running usage is that of the one choice beside which it stands."""
    generates: bool = True
    """Whether output tokens can come of it; if not, none are held."""

    @property
    def goes_on(self) -> bool:
        """Whether the body has anything to tell its conversation by."""
        return bool(
            self.tool_results
            or self.brought_back
            or self.references
            or self.conversation is not None
            or self.previous is not None
        )
