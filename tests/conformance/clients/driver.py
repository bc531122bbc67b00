"""A program in another environment that runs tasks with the client that a test names: one line in, one line out."""

from __future__ import annotations

import json
import select
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.conformance.client import EXCEPTIONS, MODEL, QUESTION, RESULT, TOOL, Answer, Refused, Where

WAIT_S = 120


class Driver:
    """One process for all its clients, started at the first request: a process for each would mostly start up."""

    def __init__(self, *command: str | Path) -> None:
        self._command = [str(part) for part in command]
        self._process: subprocess.Popen[bytes] | None = None

    def request(self, **parameters: Any) -> dict[str, Any]:
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(parameters).encode() + b"\n")
        process.stdin.flush()
        assert select.select([process.stdout], [], [], WAIT_S)[0], f"{parameters} was not answered."
        line = process.stdout.readline()
        if not line:
            self.close()
            raise AssertionError(f"{parameters} ended its client: see above.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            process, self._process = self._process, None
            process.communicate(timeout=WAIT_S)


class Driven:
    """A client of a driver; ``options`` are extra parameters of its script."""

    def __init__(
        self,
        driver: Driver,
        script: str,
        endpoint: str,
        exceptions: dict[int, str] = EXCEPTIONS,
        **options: Any,
    ) -> None:
        self.endpoint, self.exceptions = endpoint, exceptions
        self._driver, self._script, self._options = driver, script, options

    def complete(self, where: Where, *, model: str = MODEL) -> Answer:
        return Answer(**self._ask("complete", where, model))

    def stream(self, where: Where) -> Answer:
        return Answer(**self._ask("stream", where, MODEL))

    def loop(self, where: Where) -> int:
        return int(self._ask("loop", where, MODEL, tool=TOOL, result=RESULT)["results"])

    def structure(self, where: Where, *, stream: bool) -> dict[str, Any]:
        return self._ask("structure", where, MODEL, stream=stream)

    def structure_and_answer(self, where: Where) -> dict[str, Any]:
        """Return the parsed object as ``parsed``, and whether its answer ``was_cut``."""
        return self._ask("structureAndAnswer", where, MODEL)

    def _ask(self, task: str, where: Where, model: str, **more: Any) -> dict[str, Any]:
        parameters = {**asdict(where), "model": model, "question": QUESTION, **self._options, **more}
        answer = self._driver.request(client=self._script, task=task, **parameters)
        if "refused" in answer:
            raise Refused(answer["refused"], answer["status"], answer["code"])
        return answer
