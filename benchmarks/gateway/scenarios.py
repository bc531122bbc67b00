"""The load on every subject: how many callers, how long a prompt, how the answer arrives."""

from __future__ import annotations

import json
from dataclasses import dataclass

QUESTION = "How long is a piece of string?"
WORD = "string "


@dataclass(frozen=True)
class Scenario:
    """One kind of load. ``events`` text events in an answer, ``gap_us`` apart; 0 sends all of them at once."""

    name: str
    connections: int
    prompt_bytes: int = 0
    stream: bool = False
    events: int = 1
    gap_us: int = 0

    def request(self, headers: dict[str, str]) -> bytes:
        """Return the request as it goes over the wire."""
        content = QUESTION + WORD * (self.prompt_bytes // len(WORD))
        payload = {"model": "aligned-1", "messages": [{"role": "user", "content": content}]}
        body = json.dumps(payload | ({"stream": True} if self.stream else {}), separators=(",", ":")).encode()
        lines = {"host": "127.0.0.1", "content-type": "application/json", **headers, "content-length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + body


SCENARIOS = (
    Scenario("1 caller", 1),
    Scenario("32 callers", 32),
    Scenario("256 callers", 256),
    Scenario("32 callers 45 kB", 32, prompt_bytes=45_000),
    Scenario("32 streams at once", 32, stream=True, events=200),
    Scenario("32 streams 5 ms apart", 32, stream=True, events=200, gap_us=5_000),
    Scenario("500 streams 20 ms apart", 500, stream=True, events=150, gap_us=20_000),
    Scenario("500 streams idle", 500, stream=True, events=2, gap_us=3_000_000),
)
