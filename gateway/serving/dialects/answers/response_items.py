"""Assembles the items of a response from its events, so that a cut response can be closed and shown whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gateway.serving.dialects.answers.assembly import is_repeated
from gateway.serving.dialects.answers.response_events import (
    ADDED,
    PARTS,
    STRING_PLACES,
    TEXT_PLACES,
    Event,
    Item,
    delta_of,
    done_part,
    events_of,
    names_of,
    new_item,
    place_of,
    size,
    spoken_part,
    whole_text_in,
)
from gateway.serving.json_codec import dumps


class Items:
    """The items that the model wrote so far, whether or not the upstream's events name them.

    The item of an event is found by its id, else by its number; without either it is the last item. Callers get numbers
    and ids in every event, since clients rely on them: an announced item keeps its number and its id until its end.
    """

    def __init__(self) -> None:
        self.tool_calls: list[str] = []
        self._items: dict[int, Item] = {}
        self._named: dict[str, int] = {}  # from names of items to places
        self._open: dict[int, set[tuple[str, int]]] = {}
        """The places of open items, with their open parts."""
        self._wrote: set[int] = set()
        """The places of items with relayed text."""
        self._pieces: dict[int, dict[tuple[str, int, str], list[str]]] = {}
        """The pieces of growing texts, by the item's place and the text's place in the item."""
        self._last: int | None = None

    @property
    def all(self) -> list[Item]:
        """The items, in their order."""
        for place in list(self._pieces):
            self._join(place)
        return [self._items[place] for place in sorted(self._items)]

    def text_in(self, event: Event) -> str:
        """Return the model's new text in an event: a delta, or a whole text that no delta preceded."""
        if str(event.get("type")).endswith(".delta"):
            delta = event.get("delta")
            return delta if isinstance(delta, str) else dumps(delta).decode() if delta else ""
        if not (text := whole_text_in(event)):
            return ""
        family = str(event.get("type")).rpartition(".")[0]
        is_of_part = family in PARTS or family in TEXT_PLACES
        place = self._open_of(event, new_item(event, family, 0)["type"]) if is_of_part else self._find(event)
        return "" if place in self._wrote else text

    def take(self, event: Event) -> list[Event]:
        """Take an event; return the events to show: first events that must precede it; none if it has nothing new."""
        family, _, step = str(event.get("type")).rpartition(".")
        if family == "response.output_item" and step in ("added", "done"):
            if not isinstance(item := event.get("item"), dict):
                return []
            return self._begun(event, item) if step == "added" else self._done(event, item)
        if step != "delta" and self._has_ended(event):
            return []  # a repetition
        if family in PARTS and step in ("added", "done"):
            return self._part(event, family, step) if isinstance(event.get("part"), dict) else []
        if step == "delta" and event.get("delta") is None:
            return []
        if family in STRING_PLACES and step in ("delta", "done"):
            return self._string(event, family, step)
        if family in TEXT_PLACES and step in ("delta", "done"):
            return self._text(event, family, step)
        place = self._find(event) if {"item_id", "output_index"} & event.keys() else None
        return [event if place is None else self._placed(event, place)]

    def _find(self, event: Event) -> int | None:
        """Return the place of an event's item, or None where the item is new or unknown."""
        item = event.get("item")
        for name in names_of(item) if isinstance(item, dict) else (event.get("item_id"),):
            if isinstance(name, str) and name in self._named:
                return self._named[name]
        place = place_of(event)
        if not isinstance(item, dict):
            return self._last if place is None else place if place in self._items else None
        begins = event.get("type") == ADDED
        if place is not None:
            is_same = place in self._open and _may_be(item, self._items[place])
            return place if is_same and not (begins and names_of(item)) else None
        matching = [candidate for candidate in self._open if _may_be(item, self._items[candidate])]
        return None if begins or not matching else max(matching)

    def _add(self, event: Event, item: Item) -> int:
        """Take a new item; return its place."""
        place = place_of(event)
        if place is None or place in self._items:
            place = max(self._items, default=-1) + 1
        self._items[place], self._open[place], self._last = dict(item), set(), place
        self._name(place)
        return place

    def _name(self, place: int) -> None:
        """Note the names of an item, and the id of its tool call."""
        item = self._items[place]
        for name in names_of(item):
            self._named.setdefault(name, place)
        if isinstance(call := item.get("call_id"), str) and call and call not in self.tool_calls:
            self.tool_calls.append(call)

    def _placed(self, event: Event, place: int) -> Event:
        """Return an event with the number and the id of its item."""
        item = self._items[place]
        item_id = item.get("id") or event.get("item_id") or item.get("call_id") or f"item_{place}"
        return {**event, "item_id": item_id, "output_index": place}

    def _grow(self, place: int, key: tuple[str, int, str], text: str) -> None:
        self._pieces.setdefault(place, {}).setdefault(key, []).append(text)
        self._wrote.add(place)

    def _written(self, place: int, name: str) -> list[str]:
        """Return the relayed pieces of an item's own text."""
        return [_string(self._items[place].get(name)), *self._pieces.get(place, {}).get(("", 0, name), ())]

    def _join(self, place: int) -> Item:
        """Move the relayed pieces of an item's texts into the item, and return the item."""
        item = self._items[place]
        for (name, index, field), pieces in self._pieces.pop(place, {}).items():
            holder = item[name][index] if name else item
            holder[field] = _string(holder.get(field)) + "".join(pieces)
        return item

    def _begun(self, event: Event, item: Item) -> list[Event]:
        if self._find(event) is not None:
            return []  # announced before
        place = self._add(event, item)
        if size([item]):
            self._wrote.add(place)
        return [{**event, "output_index": place}]

    def _done(self, event: Event, item: Item) -> list[Event]:
        place = self._find(event)
        if place is None:
            place = self._add(event, item)
            del self._open[place]
            self._wrote.add(place)
            return list(events_of(item, place))
        if place not in self._open:
            return []  # done before
        begun = self._join(place)
        item = _same_id(_fuller(item, begun), begun)
        before = []
        if place not in self._wrote and size([item]):
            self._wrote.add(place)
            if not size([begun]) and not begun.get("content"):
                before = list(events_of(item, place))[1:-1]
        self._items[place] = item
        self._name(place)
        del self._open[place]
        return [*before, {**event, "output_index": place, "item": item}]

    def _part(self, event: Event, family: str, step: str) -> list[Event]:
        name, index_name = PARTS[family]
        before, place = self._item_of(event, family)
        parts, part = _list_in(self._join(place), name), dict(event["part"])
        if part.get("type") == "output_text":
            part = {"annotations": [], **part}
        stated_index = _index(event.get(index_name))
        index = min(
            (len(parts) if step == "added" else max(len(parts) - 1, 0)) if stated_index is None else stated_index,
            len(parts),
        )
        shown = {**self._placed(event, place), index_name: index, "part": part}
        if step == "added":
            if index < len(parts):
                return before  # announced before
            parts.append(part)
            self._open.setdefault(place, set()).add((name, index))
            if size([{name: [part]}]):
                self._wrote.add(place)
            return [*before, shown]
        if index == len(parts):
            parts.append(part)
            if family == "response.content_part" and place not in self._wrote:
                before += spoken_part(self._items[place], place, index, part)[:-1]
        else:
            parts[index] = shown["part"] = _fuller_part(part, parts[index])
        if size([{name: [part]}]):
            self._wrote.add(place)
        self._open.get(place, set()).discard((name, index))
        return [*before, shown]

    def _has_ended(self, event: Event) -> bool:
        """Return whether an event names an item that is done."""
        item_id = event.get("item_id")
        return isinstance(item_id, str) and item_id in self._named and self._named[item_id] not in self._open

    def _item_of(self, event: Event, family: str) -> tuple[list[Event], int]:
        """Return the place of the item that an event adds to, after the event that announces the item if it is new."""
        item = new_item(event, family, len(self._items))
        if (open_place := self._open_of(event, item["type"])) is not None:
            return [], open_place
        if item["id"] in self._named:
            item["id"] = f"{item['type'][:3]}_{len(self._items)}"  # the named item is done
        place = self._add(event, item)
        return [{"type": ADDED, "output_index": place, "item": item}], place

    def _open_of(self, event: Event, kind: str) -> int | None:
        """Return the place of the open item of this type that an event adds to: the named item, else the last."""
        places = [self._find(event), *sorted(self._open, reverse=True)]
        return next(
            (place for place in places if place in self._open and self._items[place].get("type") == kind),
            None,
        )

    def _string(self, event: Event, family: str, step: str) -> list[Event]:
        place, name = self._find(event), STRING_PLACES[family]
        if place not in self._open or self._items[place].get("type") in ("message", "reasoning"):
            return []  # the item has ended, or only its end event can tell what it is
        text = event.get("delta" if step == "delta" else name)
        if step == "delta" and name == "arguments" and is_repeated(self._written(place, name), text):
            return []
        if isinstance(text, str) and text and (step == "delta" or place not in self._wrote):
            self._grow(place, ("", 0, name), text)
        shown = self._placed(event, place)
        if step == "done" and not isinstance(text, str):
            shown[name] = _string(self._join(place).get(name))
        return [shown]

    def _text(self, event: Event, family: str, step: str) -> list[Event]:
        name, index_name, field = TEXT_PLACES[family]
        before, place = self._item_of(event, family)
        parts = _list_in(self._items[place], name)
        stated_index = _index(event.get(index_name))
        index = min(max(len(parts) - 1, 0) if stated_index is None else stated_index, len(parts))
        if index == len(parts):
            part: dict[str, Any] = {"type": family.removeprefix("response."), field: ""}
            if part["type"] == "output_text":
                part["annotations"] = []
            elif part["type"] == "reasoning_summary_text":
                part["type"] = "summary_text"
            parts.append(part)
            if name == "content" and family != "response.reasoning_text":
                self._open.setdefault(place, set()).add((name, index))
                added = {"type": "response.content_part.added", "content_index": index, "part": dict(part)}
                before.append(self._placed(added, place))
        shown = {**self._placed(event, place), index_name: index}
        if family == "response.output_text" and not isinstance(shown.get("logprobs"), list):
            shown["logprobs"] = []
        text = event.get("delta" if step == "delta" else field)
        if isinstance(text, str) and text and isinstance(parts[index], dict):
            if step == "delta":
                self._grow(place, (name, index, field), text)
            elif place not in self._wrote:
                self._grow(place, (name, index, field), text)
                before.append(delta_of(shown, family, text))
        elif step == "done" and not isinstance(text, str) and isinstance(parts[index], dict):
            self._join(place)
            shown[field] = _string(parts[index].get(field))
        return [*before, shown]

    def finish(self, output: list[Any]) -> list[Item]:
        """Take the items in the upstream's last event, except those with less text than was streamed.

        Returns:
            The items that no earlier event announced.
        """
        unmatched = dict(sorted(self._items.items()))
        added: list[Item] = []
        for item in output:
            if not isinstance(item, dict):
                continue
            place = self._same(item, unmatched)
            if place is None:
                added.append(item)
                continue
            del unmatched[place]
            streamed = self._join(place)
            if size([item]) >= size([streamed]):
                self._items[place] = _same_id(_with_all_parts(item, streamed), streamed)
                self._name(place)
        return added

    def _same(self, item: Item, unmatched: dict[int, Item]) -> int | None:
        """Return the place of an item of the last event: by its name, else the first unmatched item that it may be."""
        by_name = [self._named[name] for name in names_of(item) if name in self._named]
        places = [*(place for place in by_name if place in unmatched), *unmatched]
        return next((place for place in places if _may_be(item, unmatched[place])), None)

    def take_whole(self, item: Item) -> list[Event]:
        """Take an item that comes whole, and return its events."""
        place = self._add({}, item)
        del self._open[place]
        self._wrote.add(place)
        return list(events_of(item, place))

    def cut(self, shorter: Callable[[str], str]) -> None:
        """Cut the texts of items that came whole; items other than messages and reasoning are left out."""
        self._items = {
            place: item for place, item in self._items.items() if item.get("type") in ("message", "reasoning")
        }
        for item in self.all:
            item["status"] = "incomplete"
            for part in _parts(item):
                for name in ("text", "refusal"):
                    if isinstance(text := part.get(name), str):
                        part[name] = shorter(text)

    def closing(self, *, is_cut: bool) -> Iterator[Event]:
        """Yield the events that close the open items with the text that they have."""
        for place in sorted(self._open):
            item = self._join(place)
            for parts, index in sorted(self._open[place]):
                if parts == "content":
                    yield from done_part(item, place, index, item["content"][index])
            if "status" in item:
                item["status"] = "incomplete" if is_cut else "completed"
            yield {"type": "response.output_item.done", "output_index": place, "item": item}
        self._open = {}

    def whole_events(self) -> Iterator[Event]:
        """Yield the events of items that came whole."""
        self._open = {}
        for place, item in enumerate(self.all):
            yield from events_of(item, place)


