"""What of an answer leads a later call back to its conversation: digests that only the caller's key can make."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

TAIL_CHARACTERS = 200
"""How much of an answer's end is looked at; a shorter answer is looked at whole."""


def of_tool_call(call: str, secret: bytes) -> str:
    """Return the thread of a tool call by its id."""
    return _digest(b"tool", call, secret)


def of_answer(text: str, secret: bytes) -> str:
    """Return the thread of an answer by the end of its text; spaces at the very end do not count."""
    return _digest(b"tail", text.rstrip()[-TAIL_CHARACTERS:], secret)


def of_answer_id(answer_id: str, secret: bytes) -> str:
    """Return the thread of an answer by the id that a later call may name."""
    return _digest(b"answer", answer_id, secret)


def threads(tool_calls: Iterable[str], answers: Iterable[str], secret: bytes) -> tuple[str, ...]:
    """Return the threads of tool calls, then of answers."""
    calls = (of_tool_call(call, secret) for call in tool_calls)
    return (*calls, *(of_answer(text, secret) for text in answers))


def _digest(kind: bytes, text: str, secret: bytes) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), key=secret, person=kind, digest_size=16).hexdigest()
