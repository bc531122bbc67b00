"""An operator's objectives for a menu besides profit: customers' surplus, everyone served, terms, robustness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pricing.market.neighbourhood import Neighbourhood
from pricing.menus.menu import NotAMenu, whole
from pricing.money import MOST


@dataclass(frozen=True, slots=True)
class Term:
    """A term of one tier: its highest price, or the least surplus of every type that takes it.

    Attributes:
        tier: the tier's place, 1 for the smallest.
        price_nanousd_max: the highest price, None for any.
        surplus_nanousd_min: the least surplus of the tier's customers, None for any.
    """

    tier: int
    price_nanousd_max: int | None = None
    surplus_nanousd_min: int | None = None

    def to_json(self) -> dict[str, int]:
        limits = {"price_nanousd_max": self.price_nanousd_max, "surplus_nanousd_min": self.surplus_nanousd_min}
        return {"tier": self.tier} | {name: value for name, value in limits.items() if value is not None}

    @classmethod
    def from_json(cls, given: Any) -> Term:
        """Return a term.

        Raises:
            NotAMenu: the term is malformed or empty.
        """
        if not isinstance(given, Mapping) or not set(given) <= {"tier", "price_nanousd_max", "surplus_nanousd_min"}:
            raise NotAMenu("terms is a list of {tier, price_nanousd_max, surplus_nanousd_min}.", "terms")
        tier, most, least = given.get("tier"), given.get("price_nanousd_max"), given.get("surplus_nanousd_min")
        if isinstance(tier, bool) or not isinstance(tier, int) or tier < 1:
            raise NotAMenu("The tier of a term is its place, 1 for the smallest.", "terms")
        if most is None and least is None:
            raise NotAMenu("A term has price_nanousd_max or surplus_nanousd_min.", "terms")
        return cls(tier, whole(most, "price_nanousd_max"), whole(least, "surplus_nanousd_min"))


@dataclass(frozen=True, slots=True)
class WorseOff:
    """A limit on the share of customers who keep less than they do with today's menu.

    Attributes:
        share_max: the limit, as a share of all conversations offered.
        caps_tokens: today's caps, None for no cap.
        prices_nanousd: today's price for each cap.
    """

    share_max: float
    caps_tokens: tuple[int | None, ...]
    prices_nanousd: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        tiers = zip(self.caps_tokens, self.prices_nanousd, strict=True)
        today = [{"conversation_tokens_max": cap, "price_nanousd": price} for cap, price in tiers]
        return {"share_max": self.share_max, "today": today}

    @classmethod
    def from_json(cls, given: Any) -> WorseOff:
        """Return the condition; today's tiers may be the tiers of a complete menu.

        Raises:
            NotAMenu: the condition is malformed.
        """
        today = given.get("today") if isinstance(given, Mapping) else None
        if not isinstance(today, list) or not today or not all(isinstance(tier, Mapping) for tier in today):
            raise NotAMenu("worse_off has share_max and today, a list of tiers.", "worse_off")
        share = _share(given.get("share_max"), "share_max of worse_off")
        caps = tuple(whole(tier.get("conversation_tokens_max"), "conversation_tokens_max") for tier in today)
        prices = tuple(whole(tier.get("price_nanousd"), "price_nanousd") or 0 for tier in today)
        return cls(share, caps, prices)


@dataclass(frozen=True, slots=True)
class Further:
    """All further objectives together; by default there are none."""

    surplus_weight: float = 0.0
    everyone: bool = False
    robust: Neighbourhood | None = None
    terms: tuple[Term, ...] = ()
    worse_off: WorseOff | None = None

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Further:
        """Return the further objectives.

        Raises:
            NotAMenu, NotAMarket: an objective is malformed.
        """
        terms, robust, worse_off = given.get("terms", []), given.get("robust"), given.get("worse_off")
        if not isinstance(terms, list):
            raise NotAMenu("terms is a list.", "terms")
        if not isinstance(given.get("everyone", False), bool):
            raise NotAMenu("everyone is true or false.", "everyone")
        if robust is not None and not isinstance(robust, Mapping):
            raise NotAMenu("robust is an object.", "robust")
        return cls(
            surplus_weight=_share(given.get("surplus_weight", 0.0), "surplus_weight"),
            everyone=given.get("everyone", False),
            robust=None if robust is None else Neighbourhood.from_json(robust),
            terms=tuple(Term.from_json(term) for term in terms),
            worse_off=None if worse_off is None else WorseOff.from_json(worse_off),
        )

    def check(self, objective: str) -> None:
        """Refuse objectives that exclude each other.

        Raises:
            NotAMenu: two objectives exclude each other.
        """
        _share(self.surplus_weight, "surplus_weight")
        exact = bool(self.surplus_weight or self.everyone)
        needs_search = bool(self.terms or self.worse_off is not None)
        if objective != "profit" and (exact or needs_search or self.robust is not None):
            raise NotAMenu(
                "The objective profit_if_resumed cannot be combined with another objective, limit or condition.",
                "objective",
            )
        if self.robust is not None and (exact or needs_search):
            raise NotAMenu("A robust menu cannot be combined with another objective, limit or condition.", "robust")


def _share(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 or value > MOST:
        raise NotAMenu(f"{field} is a number from 0 to 1.", field.split(maxsplit=1)[0])
    return float(value)
