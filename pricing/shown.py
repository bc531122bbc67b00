"""The common interface of the library's objects, summary, table, drawing and JSON, and fields of ``market.json``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any


class Shown(ABC):
    """An object with a summary, a table, a drawing and a JSON form."""

    @abstractmethod
    def summary(self) -> str:
        """Return the summary, a few lines of text."""

    @abstractmethod
    def to_columns(self) -> dict[str, list[Any]]:
        """Return the table as columns of one length, by name."""

    @abstractmethod
    def plot(self) -> str:
        """Return the drawing, SVG text."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, as files contain it."""

    def to_frame(self) -> Any:
        """Return the columns as a pandas ``DataFrame``.

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
        """Return the drawing, which a notebook shows."""
        return self.plot()


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows with equal numbers of cells as lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def types_of(types: Sequence[tuple[float, float]] | None) -> dict[str, Any]:
    """Return urgencies and shares as a field of ``market.json``; no field if ``types`` is None."""
    return {} if types is None else {"types": [{"urgency_per_s": r, "share": share} for r, share in types]}


def length_of(mean_tokens: float | None, lengths: Mapping[int, float] | None) -> dict[str, Any]:
    """Return lengths of answers as a field of ``market.json``; no field if both are None."""
    if mean_tokens is not None:
        return {"answer_length": {"family": "exponential", "mean_tokens": mean_tokens}}
    if lengths is None:
        return {}
    table = sorted(lengths.items())
    return {
        "answer_length": {
            "family": "table",
            "tokens": [tokens for tokens, _ in table],
            "probability": [probability for _, probability in table],
        }
    }
