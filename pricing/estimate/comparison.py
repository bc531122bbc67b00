"""A draft compared with the menu in force: on the estimated market, over the draws, and on recorded traffic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pricing.estimate.observations.statistics import LengthCounts
from pricing.market.answers import Floats, Ints
from pricing.market.worth import Valuation, tokens_at, worth_at
from pricing.menus.menu import Menu, Tier

LOW = 5
"""The percentile of the profits that represents a bad case."""

BEYOND = int(np.iinfo(np.int64).max)
NOTHING = -1

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sold:
    """A menu as customers see it, by rising caps: names, caps in tokens, prices in nano-units. Shapes (k,).

    The cap of a tier without a cap is ``BEYOND``.
    """

    names: tuple[str, ...]
    caps_tokens: Ints
    prices: Floats


@dataclass(frozen=True, slots=True)
class Taken:
    """What each type does with a menu: its tier's place, ``NOTHING`` for none, and its surplus and margin. Shapes (n,).

    Surplus and margin are nano-units.
    """

    tier: Ints
    surplus: Floats
    margin: Floats

    def profit(self, share: Floats) -> float:
        """Return the average margin of a conversation offered, nano-units."""
        return float(np.dot(share, self.margin))


def sold(menu: Menu) -> Sold:
    """Return a menu's tiers by rising caps."""

    def size(tier: Tier) -> int:
        return BEYOND if tier.conversation_tokens_max is None else tier.conversation_tokens_max

    tiers = sorted(menu.tiers, key=lambda tier: (size(tier), tier.price_nanousd))
    return Sold(
        tuple(tier.name for tier in tiers),
        np.array([size(tier) for tier in tiers], dtype=np.int64),
        np.array([tier.price_nanousd for tier in tiers], dtype=np.float64),
    )


def taken(valuation: Valuation, offer: Sold) -> Taken:
    """Return each type's best choice; of equally good tiers, the larger."""
    caps = np.searchsorted(valuation.steps.tokens, offer.caps_tokens, side="right")
    gains = worth_at(valuation, caps) - offer.prices
    tier = gains.shape[1] - 1 - gains[:, ::-1].argmax(axis=1)
    rows = np.arange(len(tier))
    costs = tokens_at(valuation, caps)[rows, tier] * valuation.cost_per_token
    buys = gains[rows, tier] >= 0
    return Taken(
        tier=np.where(buys, tier, NOTHING),
        surplus=np.where(buys, gains[rows, tier], 0.0),
        margin=np.where(buys, offer.prices[tier] - costs, 0.0),
    )


def compared(valuation: Valuation, draws: Sequence[Valuation], draft: Sold, before: Sold | None, single: Sold) -> Json:
    """Return the effects of a draft on the estimated market and over equally likely markets.

    Amounts are for each conversation offered.

    Args:
        valuation: the estimated market.
        draws: the equally likely markets.
        draft: the proposed menu.
        before: the menu in force, None where there is none.
        single: the best menu of one tier, estimated from the same data.
    """
    new = taken(valuation, draft)
    old = None if before is None else taken(valuation, before)
    profits = {"draft": [taken(draw, draft).profit(draw.share) for draw in draws]}
    profits["single_plan"] = [taken(draw, single).profit(draw.share) for draw in draws]
    if before is not None:
        profits["in_force"] = [taken(draw, before).profit(draw.share) for draw in draws]
    return {
        "profit_nanousd": {
            name: {"mean": float(np.mean(values)), "low": float(np.percentile(values, LOW))}
            for name, values in profits.items()
        },
        "gain_over_single_plan_nanousd": [a - b for a, b in zip(profits["draft"], profits["single_plan"], strict=True)],
        "surplus_nanousd": {
            "draft": float(np.dot(valuation.share, new.surplus)),
            "in_force": None if old is None else float(np.dot(valuation.share, old.surplus)),
        },
        "moves": [] if old is None or before is None else _moves(valuation.share, draft, new, before, old),
        "pays_more_share": None if old is None or before is None else _dearer(valuation.share, draft, new, before, old),
        "types": _types(valuation, draft, new, before, old),
    }


def replayed(lengths: Sequence[LengthCounts], before: Sold, draft: Sold, goes: Mapping[str, str | None]) -> Json:
    """Return recorded conversations under the draft, tier by tier, if all customers of a tier move to one tier.

    Lengths stay as recorded. An answer cut by the old cap has at least as many tokens, so the number of complete
    answers under a larger cap has a lower and an upper bound. A replay has the moves between tiers, but no other change
    of behaviour.

    Args:
        lengths: recorded lengths, by tier.
        before: the menu in force; conversations recorded under other tiers are left out.
        draft: the proposed menu.
        goes: from the name of each tier to the name of the draft's tier, None for no tier.
    """
    rows = []
    for place, name in enumerate(before.names):
        cap = int(before.caps_tokens[place])
        matching = [
            counts
            for counts in lengths
            if counts.tier.partition(" ")[0] == name and (counts.cap_tokens or BEYOND) == cap
        ]
        destination = goes.get(name)
        if not matching or destination is None:
            continue
        new_place = draft.names.index(destination)
        limit = int(draft.caps_tokens[new_place])
        tokens = np.concatenate([counts.tokens for counts in matching])
        observed = np.concatenate([counts.observed for counts in matching])
        censored = np.concatenate([counts.censored for counts in matching])
        count = int(observed.sum() + censored.sum())
        complete = int(observed[tokens < limit].sum())
        rows.append(
            {
                "tier": name,
                "becomes": destination,
                "conversations": count,
                "complete_before": int(observed.sum()),
                "complete_after_least": complete,
                "complete_after_most": complete + int(censored[tokens < limit].sum()),
                "charge_before_nanousd": int(before.prices[place]) * count,
                "charge_after_nanousd": int(draft.prices[new_place]) * count,
            }
        )
    return {"tiers": rows}


