"""The request in a caller's body, in terms that all dialects share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Parameters:
    """One parsed request."""

    model: str
    """The model's name in the caller's body; the answer has the same name."""
    requested_tokens: int | None
    choices: int
    stream: bool
    shows_usage: bool
    """Whether a stream for the caller has the usage."""
    tool_results: tuple[str, ...]
    """Ids of the tool calls whose results the body brings back, newest first."""
    resent_answer: str | None
    """The text of the model's last answer, where the body brings the text back."""
    input_bound: int
    input_estimate: int
    conversation: str | None = None
    """The conversation as the body names it."""
    references: tuple[str, ...] = ()
    """Ids of items of earlier answers, where the body has the ids in place of the items."""
    refers: bool = False
    """Whether the upstream adds to the prompt earlier parts of the conversation that it has stored."""
    previous: str | None = None
    """The id of the earlier answer that this call continues."""
    history: str = ""
    """Identifies the conversation for the answer's tool calls; empty where the body has neither tools nor results."""
    resent_history: str = ""
    """The ``history`` at the time of the tool calls whose results the body brings back."""
    end_user: str | None = None
    """The end user that the call is for."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the request that are sent to the upstream."""
    dropped: tuple[str, ...] = ()
    """Names of the parts left out of the body; a header of the answer lists the names."""
    comes_whole: bool = False
    """Whether the upstream is asked for a whole answer, not for a stream."""
    counted_apart: bool = False
    """Whether each usage in a stream counts only one choice."""
    runs_apart: bool = False
    """Whether a running usage counts only the choice in the same chunk."""
    generates: bool = True
    """Whether the call can produce output tokens; if not, no output tokens are held."""

    def may_name_conversation(self) -> bool:
        """Return whether the body has anything that can identify its conversation."""
        return bool(
            self.tool_results
            or self.resent_answer
            or self.references
            or self.conversation is not None
            or self.previous is not None
        )
