"""What an upstream sends, with the true number of tokens made at each of its bytes, in every shape of a stream."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

from tests.faults.dialects import DIALECTS, Chat, Completions, Messages, Responses
from tests.house.files import ROOT
from tests.wire.transcripts import Sent

FRAME = {"id": "chatcmpl-truth", "object": "chat.completion.chunk", "created": 1, "model": "upstream"}
ERROR = {"error": {"message": "Out of luck.", "type": "server_error", "code": 500}}
PER_CHUNK = (1, 1, 1, 5, 40)
USAGES = ("last", "last", "running", "none")
FAULTS = ("", "", "", "", "", "", "error event", "cut", "reset", "not json", "no done")
TOLD_APART = 0.3
"""The share of answers with hidden reasoning, with visible reasoning, and with a tool call, each drawn separately."""

TEXTS_SAID = ("docs/operator.md", "gateway/serving/journey.py", "LICENSE")
EACH, LONGEST = 2_000, 500
"""How many tokens of each text are used, and the most tokens of an answer with all its choices."""

LIMITS = re.compile(r"max.*tokens|n_predict|num_predict|min_tokens")
CHOICES = ("n", "best_of", "n_cmpl")

TEXTS = {
    Chat.endpoint: "content|reasoning_content|reasoning|reasoning_text|thinking|refusal|arguments",
    Completions.endpoint: "text",
    Responses.endpoint: "delta",
    Messages.endpoint: "text|thinking|partial_json",
}
"""Names of text fields in the events of a stream."""


@dataclass(frozen=True)
class Piece:
    """Bytes that the upstream sends at once, the tokens made by then, and the seconds that passed for this piece."""

    data: bytes
    generated: int
    seconds: float


@dataclass(frozen=True)
class Script:
    """How an upstream answers a call, whoever asks."""

    endpoint: str
    tokens: int
    """Visible tokens of each choice, if no limit is lower."""
    per_chunk: int
    usage: str
    """``last``, ``running``, ``none``."""
    hidden: int
    """Reasoning tokens made first and never shown."""
    thought: int
    """How many of the visible tokens are reasoning."""
    is_call: bool
    fault: str
    at: int
    """Tokens after which the fault happens."""
    tokens_per_s: float
    text: int
    """Where in ``text_pieces()`` its text begins."""


def script(chance: random.Random, endpoint: str) -> Script:
    """Draw a script."""
    tokens = chance.choice((3, 20, 60, 200))
    is_talk = endpoint != Completions.endpoint
    return Script(
        endpoint,
        tokens=tokens,
        per_chunk=chance.choice(PER_CHUNK),
        usage=chance.choice(USAGES),
        hidden=chance.choice((30, 300)) if is_talk and chance.random() < TOLD_APART else 0,
        thought=tokens // 3 if endpoint == Chat.endpoint and chance.random() < TOLD_APART else 0,
        is_call=is_talk and chance.random() < TOLD_APART,
        fault=chance.choice(FAULTS),
        at=chance.randrange(tokens + 1),
        tokens_per_s=50 * chance.lognormvariate(0, 0.2),
        text=chance.randrange(len(TEXTS_SAID)) * EACH + chance.randrange(EACH - LONGEST),
    )


@cache
def text_pieces() -> tuple[str, ...]:
    """Return ``EACH`` tokens of each text in a real vocabulary: prose, code, and a licence with its long words."""
    from bpe_openai import get_encoding  # only here: each process of a run reads this file, and few draw texts

    known, size = get_encoding("o200k_base"), 10_000
    tokens: list[str] = []
    for name in TEXTS_SAID:
        text = (ROOT / name).read_text("ascii", "ignore")
        parts = (known.encode_ordinary(text[place : place + size]) for place in range(0, len(text), size))
        pieces = [known.decode_single_token_bytes(one).decode() for part in parts for one in part]
        assert len(pieces) >= EACH
        tokens += pieces[:EACH]
    return tuple(tokens)


class Upstream:
    """One answer of the upstream to a body; it obeys the largest limit among the body's fields."""

    def __init__(self, script: Script, request: dict[str, Any]) -> None:
        self.script = script
        self._dialect = DIALECTS[script.endpoint]()
        limits = [value for name, value in request.items() if LIMITS.fullmatch(name) and isinstance(value, int)]
        most = max(limits, default=10**9)
        self.choices = max([request.get(name) or 1 for name in CHOICES])
        self._hidden = min(script.hidden, most)
        self._each = min(script.tokens, most - self._hidden)
        self._reason = "length" if script.hidden + script.tokens > most else "tool_calls" if script.is_call else "stop"
        self._streams = bool(request.get("stream"))
        self._made = 0
        self._left = float("inf") if script.fault in ("", "no done") else script.at
        """Tokens of each choice until something goes wrong."""

    @property
    def chunk(self) -> int:
        """The most tokens of a piece."""
        return self.script.per_chunk

    def pieces(self) -> Iterator[Piece]:
        """Yield the pieces; if they stop before the proper end of the answer, the connection breaks there."""
        yield from self._stream() if self._streams else self._whole()

    @property
    def is_reset(self) -> bool:
        return self.script.fault == "reset"

    @property
    def total(self) -> int:
        """Tokens of the whole answer."""
        return (self._hidden + self._each) * self.choices

    @property
    def unseen(self) -> int:
        """Reasoning tokens made before any token is shown."""
        return self._hidden * self.choices

    def had(self, size: int) -> int:
        """Return how many tokens the first ``size`` characters of the stream's text touch."""
        step, shown = self.script.per_chunk, list[str]()
        for place in range(0, self._each, step):
            for index in range(self.choices):
                shown += self._tokens(index)[place : place + step]
        return _begun(shown, size) if size else 0

    def _tokens(self, index: int) -> tuple[str, ...]:
        start = self.script.text + 100 * index
        return text_pieces()[start : start + self._each]

    def _piece(self, data: bytes, tokens: int = 0) -> Piece:
        self._made += tokens
        return Piece(data, self._made, tokens / self.choices / self.script.tokens_per_s)

    def _stream(self) -> Iterator[Piece]:
        for index in range(self.choices):
            yield self._piece(self._event({"choices": [_choice(index, {"role": "assistant", "content": ""})]}))
        for done in range(0, self._hidden, 10):
            now = min(10, self._hidden - done) * self.choices
            yield self._piece(b": still thinking\n\n", now)
        for place in range(0, self._each, self.script.per_chunk):
            if place >= self._left:
                break
            for index in range(self.choices):
                tokens = self._tokens(index)[place : place + self.script.per_chunk]
                delta = self._delta("".join(tokens), place)
                generated = self._hidden + place + len(tokens)  # of this choice alone, as vLLM reports it
                yield self._piece(self._event({"choices": [_choice(index, delta)]}, generated), len(tokens))
        yield from self._end_of_stream()

    def _end_of_stream(self) -> Iterator[Piece]:
        if self.script.fault == "error event":
            yield self._piece(self._dialect.event(ERROR))
        elif self.script.fault == "not json":
            yield self._piece(b"data: {broken\n\n")
        elif self.script.fault not in ("cut", "reset"):
            for index in range(self.choices):
                yield self._piece(self._event({"choices": [_choice(index, {}, self._reason)]}))
            if self.script.usage != "none":
                yield self._piece(self._event({"choices": [], "usage": self._usage(self._made)}))
            if self.script.fault != "no done":
                yield self._piece(self._dialect.done())

    def _whole(self) -> Iterator[Piece]:
        if self.script.fault not in ("", "no done"):
            yield self._piece(json.dumps(ERROR).encode() if self.script.fault == "error event" else b'{"half', 0)
            return
        choices = []
        for index in range(self.choices):
            text = "".join(self._tokens(index))
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if self.script.is_call:
                function = {"name": "f", "arguments": json.dumps({"text": text})}
                message |= {"content": None, "tool_calls": [{"id": "call_a", "type": "function", "function": function}]}
            choices.append({"index": index, "message": message, "finish_reason": self._reason})
        self._made = self.total
        usage = {} if self.script.usage == "none" else {"usage": self._usage(self._made)}
        answer = self._dialect.whole({**FRAME, "object": "chat.completion", "choices": choices, **usage})
        seconds = (self._hidden + self._each) / self.script.tokens_per_s
        raw = json.dumps(answer).encode()
        for part in range(10):
            yield Piece(b"", self._made * part // 10, seconds / 10)
        yield Piece(raw[: len(raw) // 2], self._made, 0)
        yield Piece(raw[len(raw) // 2 :], self._made, 0)

    def _delta(self, text: str, place: int) -> dict[str, Any]:
        if place < self.script.thought:
            return {"reasoning_content": text}
        if not self.script.is_call:
            return {"content": text}
        begun = {} if place else {"id": "call_a", "type": "function"}
        return {"tool_calls": [{"index": 0, **begun, "function": {"name": "f", "arguments": text}}]}

    def _event(self, chunk: dict[str, Any], generated: int = 0) -> bytes:
        running = {"usage": self._usage(generated)} if generated and self.script.usage == "running" else {}
        return self._dialect.event({**FRAME, **chunk, **running})

    def _usage(self, generated: int) -> dict[str, int]:
        return {"prompt_tokens": 7, "completion_tokens": generated, "total_tokens": 7 + generated}


class Played:
    """A transcript with the number of tokens that its own test states."""

    def __init__(self, sent: Sent, total: int, length: int, chance: random.Random) -> None:
        self._sent = sent
        self.total = self.chunk = total
        self.unseen, self.choices = 0, 1
        self.is_reset = not sent.is_whole
        self._length = length
        self._cuts = sorted(chance.randrange(len(sent.body) + 1) for _ in range(8))

    def pieces(self) -> Iterator[Piece]:
        body, places = self._sent.body, [0, *self._cuts, len(self._sent.body)]
        for begin, end in pairwise(places):
            generated = self.total * end // max(len(body), 1)
            yield Piece(body[begin:end], generated, self.total / 50 / len(places))

    def had(self, size: int) -> int:
        """Return how many tokens the first ``size`` characters of the stream's text stand for."""
        return min(-(-self.total * size // max(self._length, 1)), self.total)


def _choice(index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": reason}


def characters(endpoint: str, body: bytes) -> int:
    """Return how many characters of text these bytes of a stream contain, where the last event may be cut."""
    names = TEXTS[endpoint]
    found = re.findall(rf'"(?:{names})": ?"((?:[^"\\]|\\.)*)', body.decode("utf-8", "replace"))
    return sum(map(len, map(_unescaped, found)))


def _unescaped(text: str) -> str:
    for cut in (0, 1, 2, 3, 4, 5):
        try:
            return str(json.loads(f'"{text[: len(text) - cut]}"', strict=False))
        except ValueError:
            continue
    return text


def _begun(tokens: list[str], size: int) -> int:
    """Return how many tokens the first ``size`` characters of a text touch."""
    return sum(before < size for before in accumulate(map(len, tokens[:-1]), initial=0))
