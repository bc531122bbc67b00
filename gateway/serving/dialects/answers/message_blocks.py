"""Assembles the blocks of a message from its events: each block has its own place and is closed once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.serving.dialects.answers.assembly import is_repeated
from gateway.serving.json_codec import dumps, loads

Event = dict[str, Any]
Block = dict[str, Any]

TEXTS = ("text", "thinking", "partial_json")
"""Fields of a block or a delta that have text of the model."""

EMPTY: dict[str, Block] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}
"""Fields that Anthropic's clients need at the beginning of a block, by the type of the block."""

BEGUN_BY = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking"}
"""The type of the block that a delta begins if no block is open for it, by the type of the delta."""

KEPT = frozenset({"type", "citation", *TEXTS})


class Blocks:
    """The blocks that the model wrote so far, numbered in the order of their beginnings, not as the upstream does."""

    def __init__(self) -> None:
        self.tool_calls: list[str] = []
        self._blocks: list[Block] = []
        self._pieces: list[dict[str, list[str]]] = []  # the pieces of each block's texts
        self._places: dict[int | None, int] = {}  # from the upstream's numbers to places
        self._open: list[int] = []

    @property
    def all(self) -> list[Block]:
        """The blocks, in their order."""
        return [self._whole(place) for place in range(len(self._blocks))]

    def begin(self, event: Event) -> list[Event]:
        """Take a block's beginning; return the events to show: none where the block has already begun."""
        block = event.get("content_block")
        if not isinstance(block, dict):
            return []
        number = _number(event.get("index"))
        place = self._places.get(number)
        if place is not None and place in self._open and not _is_another(self._blocks[place], block):
            return []
        empty = EMPTY.get(str(block.get("type")), {})
        fields = {name: value for name, value in block.items() if value is not None and _fits(name, value)}
        block = {
            **empty,
            **{name: value for name, value in fields.items() if isinstance(value, type(empty.get(name, value)))},
        }
        return [self._add(number, block)]

    def grow(self, event: Event) -> list[Event]:
        """Take a block's delta; return the events to show: first the block's beginning, if the upstream left it out."""
        delta = event.get("delta")
        if not isinstance(delta, dict):
            return []
        if all(value is None or not _fits(name, value) for name, value in delta.items() if name != "type"):
            return []
        number, kind, before = _number(event.get("index")), str(delta.get("type")), list[Event]()
        place = self._places.get(number) if number is not None else self._open[-1] if self._open else None
        if place not in self._open:
            if kind not in BEGUN_BY or (place is not None and kind == "signature_delta"):
                return []  # no block can begin with this delta
            before.append(self._add(number, {"type": BEGUN_BY[kind], **EMPTY[BEGUN_BY[kind]]}))
            place = len(self._blocks) - 1
        assert place is not None
        block = self._blocks[place]
        if is_repeated(self._pieces[place].get("partial_json", []), delta.get("partial_json")):
            return []
        if kind == "input_json_delta" and block.get("type") in BEGUN_BY.values():
            return []  # the tool use of this delta never began
        for name, value in delta.items():
            if name in TEXTS and isinstance(value, str):
                self._pieces[place].setdefault(name, []).append(value)
            elif name == "citation" and value is not None:
                cited = block.get("citations")
                block["citations"] = [*(cited if isinstance(cited, list) else []), value]
            elif name not in KEPT and value not in (None, ""):
                block[name] = value
        fields = {name: value for name, value in delta.items() if value is not None and _fits(name, value)}
        return [*before, {**event, "index": place, "delta": fields}]

    def close(self, event: Event) -> list[Event]:
        """Take a block's end; return the events to show: none where the block is not open."""
        number = _number(event.get("index"))
        place = self._places.get(number) if number is not None else self._open[-1] if self._open else None
        if place not in self._open:
            return []
        self._open.remove(place)
        return [{**event, "index": place}]

    def closing(self) -> Iterator[Event]:
        """Yield the events that close the open blocks."""
        for place in self._open:
            yield {"type": "content_block_stop", "index": place}
        self._open = []

    def take_whole(self, blocks: list[Block]) -> None:
        """Take blocks that came whole."""
        self._blocks, self._pieces = blocks, [{} for _ in blocks]
        for block in blocks:
            self._name(block)

    def _add(self, number: int | None, block: Block) -> Event:
        place = len(self._blocks)
        self._blocks.append(dict(block))
        self._pieces.append({})
        self._places[number] = place
        self._open.append(place)
        self._name(block)
        return {"type": "content_block_start", "index": place, "content_block": block}

    def _name(self, block: Block) -> None:
        if block.get("type") == "tool_use" and isinstance(call := block.get("id"), str) and call:
            self.tool_calls.append(call)

    def _whole(self, place: int) -> Block:
        """Return a block with the relayed part of its texts."""
        block = dict(self._blocks[place])
        for name, pieces in self._pieces[place].items():
            if name != "partial_json":
                before = block.get(name)
                block[name] = (before if isinstance(before, str) else "") + "".join(pieces)
        if written := "".join(self._pieces[place].get("partial_json", ())):
            try:
                block["input"] = loads(written.encode("utf-8", "surrogatepass"))
            except ValueError:
                block["input"] = {}  # the input was cut, so the tool cannot be called
        return block


def events_of(blocks: list[Block]) -> Iterator[Event]:
    """Yield the events of blocks that came whole."""
    for place, block in enumerate(blocks):
        begun, deltas = dict(block), list[Event]()
        for name in ("text", "thinking"):
            if isinstance(text := block.get(name), str):
                begun[name] = ""
                deltas.append({"type": f"{name}_delta", name: text})
        if block.get("type") == "tool_use":
            begun["input"] = {}
            deltas.append({"type": "input_json_delta", "partial_json": dumps(block.get("input")).decode()})
        if block.get("type") == "thinking" and isinstance(signature := block.get("signature"), str):
            begun["signature"] = ""
            deltas.append({"type": "signature_delta", "signature": signature})
        yield {"type": "content_block_start", "index": place, "content_block": begun}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": place, "delta": delta}
        yield {"type": "content_block_stop", "index": place}


def _fits(name: str, value: Any) -> bool:
    """Return whether a field may have a value: a text has to be a string."""
    return isinstance(value, str) or name not in TEXTS


def _number(value: Any) -> int | None:
    return value if type(value) is int else None


def _is_another(begun: Block, block: Block) -> bool:
    """Return whether a block differs from the block that began under its number."""
    known_id, block_id = begun.get("id"), block.get("id")
    return begun.get("type") != block.get("type") or bool(known_id and block_id and known_id != block_id)
