"""Tells whether the usages in a stream of several choices are of one choice or of all of them."""

from __future__ import annotations

from typing import Any

from gateway.serving.dialects.parameters import Parameters
from gateway.serving.meter import Usage, sum_of


class ChoiceUsages:
    """Adds up the usages of an upstream that counts each choice by itself.

    Args:
        choices: their number, two at least.
        counted_apart: whether the upstream reports one usage of each choice, at its end.
        runs_apart: whether each of its running usages is known to be of the one choice beside it. Another upstream
            shows it: a figure that is not above another choice's, though text came since, is of one choice alone.
    """

    def __init__(self, choices: int, *, counted_apart: bool, runs_apart: bool) -> None:
        self._choices = choices
        self._counted_apart = counted_apart
        self._is_known = self._runs_apart = runs_apart
        self.is_partial = False
        """Whether the newest figure may lack choices that have no figure yet."""
        self._apart: list[Usage] = []
        self._running: dict[int, Usage] = {}  # the newest of each choice

    @classmethod
    def of(cls, request: Parameters) -> ChoiceUsages | None:
        """Return the adder of the usages of a call's choices, or None where there is only one choice."""
        if request.choices == 1:
            return None
        return cls(request.choices, counted_apart=request.counted_apart, runs_apart=request.runs_apart)

    @property
    def are_all_here(self) -> bool:
        """Whether no choice's own usage is still to come."""
        return len(self._apart) in (0, self._choices)

    @property
    def largest_output(self) -> int | None:
        """The output of the choice with the most, where the upstream reports each choice's usage at its end."""
        return max(usage.output_tokens or 0 for usage in self._apart) if self._apart else None

    def of_all(self, reported: Usage, indices: list[Any], *, has_text: bool) -> Usage:
        """Return a usage that came beside the choices of ``indices``, with those of the other choices added."""
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
            return reported  # the last usage, of all choices
        self._running[index] = reported
        self.is_partial = len(self._running) < self._choices
        return sum_of(reported, self._running.values()) if self._runs_apart else reported
