"""How the worth of an answer falls while a customer waits, by family of delay."""

from __future__ import annotations

import numpy as np

from pricing.market.answers import Floats


def remaining(delay: str, urgency_per_s: Floats, time_s: Floats) -> Floats:
    """Return the share of an answer's worth that is left after a wait.

    Args:
        delay: ``exponential`` e^(-r t), ``hyperbolic`` 1/(1 + r t), ``linear`` (1 - r t)^+,
            ``sunk_linear`` 1: there the wait is subtracted, answer or not.
        urgency_per_s: r, 1/s. Shape (n,).
        time_s: t, seconds. Shape (m,).

    Returns:
        Shares in [0, 1], shape (n, m).
    """
    waited = urgency_per_s[:, None] * time_s
    if delay == "exponential":
        return np.exp(np.negative(waited, out=waited), out=waited)
    if delay == "hyperbolic":
        return np.reciprocal(np.add(waited, 1.0, out=waited), out=waited)
    if delay == "linear":
        return np.maximum(np.subtract(1.0, waited, out=waited), 0.0, out=waited)
    return np.ones_like(waited)
