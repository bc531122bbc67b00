"""Reads the items and texts of a response's events, and writes the events of an item that came whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Event = dict[str, Any]
Item = dict[str, Any]

ADDED = "response.output_item.added"

TEXT_PLACES = {
    "response.output_text": ("content", "content_index", "text"),
    "response.refusal": ("content", "content_index", "refusal"),
    "response.reasoning_text": ("content", "content_index", "text"),
    "response.reasoning_summary_text": ("summary", "summary_index", "text"),
}
"""The place of a text in its item, by the beginning of its events' type: the list of parts, the index, the field."""

STRING_PLACES = {
    "response.function_call_arguments": "arguments",
    "response.mcp_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
}
"""The growing string of an item, by the beginning of its events' type."""

PARTS = {
    "response.content_part": ("content", "content_index"),
    "response.reasoning_part": ("content", "content_index"),
    "response.reasoning_summary_part": ("summary", "summary_index"),
}

WRITTEN = ("text", "refusal", "arguments", "input")
"""Names of the model's texts, in an item or in an item's part."""


def place_of(event: Event) -> int | None:
    """Return the number of an event's item."""
    place = event.get("output_index")
    return place if type(place) is int and place >= 0 else None


def names_of(item: Item) -> list[str]:
    """Return the names that identify an item: its id, its type with its call's id, and without an id the call's id."""
    call = item.get("call_id")
    names = [item.get("id"), f"{item.get('type')} {call}" if call else None, None if item.get("id") else call]
    return [name for name in names if isinstance(name, str) and name]


def whole_text_in(event: Event) -> str:
    """Return the text of an event other than a delta: its item's text, its part's text, or its own."""
    family, _, step = str(event.get("type")).rpartition(".")
    if step not in ("added", "done"):
        return ""
    if family == "response.output_item" and isinstance(item := event.get("item"), dict):
        return "".join(texts_of([item]))
    if family in PARTS and isinstance(part := event.get("part"), dict):
        return "".join(texts_of([{"content": [part]}]))
    name = TEXT_PLACES[family][2] if family in TEXT_PLACES else STRING_PLACES.get(family, "")
    text = event.get(name)
    return text if isinstance(text, str) else ""


def texts_of(items: Iterable[Item], *, spoken: bool = False) -> Iterator[str]:
    """Yield the model's texts in items: all of them, or where ``spoken`` only those of messages."""
    for item in items:
        if spoken and item.get("type") != "message":
            continue
        lists = (item.get(name) for name in ("summary", "content"))
        parts = [part for parts in lists if isinstance(parts, list) for part in parts if isinstance(part, dict)]
        for part in (*parts, item):
            for name in WRITTEN:
                if isinstance(text := part.get(name), str):
                    yield text


def size(items: Iterable[Item]) -> int:
    """Return the number of characters that the model wrote in items."""
    return sum(map(len, texts_of(items)))


def new_item(event: Event, family: str, number: int) -> Item:
    """Return an empty item for an event that adds to an unannounced item."""
    part = event.get("part")
    kind = part.get("type") if isinstance(part, dict) else None
    item_id = event.get("item_id")
    known_id = item_id if isinstance(item_id, str) else ""
    if "reasoning" in family or kind == "reasoning_text":
        return {"id": known_id or f"rs_{number}", "type": "reasoning", "summary": [], "content": []}
    empty = {"role": "assistant", "status": "in_progress", "content": []}
    return {"id": known_id or f"msg_{number}", "type": "message", **empty}


def delta_of(done: Event, family: str, text: str) -> Event:
    """Return the delta that the upstream left out before an event with a whole text."""
    position = {
        name: value for name, value in done.items() if name not in ("type", "text", "refusal", "sequence_number")
    }
    return {"type": f"{family}.delta", **position, "delta": text}


def done_part(item: Item, place: int, index: int, part: dict[str, Any]) -> Iterator[Event]:
    """Yield the events that close a part of a message."""
    position = {"item_id": item.get("id"), "output_index": place, "content_index": index}
    if isinstance(part.get("text"), str) and item.get("type") == "message":
        yield {"type": "response.output_text.done", **position, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **position, "part": part}


def spoken_part(item: Item, place: int, index: int, part: dict[str, Any]) -> list[Event]:
    """Return the events of a part of a message that came whole."""
    position = {"item_id": item.get("id"), "output_index": place, "content_index": index}
    name = "refusal" if isinstance(part.get("refusal"), str) else "text"
    events: list[Event] = [{"type": "response.content_part.added", **position, "part": {**part, name: ""}}]
    if isinstance(text := part.get(name), str):
        family = "response.output_text" if name == "text" else "response.refusal"
        logprobs: Event = {"logprobs": []} if name == "text" else {}
        events.append({"type": f"{family}.delta", **position, "delta": text, **logprobs})
    return [*events, *done_part(item, place, index, part)]


def events_of(item: Item, place: int) -> Iterator[Event]:
    """Yield the events of an item that came whole."""
    is_message = item.get("type") == "message" and isinstance(item.get("content"), list)
    begun = {**item, "content": []} if is_message else item
    if "status" in begun:
        begun = {**begun, "status": "in_progress"}
    yield {"type": ADDED, "output_index": place, "item": begun}
    for index, part in enumerate(item["content"] if is_message else ()):
        if isinstance(part, dict):
            yield from spoken_part(item, place, index, part)
    yield {"type": "response.output_item.done", "output_index": place, "item": item}
