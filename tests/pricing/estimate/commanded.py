"""Profits of the menus that the command line makes from an estimate by default, the rows of the table in the README.

``make recovery ARGS="--only command --seeds 3"`` prints it, with ``tokencap price menu`` on the files of ``fit``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from pricing.estimate.as_market import market_of, priced
from pricing.estimate.fit import fit
from pricing.estimate.given import Given
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.uncertainty import profit_of
from tests.pricing.estimate.recovery import CASES, DRAWS, SIZES, WORTH, Case, profit_in, truth_of

COMMAND = (sys.executable, "-m", "gateway.cli.main", "price", "menu")


def by_command(case: Case, customers: int, conversations: int, seed: int) -> float:
    """Return the profit of the command line's menu in the true market, as a share of the maximum there."""
    random = np.random.default_rng(seed)
    seen = case.watch(case.truth, customers, conversations, random)
    estimate = fit(seen, Given(WORTH, 0.0), draws=DRAWS, random=random)
    with tempfile.TemporaryDirectory() as place:
        market, menu = Path(place, "market.json"), Path(place, "menu.json")
        market.write_text(json.dumps(market_of(estimate, priced(estimate))))
        subprocess.run([*COMMAND, "--market", str(market), "--out", str(menu)], check=True, stdout=subprocess.DEVNULL)
        tiers = json.loads(menu.read_text())["tiers"]
    caps = [tier["conversation_tokens_max"] for tier in tiers]
    there = truth_of(case, estimate.length.identified_to_tokens)
    tokens = np.array([10**9 if cap is None else cap for cap in caps], dtype=np.int64)
    earned = profit_of(there, tokens, np.array([tier["price_nanousd"] for tier in tiers], dtype=np.float64))
    return earned / profit_in(there, there, full_menu(there).caps)


def of_commands(seeds: int) -> None:
    """Print the table."""
    print("| market | size | menus of the command line, mean | worst |\n|---|---|---|---|")
    for name, case in CASES.items():
        for customers, conversations in reversed(SIZES):
            found = [by_command(case, customers, conversations, seed) for seed in range(seeds)]
            print(f"| {name} | {customers:,} × {conversations} | {np.mean(found):.3f} | {min(found):.3f} |", flush=True)
