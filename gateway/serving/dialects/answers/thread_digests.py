"""Threads: digests of parts of an answer, made with the caller's key, that lead a later call to its conversation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

TAIL_CHARACTERS = 200
"""The characters of an answer's end that are compared; a shorter answer is compared whole."""

RANDOM_PART = re.compile(r"[A-Za-z0-9]{16,}")
"""The parts of an id that is unique in the world; ``is_random`` checks how letters and digits are mixed."""

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)


def is_random(call: str) -> bool:
    """Return whether the id of a tool call looks unique in the world, and so is evidence by itself.

    Counters (``functions.search:0``), names, times and short ids are not.
    """
    if UUID.search(call):
        return True
    part = max(RANDOM_PART.findall(call), key=len, default="")
    digits = sum(character.isdigit() for character in part)
    return digits >= 2 and len(part) - digits >= 2 and not part.rstrip("0123456789").isalpha()


def of_tool_call(call: str, secret: bytes, history: str = "") -> str:
    """Return the thread of a tool call by its id, and by the user's words before it where the id is not random."""
    return _digest(b"tool", call if is_random(call) else f"{call}\n{history}", secret)


def of_answer(text: str, secret: bytes) -> str:
    """Return the thread of an answer by the end of its text; spaces at the very end do not count."""
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
    """Return the conversation of a client's session whose name is no valid conversation id."""
    return _digest(b"session", name, secret)


def _digest(kind: bytes, text: str, secret: bytes) -> str:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), key=secret, person=kind, digest_size=16)
    return f"{kind.decode()}-{digest.hexdigest()}"
