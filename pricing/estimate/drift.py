"""Whether customers have changed: the windows of time in which they left at other rates than in the last window."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from pricing.estimate.observations.statistics import Windows
from pricing.market.answers import Floats

ALPHA = 0.01
"""Windows are distinguished where chance alone would make them differ as much with less than this probability ..."""

DRIFT_LEAST = 0.03
"""... and where their rates differ by more than this share of their sum: with enough records every difference is
significant."""


def changed(windows: Windows) -> Windows | None:
    """Return the windows, with the last windows of equal rates joined; None if all rates are equal."""
    first = steady_from(windows)
    if first == 0:
        return None
    return Windows(
        windows.starts[: first + 1],
        np.column_stack((windows.disconnects[:, :first], windows.disconnects[:, first:].sum(axis=1))),
        np.column_stack((windows.waited_s[:, :first], windows.waited_s[:, first:].sum(axis=1))),
    )


def steady_from(windows: Windows) -> int:
    """Return the first window, counted from 0, since which customers left at the rate of the last window.

    Going back from the last window, each window is compared with all later windows, which were found alike. Every
    customer is compared with itself: with d, E in one period and d', E' in another, d E' - d' E has mean zero for every
    rate and every way in which waits end. So neither many urgencies nor another menu's caps look like a change. Not
    identified: a change of who the customers are, if no customer's own rate changes.
    """
    disconnects, waited = windows.disconnects.astype(np.float64), windows.waited_s
    first = len(windows.starts) - 1
    while first > 0:
        later = disconnects[:, first:].sum(axis=1), waited[:, first:].sum(axis=1)
        p_value, drift = _compared((disconnects[:, first - 1], waited[:, first - 1]), later)
        if p_value < ALPHA and abs(drift) > DRIFT_LEAST:
            break
        first -= 1
    return first


def _compared(before: tuple[Floats, Floats], after: tuple[Floats, Floats]) -> tuple[float, float]:
    """Return the p-value (two-sided) of equal rates before and after, and how much higher the rate was before.

    The difference is a share of the sum of the rates, from -1 to 1.
    """
    (early_d, early_s), (late_d, late_s) = before, after
    total_s = np.maximum(early_s + late_s, 1e-300)
    more, less = early_d * late_s / total_s, late_d * early_s / total_s
    score, weight = more - less, float((more + less).sum())
    scale = float(np.sqrt(np.dot(score, score)))
    if scale == 0:
        return 1.0, 0.0
    return float(2 * ndtr(-abs(score.sum()) / scale)), float(score.sum()) / weight
