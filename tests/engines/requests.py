"""One call in any format, in the forms for the engine and for the gateway."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gateway.serving.upstream.profiles import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tests.engines.engines import LENGTH, MODEL

LIMITS = {CHAT: "max_tokens", COMPLETIONS: "max_tokens", RESPONSES: "max_output_tokens", MESSAGES: "max_tokens"}
NEEDED = 4096
"""Messages must have a limit; no answer here comes near this limit."""

LIKELIEST = {"temperature": 1, "top_k": 1}
"""Parameters with the same tokens as temperature 0, at which vLLM makes only one choice."""

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Rome"]}, "now": {"type": "boolean"}},
    "required": ["city", "now"],
    "additionalProperties": False,
}
"""The schema of arguments that any model completes, if its output is constrained to them."""

FUNCTION = {"name": "get_weather", "description": "The weather", "parameters": SCHEMA}
TOOLS: dict[str, dict[str, Any]] = {
    CHAT: {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required"},
    RESPONSES: {"tools": [{"type": "function", **FUNCTION}], "tool_choice": "required"},
    MESSAGES: {
        "tools": [{"name": FUNCTION["name"], "description": FUNCTION["description"], "input_schema": SCHEMA}],
        "tool_choice": {"type": "any"},
    },
}


@dataclass(frozen=True)
class EngineRequest:
    """A call. ``limit`` is the caller's own, ``cap`` is the tier's; engines refuse some calls as too long."""

    endpoint: str
    prompt: str
    stream: bool = False
    n: int = 1
    limit: int | None = None
    cap: int | None = None
    tools: bool = False
    may_be_refused: bool = False

    def __str__(self) -> str:
        shown = [self.endpoint, "streamed" if self.stream else "whole", f"n {self.n}"]
        shown += [f"limit {self.limit}"] if self.limit is not None else []
        shown += [f"cap {self.cap}"] if self.cap is not None else []
        return ", ".join([*shown, *(["tools"] if self.tools else []), repr(self.prompt[:20])])

    @property
    def grant(self) -> int | None:
        """The grant of each choice, or None without a limit and a cap."""
        bounds = [self.limit] if self.limit is not None else []
        bounds += [self.cap // self.n] if self.cap is not None else []
        return min(bounds, default=None)

    def of_the_engine(self) -> EngineRequest:
        """Return the same call for the engine itself, limited to the grant."""
        return replace(self, limit=LENGTH if self.grant is None else self.grant, cap=None)

    def body(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"model": MODEL, "temperature": 0, "stream": self.stream}
        limit = NEEDED if self.limit is None and self.endpoint == MESSAGES else self.limit
        shown |= {} if limit is None else {LIMITS[self.endpoint]: limit}
        shown |= {"n": self.n, **LIKELIEST} if self.n > 1 else {}
        shown |= TOOLS[self.endpoint] if self.tools else {}
        if self.stream and self.endpoint in (CHAT, COMPLETIONS):
            shown["stream_options"] = {"include_usage": True}
        messages = [{"role": "user", "content": self.prompt}]
        if self.endpoint in (CHAT, MESSAGES):
            return {**shown, "messages": messages}
        return {**shown, "prompt" if self.endpoint == COMPLETIONS else "input": self.prompt}
