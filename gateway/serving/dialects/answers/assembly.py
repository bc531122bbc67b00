"""Assembles the deltas of a stream by one table, and returns the new part of each delta.

A caller that streams is sent the new parts, any other caller the assembled answer. So all callers get the same answer,
and no client has to know how an engine repeats itself.
"""

from __future__ import annotations

from typing import Any

from gateway.serving.json_codec import dumps, loads

GROWN = frozenset(
    {
        *("content", "reasoning_content", "reasoning", "reasoning_text", "refusal", "text", "thinking", "summary"),
        "thinking_blocks",
        *("arguments", "input", "data", "transcript"),
        *("tokens", "token_logprobs", "top_logprobs", "text_offset", "token_ids", "annotations", "images"),
    }
)
"""Texts and lists that the model wrote: each piece is appended to the pieces before it, whatever its content."""

TEXTS = GROWN - {"arguments"}
"""Texts whose pieces never count as repetitions."""

FIRST = frozenset({"role", "id", "type", "object", "format", "signature"})
"""Fields that keep their first value."""

NUMBERED = frozenset({"tool_calls", "reasoning_details"})
"""Lists whose items come in pieces; each item has an ``index``."""

PARTED = frozenset({"content", "thinking", "thinking_blocks"})
"""Lists whose items come in pieces and have a type but no index."""

TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(GROWN, (str, list)),
    **dict.fromkeys((*FIRST, "name"), (str,)),
    **dict.fromkeys(("arguments", "refusal", "reasoning_content", "reasoning_text", "transcript"), (str,)),
    **dict.fromkeys((*NUMBERED, "tool_calls"), (list, dict)),
    **dict.fromkeys(("function", "custom", "function_call", "audio"), (dict,)),
    **dict.fromkeys(("input", "data", "summary", "format"), (str, list, dict)),
}
"""The types of a value, by its name; a value of another type is ignored."""

# Every other value is replaced by a later value. A list is replaced by a longer list that begins with it, and any other
# list is appended to it. A name grows by each piece that differs from the name, until the call's arguments begin.
# Null, "" and a repeated value replace and extend nothing.


class Text(list[str]):
    """The pieces of a growing string, joined once at the end."""


class Items(list[dict[str, Any]]):
    """Items that come in pieces; each item has its own index, whatever the upstream's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self._at: dict[int | None, int] = {}  # from the upstream's index to the place of the item that last had it

    def take(self, pieces: list[Any], *, keeps: bool, are_calls: bool = False) -> list[Any]:
        """Take pieces of items; return the new parts of the items."""
        changes: list[Any] = []
        for piece in pieces:
            if not isinstance(piece, dict):
                continue
            item = self[self._place(piece, is_dense=are_calls)]
            if are_calls and len(item) == 1:
                piece = _call_begun(piece)
            new = take(item, {name: value for name, value in piece.items() if name != "index"}, keeps=keeps)
            if not new:
                continue
            if isinstance(item.get("function"), dict):
                new.setdefault("function", {})  # OpenAI's own client needs this field in every piece
            changes.append({"index": item["index"], **new})
        return changes

    def _place(self, piece: dict[str, Any], *, is_dense: bool) -> int:
        """Return the place of a piece's item; a new item is added where no item matches.

        A new item gets the upstream's index if that is free; where ``is_dense``, it gets its place as its index, which
        OpenAI's client requires.
        """
        number = piece.get("index")
        if type(number) is not int:
            number = None
        place = self._at.get(number)
        if place is None or _is_another(self[place], piece):
            place = self._named(piece.get("id"))
        if place is None:
            place = len(self)
            used = {item["index"] for item in self}
            self.append({"index": place if is_dense or number is None or number in used else number})
            while self[place]["index"] in used:
                self[place]["index"] += 1
        self._at[number] = place
        return place

    def _named(self, name: Any) -> int | None:
        """Return the place of the item with this id."""
        if not isinstance(name, str) or not name:
            return None
        return next((place for place, item in enumerate(self) if item.get("id") == name), None)


def _call_begun(piece: dict[str, Any]) -> dict[str, Any]:
    """Return a call's first piece with all fields that clients need; the id and the name may come later."""
    begun = {"id": "", **{name: value for name, value in piece.items() if value is not None}}
    if isinstance(piece.get("custom"), dict):
        return {"type": "custom", **begun}
    called = piece.get("function")
    known = {name: value for name, value in called.items() if value is not None} if isinstance(called, dict) else {}
    return {"type": "function", **begun, "function": {"name": "", "arguments": "", **known}}


def _is_another(item: dict[str, Any], piece: dict[str, Any]) -> bool:
    """Return whether a piece begins a new item and does not continue the item that had its index before."""
    kind, known_kind = piece.get("type"), item.get("type")
    if kind and known_kind and kind != known_kind:
        return True
    called, known = _called(piece), _called(item)
    name, known_name = called.get("name"), known.get("name")
    if (call_id := piece.get("id")) and (known_id := item.get("id")):
        return bool(call_id != known_id and (name or not known))
    arguments = known.get("arguments")
    if not name or not arguments:
        return False
    new_arguments = called.get("arguments")
    return name != known_name or (
        isinstance(new_arguments, str) and new_arguments.lstrip().startswith("{") and _is_json(arguments)
    )


