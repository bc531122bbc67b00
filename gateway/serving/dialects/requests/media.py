"""Bounds a body's input tokens: text by its bytes; images, audio and files by their kind and size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.serving.upstream.profiles import MediaBounds

Block = dict[str, Any]

DEPTH_MOST = 4
"""The deepest nesting of blocks that is searched: a tool's result has its own blocks."""

KINDS = {"image": "image", "screenshot": "image", "audio": "audio", "video": "file", "file": "file", "document": "file"}
"""The kind of a block, by a word in its type; a container's upload is a file too."""

CARRIERS = frozenset({"data", "file_data", "image_embeds"})
"""Fields that carry their content in base64, with or without ``data:`` before it."""

REFERENCES = frozenset({"url", "file_url", "image_url", "video_url", "audio_url", "file_id", "id"})

BASE64_BYTES, BASE64_CHARACTERS = 3, 4


class Measured:
    """The bytes of a body that are text, and the most tokens that its other content can have."""

    def __init__(self, size: int, bounds: MediaBounds) -> None:
        self._bytes = size
        self._tokens = 0
        self._bounds = bounds

    @property
    def bound(self) -> int:
        """The most input tokens that the body can have: a token of text has at least one byte."""
        return self._bytes + self._tokens

    @property
    def estimate(self) -> int:
        """The likely number of input tokens: a quarter of the bound."""
        return -(-(self._bytes + self._tokens) // 4)

    def take(self, messages: Any) -> Measured:
        """Count the media in messages or items as media, not as text."""
        if isinstance(messages, list):
            for block in _media(messages, DEPTH_MOST):
                self._count(block, _kind(block) or "file")
        return self

    def refer(self) -> Measured:
        """Add the most tokens of content that is stored only at the upstream."""
        self._tokens += self._bounds.kept_tokens_max
        return self

    def _count(self, block: Block, kind: str) -> None:
        carried = sum(len(text) for text in _carried(block))
        self._bytes -= min(carried, self._bytes)
        size = carried * BASE64_BYTES // BASE64_CHARACTERS
        file_tokens_max = self._bounds.file_tokens_max
        if kind == "image":
            self._tokens += self._bounds.image_tokens_max
        elif not carried:
            self._tokens += file_tokens_max
        elif kind == "audio":
            self._tokens += min(-(-size * self._bounds.audio_tokens_per_kb // 1000), file_tokens_max)
        else:
            self._tokens += min(size, file_tokens_max)


def _kind(block: Block) -> str | None:
    kind = block.get("type")
    if not isinstance(kind, str) or kind in ("text", "input_text", "output_text"):
        return None
    if kind == "container_upload":
        return "file"
    return next((KINDS[word] for word in KINDS if word in kind), None)


def _media(blocks: list[Any], depth: int) -> Iterator[Block]:
    """Yield the blocks that carry media or refer to media, at each place where messages and items can have them."""
    for block in blocks:
        if not isinstance(block, dict):
            continue
        if "type" in block and _kind(block) is not None and _is_medium(block):
            yield block
            continue
        for name in ("content", "output"):
            if not depth or name not in block:
                continue
            inner = block[name]
            if isinstance(inner, list):
                yield from _media(inner, depth - 1)
            elif isinstance(inner, dict):
                yield from _media([inner], depth - 1)


def _is_medium(block: Block) -> bool:
    """Return whether a block contains more than text: a document may be only text."""
    return any(True for _ in _carried(block)) or _refers(block)


def _carried(part: Any, name: str = "") -> Iterator[str]:
    """Yield the content that a part carries in base64."""
    if isinstance(part, str):
        if part.startswith("data:") or name in CARRIERS:
            yield part
    elif isinstance(part, dict) and part.get("type") != "text":
        for inner, value in part.items():
            if inner not in ("content", "cache_control"):
                yield from _carried(value, inner)


def _refers(part: Block) -> bool:
    return any(
        (name in REFERENCES and isinstance(value, str) and not value.startswith("data:"))
        or (isinstance(value, dict) and name != "cache_control" and _refers(value))
        for name, value in part.items()
    )
