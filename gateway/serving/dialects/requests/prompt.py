"""Collects the text of a prompt, which a tokenizer counts where the upstream does not report the input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gateway.serving.dialects.answers.stream import NO_TEXT
from gateway.serving.json_codec import dumps

NOT_TEXT = frozenset(
    {
        *("image_url", "image", "input_audio", "audio", "video_url", "file", "file_id", "file_data", "file_url"),
        *("source", "encrypted_content"),
    }
)
"""Fields with content that is not text: no tokenizer can count its tokens."""

DEPTH_MOST = 64


@dataclass(slots=True)
class Prompt:
    """What the model reads: texts, and the number of tokens that the body has as token ids."""

    texts: list[str] = field(default_factory=list)
    tokens: int = 0

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


class _NotText(Exception):
    """The prompt contains something other than text."""


def prompt_of(parts: Iterable[Any], tools: Any = None) -> Prompt | None:
    """Return the prompt in these fields of a body, with the tools as JSON; None where not all of the prompt is text."""
    prompt = Prompt()
    try:
        for part in parts:
            _gather(prompt, part, DEPTH_MOST)
    except _NotText:
        return None
    if tools:
        prompt.texts.append(dumps(tools).decode())
    return prompt


def _gather(prompt: Prompt, part: Any, depth: int) -> None:
    if depth == 0:
        raise _NotText
    if isinstance(part, str):
        prompt.texts.append(part)
    elif isinstance(part, list):
        for inner in part:
            _gather(prompt, inner, depth - 1)
    elif isinstance(part, dict):
        if any(part.get(name) is not None for name in NOT_TEXT):
            raise _NotText
        for name, value in part.items():
            if name not in NO_TEXT:
                _gather(prompt, value, depth - 1)
    elif isinstance(part, int) and not isinstance(part, bool):
        prompt.tokens += 1