def _called(item: dict[str, Any]) -> dict[str, Any]:
    called = item.get("function") or item.get("custom")
    return called if isinstance(called, dict) else {}


def is_repeated(earlier: list[str], piece: Any) -> bool:
    """Return whether a piece repeats all of a call's arguments: nothing can follow a whole object.

    A shorter piece may occur twice in a text.
    """
    if not isinstance(piece, str) or not piece.startswith("{") or sum(map(len, earlier)) != len(piece):
        return False
    return "".join(earlier) == piece and _is_json(Text([piece]))


def _is_json(arguments: Any) -> bool:
    """Return whether arguments are a whole JSON object."""
    if not isinstance(arguments, Text) or not arguments[-1].rstrip().endswith("}"):
        return False
    try:
        return isinstance(loads("".join(arguments).encode()), dict)
    except ValueError:
        return False


def take(before: dict[str, Any], delta: dict[str, Any], *, keeps: bool = True) -> dict[str, Any]:
    """Add a delta to the deltas before it, and return its new part. Growing texts are kept only where ``keeps``."""
    changes: dict[str, Any] = {}
    for name, value in delta.items():
        if name in TEXTS and value and isinstance(value, str):
            before[name] = _grown(before.get(name), name, value, keeps=keeps)
            changes[name] = value
            continue
        if value is not None and name in TYPES and not isinstance(value, TYPES[name]):
            if name != "arguments" or not isinstance(value, dict):
                continue
            value = dumps(value).decode()
        if name in PARTED and isinstance(value, list):
            value = [part for part in value if isinstance(part, dict)]
            if not value:
                continue
        previous = before.get(name)
        if name in NUMBERED and isinstance(value, list | dict):
            items = before[name] = previous if isinstance(previous, Items) else Items()
            pieces = value if isinstance(value, list) else [value] if value else []
            new = items.take(pieces, keeps=keeps or name == "tool_calls", are_calls=name == "tool_calls")
            if new or not pieces:
                changes[name] = new
        elif value is None or value == "":
            if previous is None:
                before[name] = value
            if previous is None or name in GROWN:
                changes[name] = value
        elif name == "arguments" and isinstance(previous, Text) and is_repeated(previous, value):
            continue
        elif name in GROWN:
            before[name] = _grown(previous, name, value, keeps=keeps)
            changes[name] = value
        elif isinstance(value, dict):
            inner = before[name] = previous if isinstance(previous, dict) else {}
            new_inner = take(inner, value, keeps=keeps)
            if new_inner or not value:
                changes[name] = new_inner
        elif isinstance(value, list):
            old = previous if isinstance(previous, list) else []
            is_longer = value[: len(old)] == old
            before[name] = value if is_longer else old + value
            if new_list := value[len(old) :] if is_longer else value:
                changes[name] = new_list
            elif previous is None:
                changes[name] = value
        elif previous in (None, ""):
            before[name] = changes[name] = value
        elif name == "name" and isinstance(value, str) and isinstance(previous, str):
            if value != previous and not before.get("arguments"):
                before[name], changes[name] = previous + value, value
        elif name not in FIRST and (value != previous or type(value) is not type(previous)):
            before[name] = changes[name] = value
    return changes


def _grown(previous: Any, name: str, value: Any, *, keeps: bool) -> Any:
    """Return ``previous`` with the new piece appended."""
    if isinstance(value, str):
        if isinstance(previous, list) and not isinstance(previous, Text):
            return _grown(previous, name, [{"type": "text", "text": value}], keeps=keeps)
        text = previous if isinstance(previous, Text) else Text()
        if keeps or not text:
            text.append(value)
        return text
    if not isinstance(value, list):
        return value
    if not keeps:
        return previous if isinstance(previous, list) else []
    if isinstance(previous, Text):
        previous = [{"type": "text", "text": previous}]
    parts = previous if isinstance(previous, list) else []
    for part in value:
        if name not in PARTED or not isinstance(part, dict) or "type" not in part:
            parts.append(part)
            continue
        if not parts or not isinstance(parts[-1], dict) or parts[-1].get("type") != part["type"]:
            parts.append({})
        take(parts[-1], part)
    return parts


def joined(assembled: Any) -> Any:
    """Return an assembled value with its texts joined, as it is sent."""
    if isinstance(assembled, Text):
        return "".join(assembled)
    if isinstance(assembled, dict):
        return {name: joined(value) if isinstance(value, (dict, list)) else value for name, value in assembled.items()}
    if isinstance(assembled, list):
        return [joined(value) for value in assembled]
    return assembled
