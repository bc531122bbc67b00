"""An operator's checked wishes for a menu, besides the market: part of the menu's version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pricing.market.neighbourhood import Neighbourhood
from pricing.menus.menu import NAME, NotAMenu, whole
from pricing.menus.objectives import Further, Term, WorseOff

OBJECTIVES = ("profit", "profit_if_resumed")
"""The profit that a menu maximises: from callers who buy once, or from callers who resume where that pays."""

HAND_LIMITS = (
    "period_tokens_max",
    "conversation_input_tokens_max",
    "requests_per_minute",
    "concurrency_max",
    "spend_nanousd_max",
    "end_user_period_tokens_max",
)
"""Limits that an operator may add to a computed tier; they are outside the mechanism."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """The operator's wishes for a menu, besides the market: part of its version."""

    tiers: int | None = None
    bill: str = "conversation"
    names: tuple[str, ...] | None = None
    included_conversations: int = 30
    objective: str = "profit"
    limits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    surplus_weight: float = 0.0
    everyone: bool = False
    robust: Neighbourhood | None = None
    terms: tuple[Term, ...] = ()
    worse_off: WorseOff | None = None

    def to_json(self) -> dict[str, Any]:
        return self._plain() | self._further()

    def _further(self) -> dict[str, Any]:
        """Return the optional wishes that are set; the file omits the others."""
        wishes_set: dict[str, Any] = {}
        if self.surplus_weight:
            wishes_set["surplus_weight"] = self.surplus_weight
        if self.everyone:
            wishes_set["everyone"] = True
        if self.robust is not None:
            wishes_set["robust"] = self.robust.to_json()
        if self.terms:
            wishes_set["terms"] = [term.to_json() for term in self.terms]
        if self.worse_off is not None:
            wishes_set["worse_off"] = self.worse_off.to_json()
        return wishes_set

    def _plain(self) -> dict[str, Any]:
        return {
            "tiers": self.tiers,
            "bill": self.bill,
            "names": None if self.names is None else list(self.names),
            "included_conversations": self.included_conversations if self.bill == "subscription" else None,
            "objective": self.objective,
            "limits": {name: dict(limits) for name, limits in self.limits.items()},
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Wishes:
        """Return the wishes stated in a menu.

        Raises:
            NotAMenu: the wishes are malformed.
        """
        names, limits, included = given.get("names"), given.get("limits", {}), given.get("included_conversations")
        if not isinstance(limits, Mapping) or not all(
            isinstance(tier_limits, Mapping) for tier_limits in limits.values()
        ):
            raise NotAMenu("limits is an object of tier names.", "limits")
        if names is not None and not isinstance(names, list | tuple):
            raise NotAMenu("names is a list.", "names")
        return wishes(
            tiers=given.get("tiers"),
            bill=given.get("bill", "conversation"),
            names=names,
            included_conversations=30 if included is None else included,
            objective=given.get("objective", "profit"),
            limits=limits,
            further=Further.from_json(given),
        )


def wishes(
    *,
    tiers: int | None,
    bill: str,
    names: Sequence[str] | None,
    included_conversations: int = 30,
    objective: str = "profit",
    limits: Mapping[str, Mapping[str, int]] | None = None,
    further: Further | None = None,
) -> Wishes:
    """Return checked wishes.

    Raises:
        NotAMenu: a wish cannot be granted.
    """
    if tiers is not None and (isinstance(tiers, bool) or not isinstance(tiers, int) or tiers < 1):
        raise NotAMenu("The number of tiers is a whole number from 1.", "tiers")
    if bill not in ("conversation", "subscription"):
        raise NotAMenu("bill is 'conversation' or 'subscription'.", "bill")
    if objective not in OBJECTIVES:
        raise NotAMenu(f"objective is {' or '.join(map(repr, OBJECTIVES))}.", "objective")
    if names is not None:
        malformed = [name for name in names if not isinstance(name, str) or not NAME.fullmatch(name)]
        if malformed:
            raise NotAMenu(f"{malformed[0]!r} is not a tier's name: 1 to 64 letters, digits, dots, dashes.", "names")
        if len(set(names)) != len(names):
            raise NotAMenu("Two tiers share a name.", "names")
    if not whole(included_conversations, "included_conversations"):
        raise NotAMenu("included_conversations is a whole number from 1.", "included_conversations")
    for name, tier_limits in (limits or {}).items():
        for limit, value in tier_limits.items():
            if limit not in HAND_LIMITS:
                raise NotAMenu(f"{limit} of tier {name} cannot be typed into a computed menu.", limit)
            if whole(value, limit) is None:
                raise NotAMenu(f"{limit} of tier {name} is a whole number.", limit)
    objectives = further or Further()
    objectives.check(objective)
    return Wishes(
        tiers=tiers,
        bill=bill,
        names=None if names is None else tuple(names),
        included_conversations=included_conversations,
        objective=objective,
        limits=limits or {},
        surplus_weight=objectives.surplus_weight,
        everyone=objectives.everyone,
        robust=objectives.robust,
        terms=objectives.terms,
        worse_off=objectives.worse_off,
    )


def usable(name: str, limits: Mapping[str, int], tokens: int, price: int) -> None:
    """Refuse limits of a tier that do not allow even one conversation.

    Args:
        name: name of the tier.
        limits: the limits added to the tier.
        tokens: tokens of one conversation: its cap, or the average where there is no cap.
        price: price of one conversation, nano-units.

    Raises:
        NotAMenu: a limit is too low.
    """
    least = {
        "period_tokens_max": tokens,
        "end_user_period_tokens_max": tokens,
        "conversation_input_tokens_max": 1,
        "spend_nanousd_max": price,
    }
    for limit, value in limits.items():
        if value < least.get(limit, 0):
            raise NotAMenu(f"{limit} of tier {name} is {value}, and one conversation takes {least[limit]}.", limit)
