"""Markets for tests: the worked examples, and random markets of every kind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Json = dict[str, Any]

LOGNORMAL_URGENCY = (0.005, 0.02, 0.06, 0.15)
LOGNORMAL_SHARE = (0.2, 0.3, 0.3, 0.2)


def market(**changes: Any) -> Json:
    """Return a small market of four types; ``changes`` replace its fields, None removes one."""
    description: Json = {
        "types": types(LOGNORMAL_URGENCY, LOGNORMAL_SHARE),
        "value_nanousd": 20_000_000,
        "delay": {"family": "exponential"},
        "answer_length": {"family": "exponential", "mean_tokens": 400},
        "tokens_per_s": 50,
        "first_token_s": 0.4,
        "cost_nanousd_per_token": 0,
        "currency": "USD",
    }
    description.update(changes)
    return {field: value for field, value in description.items() if value is not None}


def types(urgency: Any, share: Any) -> list[Json]:
    return [{"urgency_per_s": float(r), "share": float(q)} for r, q in zip(urgency, share, strict=True)]


def lognormal() -> Json:
    """Return the market of mechanism.md, section 5.5, with the value in 10^9 units."""
    tokens = list(range(25, 10_001, 25))
    reached = [0.0] + [0.5 * (1 + math.erf(math.log(n / 600) / math.sqrt(2))) for n in tokens]
    return market(
        value_nanousd=10**9,
        answer_length={"family": "table", "tokens": tokens, "probability": np.diff(reached).tolist()},
        first_token_s=0,
        cap_tokens_max=10_000,
    )


def random_market(random: np.random.Generator, *, types_max: int, steps_max: int, cost: bool = False) -> Json:
    """Return a market with an irregular table of answers, an uneven grid, and types in any order."""
    n = int(random.integers(1, types_max + 1))
    m = int(random.integers(1, steps_max + 1))
    share = random.dirichlet(np.full(n, random.choice([0.5, 1.0, 5.0]))) + 1e-3
    probability = random.dirichlet(np.full(m, random.choice([0.3, 1.0, 5.0]))) * random.uniform(0.5, 1.0)
    tokens = np.cumsum(random.integers(1, 30, size=m))
    speed, first = float(random.uniform(5, 100)), float(random.choice([0.0, random.uniform(0, 2)]))
    patience_s = (first + tokens[-1] / speed) / 2
    urgency = random.permutation(np.cumsum(random.exponential(size=n) ** 2 * 0.5 + 1e-3)) / patience_s
    survival = 1 - np.concatenate(([0.0], np.cumsum(probability)[:-1]))
    break_even = probability.sum() / np.dot(np.diff(tokens, prepend=0), survival)
    return market(
        types=types(urgency, share / share.sum()),
        value_nanousd=1.0,
        answer_length={
            "family": "table",
            "tokens": tokens.tolist(),
            "probability": probability.tolist(),
        },
        tokens_per_s=speed,
        first_token_s=first,
        cost_nanousd_per_token=float(random.uniform(0, 0.8) * break_even) if cost else 0,
        cost_on_disconnect=str(random.choice(["stops", "runs"])),
        cap_tokens_max=100_000,
    )
