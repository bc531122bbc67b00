"""The continuum of types in closed form, for r uniform and answers with a constant hazard: no code of the product."""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import lambertw


def cap(urgency: float, low: float, ratio: float = 0.0) -> float:
    """Return T = T0 - W0(k r T0 e^(r T0)) / r with T0 = g/G = 1/(r - low), k the ratio of cost to worth per second."""
    if urgency == low:
        return math.inf if not ratio else -math.log(ratio) / urgency
    free = 1 / (urgency - low)
    if not ratio:
        return free
    return free - float(lambertw(ratio * urgency * free * math.exp(urgency * free)).real) / urgency


def worth(urgency: float, seconds: float, rate: float) -> float:
    leaves = rate + urgency
    return rate / leaves * -math.expm1(-leaves * seconds)


def price(seconds: float, low: float, high: float, rate: float) -> float:
    """Return the price of a cap without cost: the most urgent type's worth, then each type's own marginal worth."""
    least = cap(high, low)
    rise, _ = quad(lambda t: rate * math.exp(-(rate + low + 1 / t) * t), least, seconds, epsabs=1e-14, epsrel=1e-14)
    return worth(high, least, rate) + rise


def profit(low: float, high: float, rate: float) -> float:
    """Return the profit without cost: the integral over time of the best Q_k d(r_k, t) times the density of endings."""

    def best(t: float) -> float:
        urgency = min(high, low + 1 / t) if t else high
        return (urgency - low) / (high - low) * math.exp(-urgency * t)

    turn = 1 / (high - low)
    first, _ = quad(lambda t: rate * math.exp(-rate * t) * best(t), 0, turn, epsabs=1e-15, epsrel=1e-12)
    rest, _ = quad(lambda t: rate * math.exp(-rate * t) * best(t), turn, math.inf, epsabs=1e-15, epsrel=1e-13)
    return first + rest


def tiers(count: int, rate: float) -> tuple[float, list[float], list[float]]:
    """Return profit, caps and prices of the best menu of ``count`` tiers, r uniform on [0, 1], without cost.

    The search is over the marginal types a_1 < ... < a_K; the caps between them follow, and T_1 is infinite.
    """

    def menu(marginal: np.ndarray) -> tuple[float, list[float], list[float]]:
        a = np.sort(np.clip(marginal, 1e-6, 1.0))
        caps = [math.inf, *(math.log(a[k] / a[k - 1]) / (a[k] - a[k - 1]) for k in range(1, count))]
        prices = [worth(a[-1], caps[-1], rate)]
        for k in range(count - 2, -1, -1):
            prices.insert(0, prices[0] + worth(a[k], caps[k], rate) - worth(a[k], caps[k + 1], rate))
        shares = np.diff(np.concatenate(([0.0], a)))
        return float(np.dot(shares, prices)), caps, prices

    start = np.linspace(1 / count, 1.0, count)
    found = minimize(
        lambda a: -menu(a)[0], start, method="Nelder-Mead", options={"xatol": 1e-12, "fatol": 1e-16, "maxiter": 10_000}
    )
    return menu(found.x)
