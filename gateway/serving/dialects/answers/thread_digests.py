"""Threads: digests of parts of an answer, made with the caller's key, by which a later call finds its conversation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

TAIL_CHARACTERS = 200
"""The number of characters at an answer's end that are compared; a shorter answer is compared whole."""

RANDOM_PART = re.compile(r"[A-Za-z0-9]{16,}")
"""A part of an id that may be globally unique; ``is_random`` checks how letters and digits are mixed."""

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)


def is_random(call: str) -> bool:
    """Return whether the id of a tool call looks globally unique, so that the id alone is evidence.

    Counters (``functions.search:0``), names, times and short ids are not.
    """
    if UUID.search(call):
        return True
    part = max(RANDOM_PART.findall(call), key=len, default="")
    digits = sum(character.isdigit() for character in part)
    return digits >= 2 and len(part) - digits >= 2 and not part.rstrip("0123456789").isalpha()


def of_tool_call(call: str, secret: bytes, history: str = "") -> str:
    """Return the thread of a tool call by its id, and unless the id is random also by the user's texts before it."""
    return _digest(b"tool", call if is_random(call) else f"{call}\n{history}", secret)


def of_answer(text: str, secret: bytes) -> str:
    """Return the thread of an answer by the end of its text, without white space at the very end."""
    return _digest(b"tail", text.rstrip()[-TAIL_CHARACTERS:], secret)


def of_answer_id(answer_id: str, secret: bytes) -> str:
    """Return the thread of an answer by its id, which a later call may name."""
    return _digest(b"answer", answer_id, secret)


def of_item(item: str, secret: bytes) -> str:
    """Return the thread of an item of an answer by its id, which a later call may refer to."""
    return _digest(b"item", item, secret)


def threads(tool_calls: Iterable[str], answers: Iterable[str], secret: bytes, history: str = "") -> tuple[str, ...]:
    """Return the threads of tool calls, then of answers."""
    calls = (of_tool_call(call, secret, history) for call in tool_calls)
    return (*calls, *(of_answer(text, secret) for text in answers))


def of_session(name: str, secret: bytes) -> str:
    """Return the conversation of a client's session whose name is not a valid conversation id."""
    return _digest(b"session", name, secret)


def _digest(kind: bytes, text: str, secret: bytes) -> str:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), key=secret, person=kind, digest_size=16)
    return f"{kind.decode()}-{digest.hexdigest()}"
