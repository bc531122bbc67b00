"""Laws of length compared: the worked example, three laws with the same average wait."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pricing.comparisons.models import compare_models
from pricing.market.fields import NotAMarket
from pricing.market.market import Market, read_market
from tests.pricing import markets

STEPS = 3_000
"""Steps of a hundredth of a second, up to 30 s."""


def law(beyond: Any) -> Market:
    """Return a market with urgency uniform on [1, 2] whose answers exceed t seconds with chance ``beyond(t)``."""
    reached = np.array([1 - beyond(step / 100) for step in range(STEPS + 1)])
    return read_market(
        markets.market(
            types=None,
            urgency={"family": "uniform", "low_per_s": 1, "high_per_s": 2, "points": 200},
            answer_length={
                "family": "table",
                "tokens": list(range(1, STEPS + 1)),
                "probability": np.maximum(np.diff(reached), 0.0).tolist(),
            },
            value_nanousd=1e9,
            tokens_per_s=100,
            first_token_s=0,
            cap_tokens_max=STEPS,
        )
    )


def diffusion(t: float) -> float:
    """Return the chance that Brownian motion has not left a symmetric interval, which takes 2 s on average."""
    if t == 0:
        return 1.0
    terms = ((-1) ** k / (2 * k + 1) * math.exp(-((2 * k + 1) ** 2) * math.pi**2 * t / 16) for k in range(60))
    return 4 / math.pi * sum(terms)


LAWS = {"constant": lambda t: float(t < 2 - 1e-9), "diffusion": diffusion, "poisson": lambda t: math.exp(-t / 2)}


def test_the_worked_example() -> None:
    """All laws take 2 s on average; the paper reports 0.025, 0.12 and 0.202. A law with more spread earns more."""
    found = compare_models({name: law(beyond) for name, beyond in LAWS.items()})

    assert [model.name for model in found] == ["poisson", "diffusion", "constant"]
    assert {model.name: model.profit / 1e9 for model in found} == pytest.approx(
        {"poisson": 0.2010, "diffusion": 0.1196, "constant": 0.0249}, rel=0.01
    )
    assert found[0].behind == 0
    assert found[2].behind == pytest.approx(found[0].profit - found[2].profit)


def test_constant_delay_in_closed_form() -> None:
    """No cap separates types, so one price is best: max (r - 1) e^(-2 r) = e^-3 / 2, less the loss by 200 types."""
    market = law(LAWS["constant"])
    best, _ = compare_models({"once": market, "again": market})

    assert best.profit / 1e9 == pytest.approx(math.exp(-3) / 2, rel=1e-3)
    assert best.profit == pytest.approx(best.single_plan, rel=1e-9)


def test_depth_of_reasoning() -> None:
    """Value rises ever more slowly with depth while answers get longer: neither extreme of depth is best."""
    depths = {
        str(depth): read_market(
            markets.market(
                value_nanousd=1e9 * (1 - 0.6**depth),
                answer_length={"family": "exponential", "mean_tokens": 100 * depth},
            )
        )
        for depth in (1, 2, 3, 4, 8)
    }

    assert compare_models(depths)[0].name not in ("1", "8")


def test_one_model_alone_or_two_currencies_are_no_comparison() -> None:
    one = read_market(markets.market())

    with pytest.raises(NotAMarket, match="at least two"):
        compare_models({"one": one})
    with pytest.raises(NotAMarket, match="one currency"):
        compare_models({"one": one, "two": read_market(markets.market(currency="EUR"))})
