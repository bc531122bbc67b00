"""Puts the deltas of a stream together again, for a caller who did not ask for one."""

from __future__ import annotations

from typing import Any


def merge(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a delta to what came before it: texts and lists grow, items with an ``index`` find their own, else replace."""
    for name, value in delta.items():
        before = whole.get(name)
        if before is None or name in ("index", "type", "role", "id"):
            whole[name] = [] if isinstance(value, list) else {} if isinstance(value, dict) else value
            before = whole[name]
            if not isinstance(value, list | dict):
                continue
        if isinstance(value, str) and isinstance(before, str):
            whole[name] = before + value
        elif isinstance(value, dict) and isinstance(before, dict):
            merge(before, value)
        elif isinstance(value, list) and isinstance(before, list):
            _merge_list(before, value)
        elif value is not None:
            whole[name] = value


def _merge_list(whole: list[Any], items: list[Any]) -> None:
    for item in items:
        place = item.get("index") if isinstance(item, dict) else None
        if not isinstance(place, int):
            whole.append(item)
            continue
        found = next((one for one in whole if isinstance(one, dict) and one.get("index") == place), None)
        if found is None:
            found = {}
            whole.append(found)
        merge(found, item)