def _fuller(end: Item, begun: Item) -> Item:
    """Return an item as its end event has it, with the streamed text where the streamed text is longer."""
    if size([end]) < size([begun]):
        end = {
            **end,
            **{name: begun[name] for name in ("summary", "content", "arguments", "input") if name in begun},
        }
    return dict(end)


def _with_all_parts(end: Item, begun: Item) -> Item:
    """Return an item as its end event has it, with the announced parts that are missing there."""
    for name in ("summary", "content"):
        announced, listed = begun.get(name), end.get(name)
        parts = listed if isinstance(listed, list) else []
        if isinstance(announced, list) and len(parts) < len(announced):
            end = {**end, name: [*parts, *announced[len(parts) :]]}
    return end


def _fuller_part(end: dict[str, Any], begun: Any) -> dict[str, Any]:
    is_less = isinstance(begun, dict) and size([{"content": [end]}]) < size([{"content": [begun]}])
    return {**end, **begun} if is_less else end


def _may_be(item: Item, begun: Item) -> bool:
    """Return whether an item can be the begun item, whatever its id: same type, and not two different call ids."""
    calls = {each["call_id"] for each in (item, begun) if isinstance(each.get("call_id"), str)}
    return item.get("type") == begun.get("type") and len(calls) < 2


def _same_id(item: Item, begun: Item) -> Item:
    """Return an item with its announced id, or without an id if none was announced: clients refuse a changed id."""
    begun_id = begun.get("id")
    if begun_id is None and item.get("id") is not None:
        return {name: value for name, value in item.items() if name != "id"}
    return item if item.get("id") == begun_id else {**item, "id": begun_id}


def _index(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _parts(item: Item) -> list[dict[str, Any]]:
    lists = (item.get(name) for name in ("summary", "content"))
    return [part for parts in lists if isinstance(parts, list) for part in parts if isinstance(part, dict)]


def _list_in(item: Item, name: str) -> list[Any]:
    """Return an item's list under a name; an absent list is created empty."""
    if not isinstance(item.get(name), list):
        item[name] = []
    parts: list[Any] = item[name]
    return parts


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