def beyond_limits(
    draft: Sold, before: Sold, goes: Mapping[str, str | None], *, cap_factor: float, price_factor: float, longest: int
) -> str | None:
    """Return a sentence on the first cap or price that moves too far at once, None if none does.

    Args:
        draft, before: the proposed menu, and the menu in force.
        goes: from the name of each tier to the name of the draft's tier.
        cap_factor, price_factor: the most by which a cap and a price may be multiplied or divided.
        longest: the longest observed answer, which replaces a larger cap and no cap.
    """
    for place, name in enumerate(before.names):
        destination = goes.get(name)
        if destination is None:
            continue
        new_place = draft.names.index(destination)
        caps = [max(1, min(longest, int(cap))) for cap in (before.caps_tokens[place], draft.caps_tokens[new_place])]
        prices = [max(1.0, float(price)) for price in (before.prices[place], draft.prices[new_place])]
        for limit, (old, new), factor in (("cap", caps, cap_factor), ("price", prices, price_factor)):
            if max(new / old, old / new) > factor:
                return (
                    f"The {limit} of {name} would change from {old:,.0f} to {new:,.0f} in {destination}, by a factor of "
                    f"{max(new / old, old / new):.3g}, and {factor:g} is the most at once."
                )
    return None


def destinations(valuation: Valuation, draft: Sold, before: Sold) -> dict[str, str | None]:
    """Return the tier of the draft that most of each tier's conversations go to, or None for no tier."""
    shares: dict[str, dict[str | None, float]] = defaultdict(lambda: defaultdict(float))
    new, old = taken(valuation, draft), taken(valuation, before)
    for share, new_tier, old_tier in zip(valuation.share.tolist(), new.tier.tolist(), old.tier.tolist(), strict=True):
        if old_tier != NOTHING:
            shares[before.names[old_tier]][_name(draft, new_tier)] += share
    return {name: max(by_destination, key=lambda tier: by_destination[tier]) for name, by_destination in shares.items()}


def _moves(share: Floats, draft: Sold, new: Taken, before: Sold, old: Taken) -> list[Json]:
    counts: dict[tuple[str | None, str | None], float] = defaultdict(float)
    for type_share, new_tier, old_tier in zip(share.tolist(), new.tier.tolist(), old.tier.tolist(), strict=True):
        counts[_name(before, old_tier), _name(draft, new_tier)] += type_share
    return [
        {"from": old_tier, "to": new_tier, "share": type_share} for (old_tier, new_tier), type_share in counts.items()
    ]


def _dearer(share: Floats, draft: Sold, new: Taken, before: Sold, old: Taken) -> float:
    """Return the share of conversations that are bought under both menus and cost more under the draft."""
    buys_both = (new.tier != NOTHING) & (old.tier != NOTHING)
    return float(share[buys_both & (draft.prices[new.tier] > before.prices[old.tier])].sum())


def _types(valuation: Valuation, draft: Sold, new: Taken, before: Sold | None, old: Taken | None) -> list[Json]:
    """Return the effect on types, grouped by their choices under both menus."""
    groups: dict[tuple[str | None, str | None], list[int]] = defaultdict(list)
    for row in range(len(valuation.share)):
        old_name = None if before is None or old is None else _name(before, int(old.tier[row]))
        groups[old_name, _name(draft, int(new.tier[row]))].append(row)
    shown = []
    for (old_name, new_name), rows in groups.items():
        share = valuation.share[rows]
        weight = share / share.sum()
        shown.append(
            {
                "urgency_per_s": [float(valuation.urgency_per_s[rows[0]]), float(valuation.urgency_per_s[rows[-1]])],
                "share": float(share.sum()),
                "in_force": old_name,
                "draft": new_name,
                "profit_nanousd": [
                    None if old is None else float(np.dot(weight, old.margin[rows])),
                    float(np.dot(weight, new.margin[rows])),
                ],
                "surplus_nanousd": [
                    None if old is None else float(np.dot(weight, old.surplus[rows])),
                    float(np.dot(weight, new.surplus[rows])),
                ],
            }
        )
    return shown


def _name(offer: Sold, place: int) -> str | None:
    return None if place == NOTHING else offer.names[place]
