"""Does what tests ask, line by line, with the client that each line names, and prints what the client made of it as a line of JSON."""

from __future__ import annotations

import json
import os
import sys
import traceback
from importlib import import_module
from typing import Any


def refusal(error: Exception) -> dict[str, Any]:
    """Return what a client's exception tells of a refusal; it may be wrapped in another one, or tell no status at all."""
    cause: Any = error
    while cause is not None and not hasattr(cause, "status_code"):
        cause = cause.__cause__
    code = getattr(cause, "code", None)
    if code is None and isinstance(body := getattr(cause, "body", None), dict):
        code = body.get("error", body).get("code")
    status = getattr(cause, "status_code", None)
    return {"refused": type(error).__name__, "status": status, "code": None if code == str(status) else code}


def main() -> None:
    """Answer on what was the standard output; what clients print themselves goes beside it."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        client: Any = import_module(request.pop("client"))
        task = request.pop("task")
        try:
            answer = getattr(client, task)(**request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is told its name
            traceback.print_exception(error)
            answer = refusal(error)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
