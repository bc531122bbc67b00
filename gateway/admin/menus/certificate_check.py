"""Checks a menu's certificate in a child process: no work of more than a millisecond runs on an event loop."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

from gateway.catalog.problems import Conflict, Invalid
from gateway.settings import PROGRAM, without_settings

COMMAND = (*PROGRAM, "price", "verify", "--json", "-")
BUSY_S = 10.0
PATIENCE_S = 45.0
"""BUSY_S and PATIENCE_S together are shorter than the claim of an Idempotency-Key."""
VIOLATED, NOT_A_MENU = 1, 2


class Checker:
    """Checks one menu at a time, so that posted menus take no CPU from callers."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()

    def check(self, menu: Mapping[str, Any]) -> None:
        """Return if the menu's certificate holds.

        Raises:
            Invalid: the certificate fails; ``violation`` names the worst place.
            Conflict: other menus are being checked.
        """
        if not self._one_at_a_time.acquire(timeout=BUSY_S):
            raise Conflict("Another menu is being checked; post this one again.", headers={"retry-after": "10"})
        try:
            menu_json = json.dumps(menu)
            completed = subprocess.run(  # noqa: S603 - the command is ours, the menu is only its input
                COMMAND,
                input=menu_json,
                env=without_settings(os.environ),
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Invalid(f"Checking this menu took more than {PATIENCE_S:g} s.") from error
        finally:
            self._one_at_a_time.release()
        if completed.returncode == 0:
            return
        sentence = (completed.stderr.strip().splitlines() or ["The menu could not be checked."])[-1]
        if completed.returncode in (VIOLATED, NOT_A_MENU):
            raise Invalid(sentence, code="certificate_violated", more={"violation": sentence})
        raise RuntimeError(f"checking a menu ended with {completed.returncode}: {sentence}")
