"""What a caller's body requests, in terms that every dialect shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Parameters:
    """One parsed request."""

    model: str
    """The name the caller used; the answer carries it."""
    requested_tokens: int | None
    choices: int
    stream: bool
    shows_usage: bool
    """Whether a streaming caller wants the usage."""
    tool_results: tuple[str, ...]
    """Tool calls whose results the caller brings back, newest first."""
    resent_answer: str | None
    """The text of the model's last answer, where the caller brings it back."""
    input_bound: int
    input_estimate: int
    conversation: str | None = None
    """The conversation that the body names, in the caller's words."""
    references: tuple[str, ...] = ()
    """Ids of items of earlier answers that the body names in their place."""
    refers: bool = False
    """Whether the upstream reads again what it keeps of this conversation."""
    previous: str | None = None
    """The id of the earlier answer that this call continues."""
    history: str = ""
    """What identifies this conversation for the tool calls of its answer; empty where the body offers no tools."""
    resent_history: str = ""
    """The same, at the time of the tool calls whose results are brought back."""
    end_user: str | None = None
    """The end user that the call is for."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the request that the upstream is sent."""
    dropped: tuple[str, ...] = ()
    """Names of what was left out of the body: the answer's header lists them."""
    comes_whole: bool = False
    """Whether the upstream is asked for a whole answer."""
    counted_apart: bool = False
    """Whether each usage in a stream is of one choice."""
    runs_apart: bool = False
    """Whether a running usage is of the one choice beside it."""
    generates: bool = True
    """Whether the call can produce output tokens; if not, none are held."""

    def may_name_conversation(self) -> bool:
        """Return whether the body has anything that may identify its conversation."""
        return bool(
            self.tool_results
            or self.resent_answer
            or self.references
            or self.conversation is not None
            or self.previous is not None
        )
