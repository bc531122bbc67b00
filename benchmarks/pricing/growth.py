"""The growth of the solvers' time with types and caps, against one ``exp`` over the same array: one command, one table.

python benchmarks/pricing/growth.py
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

from pricing.certificate import verify
from pricing.market.market import Market, read_market
from pricing.market.worth import valuation_of
from pricing.mechanism.mechanism import search
from pricing.mechanism.tiers import best_tiers
from pricing.menus.menus import optimal_menu

ROUNDS = 2
CREATED = "2025-01-01T00:00:00Z"


def market(types: int, steps: int, law: str) -> Market:
    """Return a market with cost: urgency uniform, answers exponential or lognormal, in steps of four tokens."""
    tokens = 4 * np.arange(1, steps + 1)
    lognormal = np.exp(-0.5 * np.log(tokens / 600) ** 2) / tokens
    chances = np.exp(-tokens / 600) if law == "exponential" else lognormal
    fields: dict[str, Any] = {
        "urgency": {"family": "uniform", "low_per_s": 0, "high_per_s": 0.15, "points": types},
        "value_nanousd": 20_000_000,
        "delay": {"family": "exponential"},
        "answer_length": {
            "family": "table",
            "tokens": tokens.tolist(),
            "probability": (chances / chances.sum()).tolist(),
        },
        "tokens_per_s": 50,
        "first_token_s": 0.3,
        "cost_nanousd_per_token": 1_000,
        "cap_tokens_max": int(tokens[-1]),
        "currency": "USD",
    }
    return read_market(fields)


def cpu_s(work: Callable[[], object]) -> float:
    """Return the least CPU time of some rounds."""
    spent = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def exp_s(types: int, steps: int) -> float:
    """Return the CPU time of one ``exp`` over an array of this size, its result newly allocated."""
    exponents = -np.outer(np.linspace(0, 0.15, types), np.arange(steps) * 0.08)
    return cpu_s(lambda: np.exp(exponents))


def in_a_child(work: Callable[..., None], *arguments: Any) -> float:
    """Return the peak memory of a piece of work in a process of its own, in MB."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_mb, (work, arguments))


def _peak_mb(work: Callable[..., None], arguments: tuple[Any, ...]) -> float:
    work(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def solve(types: int, steps: int) -> None:
    search(valuation_of(market(types, steps, "lognormal")))


def solve_tiers(types: int, steps: int) -> None:
    best_tiers(valuation_of(market(types, steps, "lognormal")), 5)


def make_and_verify(types: int, steps: int, tiers: int | None) -> None:
    menu = optimal_menu(
        market(types, steps, "lognormal"), tiers=tiers, bill="conversation", names=None, created=CREATED
    )
    assert verify(json.loads(json.dumps(menu))).ok


def line(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def against_exp() -> None:
    line("types × caps, with cost", "one exp", "full menu", "5 tiers")
    line("---", "---:", "---:", "---:")
    for law in ("exponential", "lognormal"):
        valuation = valuation_of(market(10_000, 4_096, law))
        reference = exp_s(10_000, 4_096)
        full = cpu_s(partial(search, valuation))
        tiers = cpu_s(partial(best_tiers, valuation, 5))
        ratios = (f"{full:.3f} s = {full / reference:.1f} ×", f"{tiers:.3f} s = {tiers / reference:.1f} ×")
        line(f"10,000 × 4,096, {law}", f"{reference:.3f} s", *ratios)


def growth() -> None:
    line("types × caps, lognormal", "full menu", "per cell", "5 tiers", "per cell")
    line("---", "---:", "---:", "---:", "---:")
    sizes = [(types, 1_024) for types in (1_250, 2_500, 5_000, 10_000)]
    sizes += [(2_500, steps) for steps in (512, 2_048, 4_096)]
    for types, steps in sizes:
        # Only small markets store the shares of worth left after a wait; here each solver computes them again.
        valuation = replace(valuation_of(market(types, steps, "lognormal")), kept=None)
        full = cpu_s(partial(search, valuation))
        tiers = cpu_s(partial(best_tiers, valuation, 5))
        cells = types * steps / 1e9
        line(
            f"{types:,} × {steps:,}",
            f"{full:.3f} s",
            f"{full / cells:.1f} ns",
            f"{tiers:.3f} s",
            f"{tiers / cells:.1f} ns",
        )


def whole_menus() -> None:
    line("complete menu with certificate, and its verification", "CPU", "in exp")
    line("---", "---:", "---:")
    for types, steps, tiers in ((1_000, 1_024, 4), (1_000, 1_024, None), (10_000, 4_096, 5), (10_000, 4_096, None)):
        spent = cpu_s(partial(make_and_verify, types, steps, tiers))
        name = "full menu" if tiers is None else f"{tiers} tiers"
        line(f"{types:,} × {steps:,}, {name}", f"{spent:.2f} s", f"{spent / exp_s(types, steps):.0f} ×")


def memory() -> None:
    line("10,000 × 4,096", "peak memory")
    line("---", "---:")
    line("full menu", f"{in_a_child(solve, 10_000, 4_096):.0f} MB")
    line("5 tiers", f"{in_a_child(solve_tiers, 10_000, 4_096):.0f} MB")
    line("complete menu of 5 tiers, verified", f"{in_a_child(make_and_verify, 10_000, 4_096, 5):.0f} MB")
    line("complete full menu, verified", f"{in_a_child(make_and_verify, 10_000, 4_096, None):.0f} MB")


def main() -> None:
    # A child's peak starts from its parent's, so memory is measured first.
    for table in (memory, against_exp, growth, whole_menus):
        table()
        print()


if __name__ == "__main__":
    main()
