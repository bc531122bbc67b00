"""The items of a response, put together from its events, so that one that is cut can be closed and shown whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Event = dict[str, Any]
Item = dict[str, Any]

TEXT_PLACES = {
    "response.output_text": ("content", "content_index", "text"),
    "response.refusal": ("content", "content_index", "refusal"),
    "response.reasoning_text": ("content", "content_index", "text"),
    "response.reasoning_summary_text": ("summary", "summary_index", "text"),
}
"""Where in an item's parts a text belongs."""

STRING_PLACES = {
    "response.function_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
}
"""Which string of an item grows."""


PARTS = {
    "response.content_part": ("content", "content_index"),
    "response.reasoning_summary_part": ("summary", "summary_index"),
}


class Items:
    """Everything that the model wrote so far."""

    def __init__(self) -> None:
        self.tool_calls: list[str] = []
        self._items: dict[int, Item] = {}
        self._open: dict[int, set[tuple[str, int]]] = {}
        """Items that are not done, and their parts that are not."""
        self._wrote: set[int] = set()
        """Items of which text went by in pieces."""

    @property
    def all(self) -> list[Item]:
        """The items, in their order."""
        return [self._items[place] for place in sorted(self._items)]

    def text_in(self, event: Event) -> str:
        """Return what the model wrote that is new in an event: a delta, or an item that ends without any before it."""
        kind, delta = str(event.get("type")), event.get("delta")
        if kind.endswith(".delta"):
            return delta if isinstance(delta, str) else ""
        item = event.get("item")
        if kind != "response.output_item.done" or not isinstance(item, dict) or _place(event) in self._wrote:
            return ""
        return "".join(texts_of([item]))

    def take(self, event: Event) -> None:
        """Take one event."""
        place, (family, _, step) = _place(event), str(event.get("type")).rpartition(".")
        if place is None:
            return
        if family == "response.output_item" and isinstance(item := event.get("item"), dict):
            self._item(place, item, is_done=step == "done")
        elif family in PARTS and isinstance(part := event.get("part"), dict):
            parts, index_name = PARTS[family]
            self._part(place, parts, event.get(index_name), part, is_done=step == "done")
        elif step == "delta" and isinstance(delta := event.get("delta"), str):
            self._write(place, family, event, delta)

    def _item(self, place: int, item: Item, *, is_done: bool) -> None:
        self._items[place] = dict(item)
        if isinstance(call := item.get("call_id"), str) and call and call not in self.tool_calls:
            self.tool_calls.append(call)
        if is_done:
            self._open.pop(place, None)
        else:
            self._open[place] = set()

    def _part(self, place: int, parts: str, index: Any, part: dict[str, Any], *, is_done: bool) -> None:
        item = self._items.setdefault(place, {})
        if type(index) is not int or not 0 <= index <= len(_list_in(item, parts)):
            return
        item[parts][index : index + 1] = [dict(part)]
        if is_done:
            self._open.get(place, set()).discard((parts, index))
        else:
            self._open.setdefault(place, set()).add((parts, index))

    def _write(self, place: int, family: str, event: Event, delta: str) -> None:
        self._wrote.add(place)
        item = self._items.setdefault(place, {})
        self._open.setdefault(place, set())
        if family in STRING_PLACES:
            name = STRING_PLACES[family]
            item[name] = _string(item.get(name)) + delta
        elif family in TEXT_PLACES:
            parts, index_name, name = TEXT_PLACES[family]
            index = event.get(index_name, 0)
            if type(index) is not int or not 0 <= index <= len(_list_in(item, parts)):
                return
            if index == len(item[parts]):
                item[parts].append({"type": family.removeprefix("response.")})
            part = item[parts][index]
            if isinstance(part, dict):
                part[name] = _string(part.get(name)) + delta

    def replace(self, output: list[Any]) -> None:
        """Take the items as the upstream shows them at the end."""
        self._items = {place: item for place, item in enumerate(output) if isinstance(item, dict)}
        self._open = {}
        for item in self.all:
            if isinstance(call := item.get("call_id"), str) and call and call not in self.tool_calls:
                self.tool_calls.append(call)

    def cut(self, shorter: Callable[[str], str]) -> None:
        """Make every message's text ``shorter``; what is no message is not whole any more, and goes."""
        self._items = {place: item for place, item in self._items.items() if item.get("type") == "message"}
        self.tool_calls = []
        for item in self.all:
            item["status"] = "incomplete"
            for part in _parts(item):
                for name in ("text", "refusal"):
                    if isinstance(text := part.get(name), str):
                        part[name] = shorter(text)

    def closing(self) -> Iterator[Event]:
        """Yield the events that close what is open, as it stands."""
        for place in sorted(self._open):
            item = self._items[place]
            for parts, index in sorted(self._open[place]):
                if parts == "content":
                    yield from _part_done(item, place, index, item["content"][index])
            if "status" in item:
                item["status"] = "incomplete"
            yield {"type": "response.output_item.done", "output_index": place, "item": item}
        self._open = {}

    def told(self) -> Iterator[Event]:
        """Yield the events of items that came whole."""
        for place, item in enumerate(self.all):
            begun = {**item, "content": []} if item.get("type") == "message" else item
            yield {"type": "response.output_item.added", "output_index": place, "item": begun}
            if item.get("type") == "message":
                for index, part in enumerate(_parts(item, "content")):
                    at = {"item_id": item.get("id"), "output_index": place, "content_index": index}
                    yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
                    if isinstance(text := part.get("text"), str):
                        yield {"type": "response.output_text.delta", **at, "delta": text, "logprobs": []}
                    yield from _part_done(item, place, index, part)
            yield {"type": "response.output_item.done", "output_index": place, "item": item}


def _place(event: Event) -> int | None:
    place = event.get("output_index")
    return place if type(place) is int else None


def texts_of(items: list[Item], *, spoken: bool = False) -> Iterator[str]:
    """Yield all that the model wrote in items, or only what it said."""
    for item in items:
        if spoken and item.get("type") != "message":
            continue
        for part in (*_parts(item), item):
            for name in ("text", "refusal", "arguments", "input"):
                if isinstance(text := part.get(name), str):
                    yield text


def _part_done(item: Item, place: int, index: int, part: dict[str, Any]) -> Iterator[Event]:
    at = {"item_id": item.get("id"), "output_index": place, "content_index": index}
    if isinstance(part.get("text"), str) and item.get("type") == "message":
        yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}


def _parts(item: Item, *names: str) -> list[dict[str, Any]]:
    lists = (item.get(name) for name in names or ("summary", "content"))
    return [part for parts in lists if isinstance(parts, list) for part in parts if isinstance(part, dict)]


def _list_in(item: Item, name: str) -> list[Any]:
    """Return the list that an item has under a name, making one where it has none."""
    if not isinstance(item.get(name), list):
        item[name] = []
    parts: list[Any] = item[name]
    return parts


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
