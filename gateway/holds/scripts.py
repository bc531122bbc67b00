"""The Lua verbs, one file each, loaded with the few lines they share put in front."""

from __future__ import annotations

from importlib.resources import files

_LUA = files("gateway.holds") / "lua"


def source(verb: str) -> str:
    """Return the text of one verb: ``reserve``, ``settle``, ``renew``, ``reclaim``, ``announce``, ``project``."""
    return "\n".join((_LUA / f"{name}.lua").read_text("utf-8") for name in ("shared", verb))
