"""Runs a task for each line of its input with the client that the line names, and prints the result as JSON."""

from __future__ import annotations

import json
import os
import sys
import traceback
from importlib import import_module
from typing import Any


def refusal(error: Exception) -> dict[str, Any]:
    """Return the facts of a refusal from a client's exception, which may wrap another, or have no status."""
    cause: Any = error
    while cause is not None and not hasattr(cause, "status_code"):
        cause = cause.__cause__
    code = getattr(cause, "code", None)
    if code is None and isinstance(body := getattr(cause, "body", None), dict):
        code = body.get("error", body).get("code")
    status = getattr(cause, "status_code", None)
    return {"refused": type(error).__name__, "status": status, "code": None if code == str(status) else code}


def main() -> None:
    """Answer on the original standard output; output of the clients themselves goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        client: Any = import_module(request.pop("client"))
        task = request.pop("task")
        try:
            answer = getattr(client, task)(**request)
        except Exception as error:  # noqa: BLE001 - the test gets the name of any exception
            traceback.print_exception(error)
            answer = refusal(error)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
