"""Characters whose two halves come in two pieces: the first half is held back until the second is here."""

from __future__ import annotations

import re
from typing import Any

from gateway.serving.dialects.assembly import GROWN
from gateway.serving.jsons import whole_characters

HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
"""Half of a surrogate pair in JSON, perhaps with its other half."""

NUMBERS = ("index", "output_index", "content_index", "summary_index")
TEXTS = GROWN | {"delta", "partial_json"}
UNKNOWN = "\N{REPLACEMENT CHARACTER}"

Place = tuple[Any, ...]


class Halves:
    """What is held back of each text, by where the text stands in its events."""

    def __init__(self) -> None:
        self._held: dict[Place, str] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def joined(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return an event with whole characters only; a half that never gets its other half is U+FFFD."""
        mended: dict[str, Any] = self._mended(event, (event.get("type"),))
        return mended

    def left(self, *place: Any) -> dict[str, str]:
        """Return, by name, the texts of an object that end with half a character, which is given up."""
        found = [one for one in self._held if one[1:-1] == place]
        return {one[-1]: UNKNOWN for one in found if self._held.pop(one)}

    def _mended(self, value: Any, place: Place) -> Any:
        if isinstance(value, str):
            text = self._held.pop(place, "") + value
            if place[-1] in TEXTS and "\ud800" <= text[-1:] <= "\udbff":
                self._held[place] = text[-1]
                text = text[:-1]
            return whole_characters(text)
        if isinstance(value, dict):
            at = (*place, *(value[name] for name in NUMBERS if type(value.get(name)) is int))
            return {whole_characters(name): self._mended(inner, (*at, name)) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._mended(inner, place) for inner in value]
        return value
