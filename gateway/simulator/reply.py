"""An answer of the simulated model: its tokens, and how they are written whole and as stream chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any, Protocol

FINGERPRINT = "tokencap-simulator"
"""The ``system_fingerprint`` of every answer."""

OPENING = ("This", " answer", " is", " simulated", ":")
SYLLABLES = ("ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wu", "ze")
WORDS = tuple(f" {first}{second}" for first in SYLLABLES for second in SYLLABLES)


class Choice(Protocol):
    """A choice: one of the n answers to a request."""

    @property
    def tokens(self) -> int:
        """The number of its tokens."""

    @property
    def finish(self) -> str:
        """Why it ended: the ``finish_reason``."""

    def deltas(self) -> Iterator[bytes]:
        """Yield the ``delta`` of each token, as JSON of a chat completion."""

    def pieces(self) -> Iterator[str]:
        """Yield the piece of text, or of a tool's arguments, of each token; the first token of a call is its name."""

    def message(self) -> dict[str, Any]:
        """Return the choice as one message."""


@dataclass(frozen=True, slots=True)
class Text:
    """Meaningless words, drawn again for each call so that no two answers end in the same way."""

    tokens: int
    finish: str
    seed: str

    def deltas(self) -> Iterator[bytes]:
        for word in self.pieces():
            yield b'{"content":"%s"}' % word.encode()

    def pieces(self) -> Iterator[str]:
        return islice(self._words(), self.tokens)

    def message(self) -> dict[str, Any]:
        content = "".join(self.pieces())
        return {"role": "assistant", "content": content, "refusal": None}

    def _words(self) -> Iterator[str]:
        yield from OPENING
        draw = Random(self.seed).random  # noqa: S311 - words are no secret
        while True:
            yield WORDS[int(draw() * len(WORDS))]


@dataclass(frozen=True, slots=True)
class Form:
    """Text in the requested form."""

    tokens: int
    finish: str
    text_tokens: tuple[str, ...]

    def deltas(self) -> Iterator[bytes]:
        for piece in self.pieces():
            yield to_json({"content": piece})

    def pieces(self) -> Iterator[str]:
        return islice(self.text_tokens, self.tokens)

    def message(self) -> dict[str, Any]:
        return {"role": "assistant", "content": "".join(self.pieces()), "refusal": None}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one function: the tokens of its arguments, and one for its name."""

    tokens: int
    finish: str
    call_id: str
    name: str
    arguments: tuple[str, ...]

    def deltas(self) -> Iterator[bytes]:
        yield to_json({"tool_calls": [{"index": 0, **self._call("")}]})
        for piece in self.arguments[: self.tokens - 1]:
            yield to_json({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})

    def pieces(self) -> Iterator[str]:
        yield ""
        yield from self.arguments[: self.tokens - 1]

    def message(self) -> dict[str, Any]:
        arguments = "".join(self.pieces())
        return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [self._call(arguments)]}

    def _call(self, arguments: str) -> dict[str, Any]:
        return {"id": self.call_id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


@dataclass(frozen=True, slots=True)
class Reply:
    """Everything that is decided about an answer before its first token."""

    id: str
    created: int
    model: str
    prompt_tokens: int
    choices: tuple[Choice, ...]
    engine: str = "any"
    """The engine whose format the answer is written in, where formats differ."""

    @property
    def steps(self) -> int:
        """The tokens of the longest choice; the choices are generated side by side."""
        return max((choice.tokens for choice in self.choices), default=0)

    def tokens_after(self, step: int) -> int:
        """Return the tokens of all choices once ``step`` tokens of each were generated."""
        return sum(min(step, choice.tokens) for choice in self.choices)

    def usage(self, completion_tokens: int) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    @property
    def counts_apart(self) -> bool:
        """Whether each usage counts one choice only, as llama.cpp does."""
        return self.engine == "llamacpp" and len(self.choices) > 1

    def whole_usage(self) -> dict[str, Any]:
        """Return the usage of an answer that is not streamed: of all its choices, or of the first choice alone."""
        counted = self.choices[:1] if self.counts_apart else self.choices
        return self.usage(sum(choice.tokens for choice in counted))

    def whole(self) -> bytes:
        """Return the answer as one ``chat.completion``."""
        choices = [
            {"index": index, "message": choice.message(), "logprobs": None, "finish_reason": choice.finish}
            for index, choice in enumerate(self.choices)
        ]
        return to_json({**self.head("chat.completion"), "choices": choices, "usage": self.whole_usage()})

    def head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }


class Chunks:
    """Writes one reply as server-sent events, a token an event, strictly in the order of the steps."""

    kind = "chat.completion.chunk"

    def __init__(self, reply: Reply, include_usage: bool, continuous_usage: bool) -> None:
        self._reply = reply
        self._include_usage = include_usage
        self._continuous = continuous_usage
        self._step = 0
        self._open = [(index, choice, choice.deltas()) for index, choice in enumerate(reply.choices)]
        self._head = b"data: " + to_json(reply.head(self.kind))[:-1] + b',"choices":['

    def up_to(self, step: int) -> bytes:
        """Return the events of the steps after the last written step, up to ``step``."""
        events: list[bytes] = []
        while self._step < step:
            self._step += 1
            for index, choice, deltas in self._open:
                if self._step == 1:
                    events.append(self._event(index, b'{"role":"assistant","content":""}', None, 0))
                events.append(self._event(index, next(deltas), None, self._step))
                if self._step == choice.tokens:
                    events.append(self._event(index, b"{}", choice.finish, self._step))
                    if self._reply.counts_apart and self._include_usage:
                        events.append(self._usage(choice.tokens))
            self._open = [entry for entry in self._open if entry[1].tokens > self._step]
        return b"".join(events)

    def ending(self) -> bytes:
        """Return the events after the last token: the usage, where it was requested, and ``[DONE]``."""
        if not self._include_usage or self._reply.counts_apart:
            return b"data: [DONE]\n\n"
        return self._usage(self._reply.tokens_after(self._reply.steps)) + b"data: [DONE]\n\n"

    def _usage(self, tokens: int) -> bytes:
        return self._head + b'],"usage":' + to_json(self._reply.usage(tokens)) + b"}\n\n"

    def _event(self, index: int, delta: bytes, finish: str | None, tokens: int) -> bytes:
        reason = b"null" if finish is None else b'"%s"' % finish.encode()
        choice = b'{"index":%d,%s,"logprobs":null,"finish_reason":%s}]' % (index, self._piece(delta), reason)
        return self._head + choice + self._usage_so_far(tokens) + b"}\n\n"

    def _piece(self, delta: bytes) -> bytes:
        """Return a choice's part of an event, as its format writes it."""
        return b'"delta":' + delta

    def _usage_so_far(self, tokens: int) -> bytes:
        if self._continuous:  # the usage of this chunk's choice alone, as vLLM counts it
            return b',"usage":' + to_json(self._reply.usage(tokens))
        return b',"usage":null' if self._include_usage else b""


def to_json(value: Any) -> bytes:
    """Return JSON in the simulator's form."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
