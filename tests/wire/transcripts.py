"""Transcripts, one file for each shape: a request to an engine or vendor, its answer, and the expected result."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "transcripts"
EVENT_STREAM, JSON = "text/event-stream", "application/json"


@dataclass(frozen=True)
class Sent:
    """An answer of the upstream: its status, its headers, the raw bytes of its body."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    is_whole: bool = True
    """Whether the answer is sent to its end; otherwise the connection is closed before that."""

    @property
    def is_stream(self) -> bool:
        """Whether the body is a stream, whatever its head says."""
        return not self.body.lstrip().startswith(b"{")


@dataclass(frozen=True)
class Caller:
    """What the caller must get. Only the names listed here are compared in objects."""

    answer: Any
    error: Any
    status: int
    """The status of a call that is not streamed, or is refused before its stream begins."""


@dataclass(frozen=True)
class Transcript:
    """One shape."""

    name: str
    documented: str
    endpoint: str
    request: dict[str, Any]
    """The caller's body, without ``model`` and ``stream``."""
    streamed: Sent | None
    whole: Sent | None
    caller: Caller
    whole_caller: Caller
    """What a caller who does not stream gets: ``caller`` with the changes of ``[caller.whole]``."""
    record: dict[str, Any] | None
    whole_record: dict[str, Any] | None
    """The record of such a call: ``record`` with the changes of ``[record.whole]``."""
    profile: str
    """The profile of the upstream, for a shape that is read only with a known engine."""

    def sent(self, *, stream: bool) -> Sent:
        """Return what the upstream sends for a stream or for a whole answer, or its only form if it has one."""
        found = (self.streamed or self.whole) if stream else (self.whole or self.streamed)
        assert found is not None, f"{self.name} sends nothing"
        return found


def _sent(data: dict[str, Any] | None, content_type: str) -> Sent | None:
    if data is None:
        return None
    headers = {"content-type": content_type, **data.get("headers", {})}
    return Sent(data["body"].encode(), data.get("status", 200), headers, data.get("is_whole", True))


def _caller(data: dict[str, Any]) -> Caller:
    answer, error = (json.loads(data[name]) if name in data else None for name in ("answer", "error"))
    return Caller(answer, error, data.get("status", 200))


def _read(path: Path) -> Transcript:
    data = tomllib.loads(path.read_text("utf-8"))
    caller, record = data["caller"], data.get("record")
    whole_caller = caller.pop("whole", {})
    whole_record = record.pop("whole", {}) if record is not None else {}
    return Transcript(
        name=path.relative_to(FOLDER).with_suffix("").as_posix(),
        documented=data["documented"],
        endpoint=data["endpoint"],
        request=json.loads(data["request"]),
        streamed=_sent(data.get("streamed"), EVENT_STREAM),
        whole=_sent(data.get("whole"), JSON),
        caller=_caller(caller),
        whole_caller=_caller(caller | whole_caller),
        record=record,
        whole_record=None if record is None else record | whole_record,
        profile=data.get("profile", "any"),
    )


TRANSCRIPTS = [_read(path) for path in sorted(FOLDER.rglob("*.toml"))]


def fits(found: Any, wanted: Any) -> bool:
    """Return whether ``found`` matches ``wanted``: at least its names of an object, exactly its items of a list."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            name in found and fits(found[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(fits, found, wanted))
    return bool(found == wanted) and type(found) is type(wanted)
