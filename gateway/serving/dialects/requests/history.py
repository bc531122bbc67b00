"""What a conversation's user said first and last: tells conversations apart whose tool calls have the same ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SAID_CHARACTERS = 1000
"""How much of what was said is looked at, beside its length."""


def history_of(messages: list[dict[str, Any]]) -> str:
    """Return the beginnings of the first and the last of a user's texts."""
    return f"{_first(messages)}\n{_first(reversed(messages))}"


def _first(messages: Iterable[dict[str, Any]]) -> str:
    for message in messages:
        if message.get("role") == "user" and (text := _text(message.get("content"))):
            return f"{len(text)} {text[:SAID_CHARACTERS]}"
    return ""


def _text(content: Any) -> str:
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
