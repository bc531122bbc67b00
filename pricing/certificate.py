"""Check a ``menu.json`` from the file alone: every figure of the file is computed again and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pricing.bounds.bound import Multipliers
from pricing.market.fields import NotAMarket
from pricing.market.market import Market, read_market
from pricing.market.worth import Valuation, own_tokens, worth_at, worth_error
from pricing.mechanism.conditions import conditions
from pricing.mechanism.mechanism import Allocation
from pricing.mechanism.offers import Offer, offer_of
from pricing.mechanism.rounding import Published, publish
from pricing.menus.aims import TIERS_MOST
from pricing.menus.menu import Menu, NotAMenu
from pricing.menus.menus import composed, digests, version_of
from pricing.menus.request import Wishes
from pricing.menus.sales import own_worth
from pricing.menus.seek import Score
from pricing.menus.solving import Solution, solve
from pricing.money import MOST

SAME = 1e-11
"""Relative difference below which two computations of a figure agree, on any machine."""

AGREE = 1e-9
"""Relative difference below which two ways to the same profit agree."""

TIE = 1e-13
"""Relative difference in profit below which two sets of caps are equally good."""

FOUND = 1e-8
"""The relative difference by which a file's offer may score less than the offer that the check itself finds."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a menu is what it claims; if not, the violation in one sentence. Amounts are in nano-units."""

    ok: bool
    violation: str | None
    own_choice_slack: float = 0.0
    participation_slack: float = 0.0
    worth_error: float = 0.0
    profit: float = 0.0
    upper_bound: float = 0.0
    gap_share: float = 0.0
    profit_if_resumed: float = 0.0
    resume_gain: float = 0.0


@dataclass(frozen=True, slots=True)
class Difference:
    """A place in the file whose value is not the expected value."""

    path: str
    found: Any
    expected: Any

    def sentence(self, broken: str | None) -> str:
        """Return the difference in one sentence, with the condition that it breaks, if any."""
        wrong = f"{self.path} is {_shown(self.found)}, where {_shown(self.expected)} belongs"
        return f"{wrong}: {broken[0].lower()}{broken[1:]}" if broken else f"{wrong}."


Solver = Callable[[Market, Wishes, Multipliers], Solution]
"""Solves a market again with the multipliers of a file."""


def verify(menu: Any, solver: Solver = solve) -> Verdict:
    """Return whether a computed menu is right in every figure.

    The inputs are read from the file and solved again. Caps, assignment, prices, expectations, totals and the
    certificate are compared with the solution. Own choice and participation are checked on the published numbers
    themselves, so that an error of the solver is found too. The bound is evaluated with the file's multipliers, and
    every part is compared with its hash.

    Args:
        menu: the content of a ``menu.json``.
        solver: solves the market again; another solver shows which errors of it are found.
    """
    try:
        return _verified(menu, solver)
    except (NotAMenu, NotAMarket) as error:
        return Verdict(False, str(error))


