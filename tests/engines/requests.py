"""What is asked: one call, in any format, as the engine and the gateway are both asked it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gateway.serving.upstream.profiles import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tests.engines.engines import LENGTH, MODEL

LIMITS = {CHAT: "max_tokens", COMPLETIONS: "max_tokens", RESPONSES: "max_output_tokens", MESSAGES: "max_tokens"}
NEEDED = 4096
"""Messages have to carry a limit: one that nothing here comes near."""

LIKELIEST = {"temperature": 1, "top_k": 1}
"""The same tokens as at temperature 0, at which vLLM makes one choice only."""

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Rome"]}, "now": {"type": "boolean"}},
    "required": ["city", "now"],
    "additionalProperties": False,
}
"""Of arguments that any model ends, once it is held to them."""

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
    """A call. ``limit`` is its caller's own, ``cap`` that of its customer's tier; engines refuse some as too long."""

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
        """Return what each choice has to be granted, where anything here says it."""
        bounds = [self.limit] if self.limit is not None else []
        bounds += [self.cap // self.n] if self.cap is not None else []
        return min(bounds, default=None)

    def of_the_engine(self) -> EngineRequest:
        """Return the same call as the engine itself is asked it, held to what has to be granted."""
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
