"""What the objects of the library have in common: how they are shown, and how what they are made of is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any


class Shown(ABC):
    """Something that has a summary, a table, a drawing and a JSON form."""

    @abstractmethod
    def summary(self) -> str:
        """Return it in a few lines."""

    @abstractmethod
    def to_columns(self) -> dict[str, list[Any]]:
        """Return it as columns of one length, by name."""

    @abstractmethod
    def plot(self) -> str:
        """Return it as a drawing, SVG text."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return it as a file says it."""

    def to_frame(self) -> Any:
        """Return its columns as a pandas ``DataFrame``.

        Raises:
            ImportError: pandas is not installed; the extra ``frames`` installs it.
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise ImportError(
                "to_frame takes pandas: pip install 'tokencap[frames]'; to_columns does without."
            ) from error
        return pandas.DataFrame(self.to_columns()).convert_dtypes()

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        """Return the drawing, which is what a notebook shows."""
        return self.plot()


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of as many cells each as lines, set in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def types_of(types: Sequence[tuple[float, float]] | None) -> dict[str, Any]:
    """Return urgencies and shares as a field of ``market.json``; nothing where there are none."""
    return {} if types is None else {"types": [{"urgency_per_s": r, "share": share} for r, share in types]}


def length_of(mean_tokens: float | None, lengths: Mapping[int, float] | None) -> dict[str, Any]:
    """Return lengths of answers as a field of ``market.json``; nothing where there are none."""
    if mean_tokens is not None:
        return {"answer_length": {"family": "exponential", "mean_tokens": mean_tokens}}
    if lengths is None:
        return {}
    listed = sorted(lengths.items())
    return {
        "answer_length": {
            "family": "table",
            "tokens": [tokens for tokens, _ in listed],
            "probability": [probability for _, probability in listed],
        }
    }
