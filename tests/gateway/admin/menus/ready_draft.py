"""Carries out a pricing run whose draft is read from a file instead of computed: for what becomes of a draft.

``python -m tests.gateway.admin.menus.ready_draft FILE RUN ATTEMPT``; it waits for a file that is not there yet.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gateway.repricing.run import run
from tests.waiting import until

if TYPE_CHECKING:
    from gateway.repricing.drafting import DraftResult  # loads numpy, which a ready draft does without

HANGS_S = 600.0
DRAFTING = "reading a draft"
"""The step that a run reports when it waits for the file."""


def write(path: Path, result: DraftResult) -> None:
    """Write a draft to a file, all at once."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(asdict(result)))
    beside.rename(path)


def command(path: Path) -> tuple[str, ...]:
    """Return the command of a ``Scheduler`` whose drafts are those of a file."""
    return sys.executable, "-m", __name__, str(path)


def main() -> None:
    path, run_id, attempt = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

    def read(*arguments: Any) -> Any:
        report = arguments[-1]
        report(DRAFTING, 50)
        until(path.exists, HANGS_S)
        result: Mapping[str, Any] = json.loads(path.read_text())
        return SimpleNamespace(**result)

    run(run_id, attempt, read)


if __name__ == "__main__":
    main()