def _verified(menu: Any, solver: Solver) -> Verdict:
    sold = Menu.from_json(menu)
    market_fields, certificate = _object(menu, "market"), _object(menu, "certificate")
    market, wished = read_market(market_fields), Wishes.from_json(_object(certificate, "wishes"))
    stale = _stale(menu, _object(certificate, "digests"))
    inputs = [part for part in stale if part.startswith("market.") or part == "certificate.wishes"]
    if inputs:
        return Verdict(False, f"{inputs[0]} was changed after the menu was computed: its hash differs.")
    if menu["version"] != version_of(market_fields, wished.to_json()):
        return Verdict(False, f"version is {_shown(menu['version'])}, which is not the hash of the menu's inputs.")
    multipliers = _multipliers(certificate)
    defect = multipliers.wrong(np.array(market.share) * (1 - wished.surplus_weight))
    if defect:
        return Verdict(False, f"certificate.bound does not hold: {defect}.")
    solution = solver(market, wished, multipliers)
    stated, unreadable = _stated(sold, menu.get("assignment"), solution.valuation)
    if stated is not None:
        solution = _tied(solution, stated, wished)
    recomputed = composed(market, wished, solution, menu["created"])
    differences = list(_differences(dict(menu), recomputed, ""))
    checked = None if stated is None else conditions(solution.valuation, stated, [tier.name for tier in sold.tiers])
    if differences:
        return Verdict(False, differences[0].sentence(checked.broken if checked else None))
    if stated is None or checked is None:
        return Verdict(False, unreadable)
    if violation := checked.broken or disagreement(certificate["profit_before_rounding"]):
        return Verdict(False, violation)
    if stale:
        return Verdict(False, f"{stale[0]} was changed after the menu was computed: its hash differs.")
    bound, totals = certificate["bound"], menu["totals"]
    return Verdict(
        ok=True,
        violation=None,
        own_choice_slack=checked.own_choice,
        participation_slack=checked.participation,
        worth_error=checked.error,
        profit=totals["profit_nanousd"],
        upper_bound=bound["upper_bound_nanousd"],
        gap_share=bound["gap_share"],
        profit_if_resumed=totals["profit_if_resumed_nanousd"],
        resume_gain=totals["resume_gain_nanousd"],
    )


def disagreement(profits: Mapping[str, float | None]) -> str | None:
    """Return a sentence if the profits computed in different ways disagree, None if they agree; a profit may be None."""
    ways = [way for way in profits.values() if way is not None]
    if max(ways) - min(ways) > AGREE * max(1.0, *map(abs, ways)):
        return f"certificate.profit_before_rounding gives profits that differ: {_shown(ways)}."
    return None


