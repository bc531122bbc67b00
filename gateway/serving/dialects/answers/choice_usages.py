"""Finds out whether each usage in a stream of several choices counts one choice or all of them."""

from __future__ import annotations

from typing import Any

from gateway.serving.dialects.parameters import Parameters
from gateway.serving.meter import Usage, sum_of


class ChoiceUsages:
    """Adds up the usages of an upstream that counts each choice separately.

    Args:
        choices: the number of choices, at least two.
        counted_apart: whether the upstream reports one usage for each choice, at the end of the choice.
        runs_apart: whether each running usage is known to count only the choice in the same chunk. If unknown, the
            figures show it: a figure that comes with text and is not above another choice's figure counts one choice.
    """

    def __init__(self, choices: int, *, counted_apart: bool, runs_apart: bool) -> None:
        self._choices = choices
        self._counted_apart = counted_apart
        self._is_known = self._runs_apart = runs_apart
        self.is_partial = False
        """Whether the latest figure may lack choices that have no figure yet."""
        self._apart: list[Usage] = []
        self._running: dict[int, Usage] = {}  # the latest usage of each choice

    @classmethod
    def of(cls, request: Parameters) -> ChoiceUsages | None:
        """Return an object that adds up the usages of a call's choices, or None for a call of one choice."""
        if request.choices == 1:
            return None
        return cls(request.choices, counted_apart=request.counted_apart, runs_apart=request.runs_apart)

    @property
    def are_all_here(self) -> bool:
        """Whether the usages of all choices have come, or none is reported separately."""
        return len(self._apart) in (0, self._choices)

    @property
    def largest_output(self) -> int | None:
        """The largest output of a choice, where the upstream reports a usage at the end of each choice."""
        return max(usage.output_tokens or 0 for usage in self._apart) if self._apart else None

    def of_all(self, reported: Usage, indices: list[Any], *, has_text: bool) -> Usage:
        """Return a usage that came with the choices ``indices``; if it lacks the other choices, theirs are added."""
        self.is_partial = False
        if self._counted_apart:
            self._apart = [*self._apart, reported][-self._choices :]
            return sum_of(reported, self._apart)
        if len(indices) == 1 and type(indices[0]) is int:
            return self._of_running(reported, indices[0], has_text=has_text)
        return reported

    def _of_running(self, reported: Usage, index: int, *, has_text: bool) -> Usage:
        tokens = reported.output_tokens or 0
        others = (usage.output_tokens or 0 for other, usage in self._running.items() if other != index)
        if has_text and any(tokens <= other for other in others):
            self._runs_apart = True
        so_far = sum_of(reported, self._running.values())
        if not has_text and not self._is_known and tokens >= (so_far.output_tokens or 0):
            return reported  # the last usage, which counts all choices
        self._running[index] = reported
        self.is_partial = len(self._running) < self._choices
        return sum_of(reported, self._running.values()) if self._runs_apart else reported
