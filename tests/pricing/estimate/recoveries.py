"""What ``make recovery`` prints: profits of menus of estimated markets, and a fit's warnings about other customers."""

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
        help="part of a market's name, or choices, value, arms, command, tiers, robust, honest, violations, or part of a violation's name",
    )
    arguments = parser.parse_args()
    if arguments.only == "arms":
        of_arms(arguments.seeds)
        return
    if arguments.only == "command":
        of_commands(arguments.seeds)
        return
    if arguments.only == "tiers":
        of_tiers(arguments.seeds)
        return
    if arguments.only == "robust":
        of_robust(arguments.seeds)
        return
    of_markets(arguments.seeds, arguments.only)
    is_part = arguments.only not in ("value", "choices") and any(arguments.only in name for name in VIOLATIONS)
    if arguments.only in "violations" or arguments.only == "honest" or is_part:
        of_violations(arguments.seeds, arguments.only)


if __name__ == "__main__":
    main()
