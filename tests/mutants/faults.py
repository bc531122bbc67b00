"""The list of faults: one line of the code each, with the promise that it breaks and the tests that notice it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LISTS = Path(__file__).parent / "faults"

PROMISES = frozenset(
    {
        "cap",  # never a token over a cap, a quota or a spend limit
        "balance",  # granted = used + held + remaining
        "record",  # one record for each call, the same in every store, and no record changes
        "crash",  # nothing is lost or doubled, whichever process dies
        "menu",  # a call runs and is billed under one version of the menu
        "certificate",  # no menu is published that fails its certificate
        "billing",  # every token made is billed at its price
        "strangers",  # a caller without a right to call is refused, and its cost is bounded
        "secrets",  # nothing secret is stored in clear, or shown
        "model",  # every tier has the same model
    }
)
"""The promise that a serious fault breaks, in a word."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One line that is wrong.

    Args:
        path: the file, from the root on.
        old: the text without the fault, which occurs once.
        new: the text with the fault.
        breaks: the promise that it breaks; None if the fault is not serious.
        tests: the tests that notice it, as arguments of pytest.
    """

    path: str
    old: str
    new: str
    breaks: str | None
    tests: tuple[str, ...]

    @property
    def room(self) -> str:
        """The room of the file: the first two folders of its path, and ``lua`` if it is deeper."""
        folders = self.path.split("/")[:-1]
        return "/".join([*folders[:2], *(folder for folder in folders[2:] if folder == "lua")])

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py")

    def put_into(self, text: str) -> str:
        """Return the file's text with the fault put in.

        Raises:
            ValueError: the old text does not occur exactly once.
        """
        if (times := text.count(self.old)) != 1:
            raise ValueError(f"{self.path}: {self.old!r} stands there {times} times")
        return text.replace(self.old, self.new)

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.path}: {old} → {new}" + (f" ({self.breaks})" if self.breaks else "")


def faults() -> list[Fault]:
    """Return all faults, file by file."""
    return [fault for path in sorted(LISTS.glob("*.toml")) for fault in _read(path)]


def _read(path: Path) -> Iterator[Fault]:
    for part in tomllib.loads(path.read_text("utf-8"))["file"]:
        tests = tuple(f"tests/{test}" for test in part["tests"])
        for old, new, *breaks in part["faults"]:
            yield Fault(part["path"], old, new, breaks[0] if breaks else None, tests)