def _object(parent: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = parent.get(field)
    if not isinstance(value, Mapping):
        raise NotAMenu(f"A computed menu has {field}, an object.", field)
    return value


def _stale(menu: Mapping[str, Any], stated: Mapping[str, Any]) -> list[str]:
    """Return the names of the parts whose hash differs from the stated hash."""
    try:
        computed = digests(menu)
    except (TypeError, ValueError) as error:
        raise NotAMenu("The menu holds something that is not JSON.", "menu") from error
    return sorted(part for part in computed.keys() | stated.keys() if computed.get(part) != stated.get(part))


def _multipliers(certificate: Mapping[str, Any]) -> Multipliers:
    stated = _object(_object(certificate, "bound"), "multipliers")
    try:
        return Multipliers(
            np.array(stated.get("patient"), dtype=np.int64).reshape(-1),
            np.array(stated.get("urgent"), dtype=np.int64).reshape(-1),
            np.array(stated.get("flow"), dtype=np.float64).reshape(-1),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise NotAMenu("certificate.bound.multipliers are three lists of numbers.", "multipliers") from error


def _stated(sold: Menu, assignment: Any, valuation: Valuation) -> tuple[Published | None, str]:
    """Return the menu as the file states it, or None and the reason why the menu cannot be read."""
    steps, tiers = valuation.steps, sold.tiers
    on_grid = {steps.cap_tokens(cap): cap for cap in range(1, len(steps.tokens) + 1)}
    caps = [on_grid.get(tier.conversation_tokens_max) for tier in tiers]
    if None in caps:
        off_grid = tiers[caps.index(None)]
        return None, f"conversation_tokens_max of tier {off_grid.name} is not on the grid of the answers."
    position = {tier.name: number for number, tier in enumerate(tiers)}
    if not isinstance(assignment, list) or len(assignment) != len(valuation.share):
        return None, "assignment does not list every type of the market once."
    tier_names = [entry.get("tier") if isinstance(entry, Mapping) else None for entry in assignment]
    for name in tier_names:
        if name is not None and not (isinstance(name, str) and name in position):
            return None, f"assignment names {_shown(name)}, which is no tier of the menu."
    indices = np.array(caps, dtype=np.int64)
    rising = np.unique(indices)
    worth = worth_at(valuation, rising)[:, np.searchsorted(rising, indices)]
    takes = np.array([-1 if name is None else position[name] for name in tier_names], dtype=np.int64)
    prices = np.array([tier.price_nanousd for tier in tiers], dtype=np.int64)
    error = worth_error(valuation, len(rising))
    return Published(indices, prices, takes, worth, error, 0, 0.0, 0.0), ""


def _tied(solution: Solution, stated: Published, wished: Wishes) -> Solution:
    """Return the solution with the file's caps or offer in place of the solver's where they are equally good.

    Two sets of caps may be equally good, and the solver's choice between them may depend on the machine.
    """
    if solution.aim is not None and solution.offer is not None:
        return _as_good(solution, solution.aim.of(solution.valuation), offer_of(stated), wished)
    by_type, valuation = stated.by_type(), solution.valuation
    if np.array_equal(by_type, publish(valuation, solution.chosen.caps).by_type()):
        return solution
    falling = not np.any(np.diff(by_type) > 0)
    if not falling or (wished.tiers is not None and len(stated.caps) > wished.tiers):
        return solution
    cost = float(np.dot(valuation.share, own_tokens(valuation, by_type))) * valuation.cost_per_token
    profit = (1 - valuation.surplus_weight) * publish(valuation, by_type).surplus - cost
    if valuation.surplus_weight:
        profit += valuation.surplus_weight * float(np.dot(valuation.share, own_worth(valuation, by_type)))
    if abs(profit - solution.chosen.profit) > TIE * abs(solution.chosen.profit):
        return solution
    return replace(solution, chosen=Allocation(by_type, solution.chosen.profit))


def _as_good(solution: Solution, score: Score, stated: Offer, wished: Wishes) -> Solution:
    """Return the solution with the file's offer where it scores as much as the offer found here, to within ``FOUND``."""
    assert solution.offer is not None
    own_score = score(solution.offer)
    rises = bool(np.all(np.diff(stated.caps) > 0) and np.all(np.diff(stated.prices) > 0))
    if (
        not rises
        or len(stated.caps) > (wished.tiers or TIERS_MOST)
        or score(stated) < own_score - FOUND * abs(own_score)
    ):
        return solution
    return replace(solution, offer=stated)


def _differences(stated: Any, expected: Any, path: str) -> Iterator[Difference]:
    if isinstance(expected, dict) and isinstance(stated, Mapping):
        for key in expected:
            yield from _differences(stated.get(key), expected[key], f"{path}.{key}" if path else key)
        for key in stated:
            if key not in expected and (path, key) != ("certificate", "digests"):
                yield Difference(f"{path}.{key}" if path else key, stated[key], None)
    elif isinstance(expected, list) and isinstance(stated, list):
        if len(stated) != len(expected):
            yield Difference(f"the number of entries of {path}", len(stated), len(expected))
        for place, (stated_entry, expected_entry) in enumerate(zip(stated, expected, strict=False)):
            name = expected_entry.get("name") if isinstance(expected_entry, dict) else None
            yield from _differences(stated_entry, expected_entry, f"{path}[{name or place}]")
    elif not _same(stated, expected, path):
        yield Difference(path, stated, expected)


def _same(stated: Any, expected: Any, path: str) -> bool:
    if isinstance(stated, bool) or isinstance(expected, bool) or not isinstance(expected, int | float):
        return type(stated) is type(expected) and bool(stated == expected)
    if stated == expected:
        return True
    if isinstance(expected, int) or not isinstance(stated, int | float) or abs(stated) > MOST:
        return False
    absolute = 2e-6 if path.endswith(("_nanousd", ".tokens")) or "_nanousd[" in path else SAME
    return abs(stated - expected) <= absolute + SAME * abs(expected)


def _shown(value: Any) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
