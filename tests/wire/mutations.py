"""Random mutations of transcripts: events dropped, doubled and moved, fields nulled, retyped and removed, bytes cut."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from tests.wire.transcripts import Transcript

MOST = 3
"""The most mutations of one transcript."""

KINDS = ("drop", "double", "move", "field", "field", "field", "insert")
WHOLE = 0.2
"""The share of cases with a whole answer, among transcripts that have one."""

CAPS = (1, 2, 3, 5, 10_000, 10_000, 10_000)
VALUES: tuple[Callable[[Any], Any], ...] = (
    lambda value: None,
    lambda value: "",
    lambda value: "x",
    lambda value: 0,
    lambda value: -1,
    lambda value: 3,
    lambda value: 2**70,
    lambda value: 1.5,
    lambda value: True,
    lambda value: [],
    lambda value: {},
    lambda value: [value],
    lambda value: {"x": value},
    str,
    lambda value: "\ud83d",
)
INSERTED = (
    ": a comment",
    "event: error",
    "data: {}",
    "data: []",
    "data: x",
    'data: {"error": {"message": "No."}}',
    "id: 1",
)


@dataclass(frozen=True)
class Mutated:
    """One case: what the upstream sends, how it is cut, and how many tokens are granted."""

    transcript: Transcript
    events: tuple[str, ...]
    """The events of the stream, without the empty lines between them."""
    end: int | None
    """How many bytes of the stream are sent; None sends all."""
    is_whole: bool
    """Whether the connection stays open until those bytes are sent."""
    cuts: tuple[int, ...]
    """Where pieces begin."""
    most: int
    """The most tokens of each choice."""
    retyped: bool
    """Whether a field was changed: it may have a wrong type, or be missing."""

    @property
    def is_stream(self) -> bool:
        return not (self.events and self.events[0].startswith("{"))

    @property
    def shown(self) -> str:
        """The case as text, for the person who fixes the breach."""
        body = self.body.decode("utf-8", "replace")
        return f"{body}[cuts {self.cuts}, whole {self.is_whole}, most {self.most}]"

    @property
    def body(self) -> bytes:
        return "".join(f"{event}\n\n" for event in self.events).encode("utf-8", "surrogatepass")[: self.end]

    @property
    def pieces(self) -> tuple[bytes, ...]:
        body = self.body
        places = [0, *(cut for cut in self.cuts if cut < len(body)), len(body)]
        return tuple(body[begin:end] for begin, end in pairwise(places) if begin < end)


@cache
def events_of(body: bytes) -> tuple[str, ...]:
    return tuple(part for part in body.decode().strip("\n").split("\n\n") if part)


def mutated(transcript: Transcript, chance: random.Random) -> Mutated:
    """Return a transcript's stream, or now and then its whole answer, mutated."""
    assert transcript.streamed is not None
    events, retyped, kinds = list(events_of(transcript.streamed.body)), False, KINDS
    if transcript.whole is not None and transcript.whole.status == 200 and chance.random() < WHOLE:
        events, kinds = [transcript.whole.body.decode()], ("field",)
    for _ in range(chance.randint(1, MOST)):
        kind = chance.choice(kinds)
        if not events:
            break
        place = chance.randrange(len(events))
        if kind == "drop":
            del events[place]
        elif kind == "double":
            events.insert(place, events[place])
        elif kind == "move":
            events.insert(chance.randrange(len(events)), events.pop(place))
        elif kind == "insert":
            events.insert(place, chance.choice(INSERTED))
        else:
            events[place], retyped = _with_a_field_changed(events[place], chance), True
    size = sum(map(len, events)) + 2 * len(events)
    is_cut = chance.random() < 0.15
    cuts = tuple(sorted(chance.randrange(size + 1) for _ in range(chance.randint(0, 8))))
    return Mutated(
        transcript,
        tuple(events),
        chance.randrange(size + 1) if is_cut else None,
        not is_cut or chance.random() < 0.5,
        cuts,
        chance.choice(CAPS),
        retyped,
    )


def _with_a_field_changed(event: str, chance: random.Random) -> str:
    begin, found, data = ("", "", event) if event.startswith("{") else event.rpartition("data: ")
    try:
        data = json.loads(data)
    except ValueError:
        return event
    places = list(_places(data))
    if not places:
        return event
    holder, name = chance.choice(places)
    if chance.random() < 0.3:
        del holder[name]
    else:
        holder[name] = chance.choice(VALUES)(holder[name])
    return f"{begin}{found}{json.dumps(data, separators=(',', ':'))}"


def _places(value: Any) -> Any:
    """Yield every field and every item, as its container and its name or index."""
    for name in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, name
        yield from _places(value[name])
