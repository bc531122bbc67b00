"""What ``make recovery`` prints: how much menus of estimated markets earn, and what is said where customers are otherwise."""

from __future__ import annotations

import argparse

from tests.pricing.estimate.arms import of_arms
from tests.pricing.estimate.commanded import of_commands
from tests.pricing.estimate.recovery import of_markets
from tests.pricing.estimate.violations import VIOLATIONS, of_tiers, of_violations
from tests.pricing.menus.shifted import of_robust


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--only",
        default="",
        help="part of a market's name, or choices, value, arms, command, tiers, robust, honest, violations, or part of one's name",
    )
    asked = parser.parse_args()
    if asked.only == "arms":
        of_arms(asked.seeds)
        return
    if asked.only == "command":
        of_commands(asked.seeds)
        return
    if asked.only == "tiers":
        of_tiers(asked.seeds)
        return
    if asked.only == "robust":
        of_robust(asked.seeds)
        return
    of_markets(asked.seeds, asked.only)
    is_part = asked.only not in ("value", "choices") and any(asked.only in name for name in VIOLATIONS)
    if asked.only in "violations" or asked.only == "honest" or is_part:
        of_violations(asked.seeds, asked.only)


if __name__ == "__main__":
    main()
