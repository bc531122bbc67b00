"""How long the sampler of urgency runs, and how far its chains disagree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pricing.market.answers import Floats

READ_ROWS = 400_000
"""Rows times discarded sweeps, in the single chain of each of many readings, stay below this: cost grows with both."""


@dataclass(frozen=True, slots=True)
class Sweeps:
    """How long the sampler runs; the defaults are those of production.

    Attributes:
        chains: the number of chains, from different starts, of a single reading.
        burnt: discarded sweeps of each of these chains.
        kept: retained sweeps of each of these chains.
        each_least, each_most: with many readings, bounds of the discarded sweeps of the single chain of each reading,
            which retains as many sweeps as it discards.
    """

    chains: int = 4
    burnt: int = 150
    kept: int = 250
    each_least: int = 80
    each_most: int = 300

    def of(self, readings: int, rows: int) -> tuple[int, int, int]:
        """Return the chains of each reading, and the discarded and the retained sweeps of each chain.

        Args:
            readings: the number of readings.
            rows: the number of rows of the reading with the most rows.
        """
        if readings == 1:
            return self.chains, self.burnt, self.kept
        each = 2 * (min(self.each_most, max(self.each_least, READ_ROWS // max(1, rows))) // 2)
        return 1, each, each


FULL = Sweeps()


def disagreement(traces: Floats) -> float:
    """Return Gelman and Rubin's ratio: 1 if chains agree as well as their own lengths allow.

    Chains are compared within readings, not between them. Shape (readings, chains, sweeps).
    """
    within = float(traces.var(axis=2, ddof=1).mean())
    between = float(traces.mean(axis=2).var(axis=1, ddof=1).mean())
    return float(np.sqrt(1 + between / within)) if within > 0 else 1.0
