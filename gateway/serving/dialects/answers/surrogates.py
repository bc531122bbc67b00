"""Characters whose two halves come in two pieces: the first half is held back until the second comes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gateway.serving.dialects.answers.assembly import GROWN
from gateway.serving.json_codec import whole_characters

HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
"""Half of a surrogate pair in JSON, perhaps with its other half."""

NUMBERS = ("index", "output_index", "content_index", "summary_index")
NAMES = (*NUMBERS, "item_id")
KEPT = frozenset({*NAMES, "type", "id", "object", "created", "model"})
"""The fields of an event that tell where its text belongs."""

TEXTS = GROWN | {"delta", "partial_json"}
UNKNOWN = "\N{REPLACEMENT CHARACTER}"

ENDS = re.compile(
    r"content_block_stop|message_(?:delta|stop)|response\.(?:completed|incomplete|failed|cancelled)|.*\.done"
)
"""Events after which no text follows in the place that they name, or anywhere where they name none."""

Event = dict[str, Any]
Place = tuple[Any, ...]
Around = Callable[[Any], Any]
"""Makes an event of a text."""


class Halves:
    """The halves held back of each text, by the text's place in its events."""

    def __init__(self) -> None:
        self.held: dict[Place, tuple[str, Around]] = {}

    def joined(self, event: Event) -> Event:
        """Return an event with whole characters only; a half without its other half becomes U+FFFD."""
        kind = event.get("type")
        holds = not isinstance(kind, str) or kind.endswith("delta")
        mended: Event = self._mended(event, (str(kind),), (lambda inner: inner) if holds else None)
        return mended

    def given_up(self, end: Event | None = None) -> list[Event]:
        """Return events with U+FFFD for halves held back of texts that end with ``end``; None is the end of all."""
        given_up = []
        for place, (_, around) in list(self.held.items()):
            event = around(UNKNOWN)
            if end is None or _ends(end, event):
                del self.held[place]
                given_up.append(event)
        return given_up

    def _mended(self, value: Any, place: Place, around: Around | None) -> Any:
        """Return a value with whole characters; halves are held back where more may follow: ``around`` is not None."""
        if isinstance(value, str):
            held = self.held.pop(place, None)
            text = value if held is None else held[0] + value
            if around and place[-1] in TEXTS and "\ud800" <= text[-1:] <= "\udbff":
                self.held[place] = text[-1], around
                text = text[:-1]
            return whole_characters(text)
        if isinstance(value, dict):
            at = (*place, *(value[name] for name in NUMBERS if type(value.get(name)) is int))
            around = None if value.get("finish_reason") else around
            where = {name: one for name, one in value.items() if name in KEPT and isinstance(one, str | int)}
            return {
                whole_characters(name): self._mended(inner, (*at, name), _within(around, where, name))
                for name, inner in value.items()
            }
        if isinstance(value, list):
            of_list = None if around is None else _listed(around)
            return [self._mended(inner, place, of_list) for inner in value]
        return value


def _within(around: Around | None, where: Event, name: str) -> Around | None:
    """Return the maker of an event for a value under a name of an object."""
    return None if around is None else lambda inner: around({**where, name: inner})


def _listed(around: Around) -> Around:
    return lambda inner: around([inner])


def _ends(end: Event, held: Event) -> bool:
    """Return whether the text of a ``held`` event ends with another event."""
    choices = end.get("choices")
    if isinstance(choices, list):
        ended = [one for one in choices if isinstance(one, dict) and one.get("finish_reason")]
        of = held.get("choices")
        begun = of[0] if isinstance(of, list) and isinstance(of[0], dict) else {}
        return any(_is_of(one, begun) for one in ended)
    return ENDS.fullmatch(str(end.get("type"))) is not None and _is_of(end, held)


def _is_of(end: Event, held: Event) -> bool:
    return all(end[name] == held[name] for name in NAMES if name in end and name in held)
