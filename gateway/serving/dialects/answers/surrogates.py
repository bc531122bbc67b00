"""Joins characters whose two halves come in two pieces: the first half is held back until the second half comes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gateway.serving.dialects.answers.assembly import GROWN
from gateway.serving.json_codec import whole_characters

HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
"""Half of a surrogate pair in JSON, with or without its other half."""

NUMBERS = ("index", "output_index", "content_index", "summary_index")
NAMES = (*NUMBERS, "item_id")
KEPT = frozenset({*NAMES, "type", "id", "object", "created", "model"})
"""The fields of an event that show where its text belongs."""

TEXTS = GROWN | {"delta", "partial_json"}
UNKNOWN = "\N{REPLACEMENT CHARACTER}"

ENDS = re.compile(
    r"content_block_stop|message_(?:delta|stop)|response\.(?:completed|incomplete|failed|cancelled)|.*\.done"
)
"""Types of events after which no text follows in the place that they name, or in any place if they name none."""

Event = dict[str, Any]
Place = tuple[Any, ...]
Around = Callable[[Any], Any]
"""Builds an event around a text."""


class Halves:
    """Holds the first halves of characters back, each by the place of its text in the events."""

    def __init__(self) -> None:
        self.held: dict[Place, tuple[str, Around]] = {}

    def joined(self, event: Event) -> Event:
        """Return an event with whole characters only; a half that cannot get its other half becomes U+FFFD."""
        kind = event.get("type")
        holds = not isinstance(kind, str) or kind.endswith("delta")
        mended: Event = self._mended(event, (str(kind),), (lambda inner: inner) if holds else None)
        return mended

    def replaced(self, end: Event | None = None) -> list[Event]:
        """Return an event with U+FFFD for each held half of the texts that ``end`` ends; None ends all texts."""
        events = []
        for place, (_, around) in list(self.held.items()):
            event = around(UNKNOWN)
            if end is None or _ends(end, event):
                del self.held[place]
                events.append(event)
        return events

    def _mended(self, value: Any, place: Place, around: Around | None) -> Any:
        """Return a value with whole characters; a last half is held back if text may follow: ``around`` is not None."""
        if isinstance(value, str):
            held = self.held.pop(place, None)
            text = value if held is None else held[0] + value
            if around and place[-1] in TEXTS and "\ud800" <= text[-1:] <= "\udbff":
                self.held[place] = text[-1], around
                text = text[:-1]
            return whole_characters(text)
        if isinstance(value, dict):
            numbered = (*place, *(value[name] for name in NUMBERS if type(value.get(name)) is int))
            around = None if value.get("finish_reason") else around
            frame = {name: field for name, field in value.items() if name in KEPT and isinstance(field, str | int)}
            return {
                whole_characters(name): self._mended(inner, (*numbered, name), _within(around, frame, name))
                for name, inner in value.items()
            }
        if isinstance(value, list):
            of_list = None if around is None else _listed(around)
            return [self._mended(inner, place, of_list) for inner in value]
        return value


def _within(around: Around | None, frame: Event, name: str) -> Around | None:
    """Return a function that builds an event around a value in a field of an object."""
    return None if around is None else lambda inner: around({**frame, name: inner})


def _listed(around: Around) -> Around:
    return lambda inner: around([inner])


def _ends(end: Event, held: Event) -> bool:
    """Return whether the event ``end`` ends the text of a ``held`` event."""
    choices = end.get("choices")
    if isinstance(choices, list):
        ended = [choice for choice in choices if isinstance(choice, dict) and choice.get("finish_reason")]
        held_choices = held.get("choices")
        held_choice = held_choices[0] if isinstance(held_choices, list) and isinstance(held_choices[0], dict) else {}
        return any(_is_of(choice, held_choice) for choice in ended)
    return ENDS.fullmatch(str(end.get("type"))) is not None and _is_of(end, held)


def _is_of(end: Event, held: Event) -> bool:
    return all(end[name] == held[name] for name in NAMES if name in end and name in held)
