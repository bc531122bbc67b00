"""Turns sums over conversations, wherever they are stored, into the statistics from which a market is estimated."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from pricing.estimate.observations.conversations import AGES, AMOUNTS, Sums, by_window, windows_of
from pricing.estimate.observations.spread import OwnLengths
from pricing.estimate.observations.statistics import (
    BOUGHT,
    AgeCounts,
    Customers,
    LengthCounts,
    Offer,
    PaceCounts,
    Part,
    Statistics,
    Windows,
    are_outsized,
)
from pricing.market.answers import Floats, Ints
from pricing.menus.menu import Menu

ROWS_AT_ONCE = 50_000

UNKNOWN_TIER = "conversations_of_unknown_tiers"
BEYOND_CAP = "conversations_beyond_their_cap"
OPEN_TIER = ""
"""The name that means no tier: the conversation was only observed."""


@dataclass(frozen=True, slots=True)
class Summed:
    """Sums over all counted weeks, row by row.

    Attributes:
        lengths: (menu version, tier, tokens, observed, censored); the same first three may occur more than once.
        customers: (customer, then ``by_window`` of the amounts of ``Sums.customers``), each customer once.
        tiers: (customer, menu version, tier, whether it was named for the conversation, conversations).
        ages: (age, waits, disconnects, ms into that second).
        pace: the eight amounts of ``Sums.pace``.
        aside: numbers of conversations and records set aside, by reason.
        going: the number of counted conversations that may go on.
        windows: the first week of each window.
        own_lengths: (week, customer, menu version, tier, even, bin, observed, censored), perhaps of some customers only.
    """

    lengths: Iterable[tuple[str, str, int, int, int]]
    customers: Iterable[tuple[Any, ...]]
    tiers: Iterable[tuple[str, str, str, bool, int]]
    ages: Iterable[tuple[int, int, int, int]]
    pace: Sequence[float]
    aside: Mapping[str, int]
    going: int = 0
    windows: tuple[int, ...] = (0,)
    own_lengths: Iterable[tuple[int, str, str, str, int, int, int, int]] = ()


def nobody(_customer: str, _version: str) -> bool:
    """Return that no customer chose its tier."""
    return False


def anybody(_customer: str, _version: str) -> bool:
    """Return that every customer chose its tier itself."""
    return True


@dataclass(frozen=True, slots=True)
class Choosing:
    """Which customers chose their tier.

    Attributes:
        chose: whether a customer, the first argument, chose its tier of a menu version, the second, itself.
        refusing: by menu version, customers without any tier who could have taken a tier of that menu; they may have
            had conversations under other menus.
    """

    chose: Callable[[str, str], bool] = nobody
    refusing: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(slots=True)
class _Taken:
    """Choices from a menu.

    Attributes:
        named: for each tier, the conversations for which the tier was named.
        kept: for each customer who chose a tier for its account, its conversations and the tier.
        naming: the customers who named tiers for conversations.
    """

    named: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    kept: dict[str, tuple[int, str]] = field(default_factory=dict)
    naming: set[str] = field(default_factory=set)


def summed(sums: Sums, *, since_week: int = 0, going: int = 0) -> Summed:
    """Return the rows of sums in memory, from the week ``since_week`` on."""
    weeks = [key[0] for key in sums.customers if key[0] >= since_week]
    windows = windows_of(min(weeks), max(weeks)) if weeks else (0,)
    customers: dict[str, list[int]] = {}
    pace = [0.0] * 8
    aside: dict[str, int] = defaultdict(int)
    for (week, customer), amounts in sums.customers.items():
        if week >= since_week:
            row = by_window(week, amounts, windows)
            previous = customers.get(customer)
            customers[customer] = row if previous is None else [a + b for a, b in zip(previous, row, strict=True)]
    for (week,), amounts in sums.pace.items():
        if week >= since_week:
            pace = [before + amount for before, amount in zip(pace, amounts, strict=True)]
    for (week, reason), (count,) in sums.aside.items():
        if week >= since_week:
            aside[reason] += count
    return Summed(
        lengths=[(*key[1:], *amounts) for key, amounts in sums.lengths.items() if key[0] >= since_week],
        customers=[(customer, *amounts) for customer, amounts in sorted(customers.items())],
        tiers=[(*key[1:], *amounts) for key, amounts in sums.tiers.items() if key[0] >= since_week],
        ages=[(*key[1:], *amounts) for key, amounts in sums.ages.items() if key[0] >= since_week],
        pace=pace,
        aside=aside,
        going=going,
        windows=windows,
        own_lengths=[(*key, *amounts) for key, amounts in sums.own_lengths.items() if key[0] >= since_week],
    )


def statistics_of(given: Summed, menus: Mapping[str, Menu], choosing: Choosing) -> Statistics:
    """Return the statistics that the estimators need.

    Args:
        given: the sums.
        menus: every menu of the records, by version. Lengths under an unknown menu, of a tier that its menu does not
            have, or beyond the cap of their tier are set aside and counted: the cap that cut them is unknown.
        choosing: which customers chose their tier; a menu that nobody chose from or refused is no offer.
    """
    aside = dict(given.aside)
    lengths, excluded = _lengths(given.lengths, menus)
    for reason, number in excluded.items():
        aside[reason] = aside.get(reason, 0) + number
    names: list[str] = []
    amounts = _amounts(given.customers, names, AMOUNTS + 2 * (len(given.windows) - 1))
    outsized = {names[row] for row in np.flatnonzero(are_outsized(amounts[:, 0])).tolist()}
    taken = _taken((row for row in given.tiers if row[0] not in outsized), menus, choosing)
    refused = {version: refusing for version, refusing in choosing.refusing.items() if refusing}
    for version in refused:
        if version in menus and _is_an_offer(menus[version]):
            taken.setdefault(version, _Taken())
    offers = tuple(_offer(menus[version], taken[version]) for version in taken)
    customers = _customers(amounts, _choices(names, menus, taken), _windows(amounts, given.windows))
    for column, version in enumerate(taken):
        if refusing := refused.get(version):
            talked = [row for row, name in enumerate(names) if name in refusing]
            customers = with_refusals(customers, column, len(refusing) - len(talked), len(offers), talked)
    return Statistics(
        lengths=lengths,
        pace=_pace(given.pace),
        customers=customers,
        ages=_ages(given.ages),
        offers=offers,
        set_aside=aside,
        going=given.going,
        own=_own(given, menus, names, lengths),
    )


def _lengths(
    rows: Iterable[tuple[str, str, int, int, int]], menus: Mapping[str, Menu]
) -> tuple[tuple[LengthCounts, ...], Mapping[str, int]]:
    """Return the counts by tier and cap, across menus, and the number of conversations without a known cap, by reason."""
    counts: dict[tuple[str, int | None], dict[int, list[int]]] = defaultdict(dict)
    excluded: dict[str, int] = defaultdict(int)
    for version, name, tokens, observed, censored in rows:
        cap = None
        if name != OPEN_TIER:
            menu = menus.get(version)
            tier = None if menu is None else menu.tier(name)
            cap = None if tier is None else tier.conversation_tokens_max
            if tier is None or (cap is not None and tokens > cap):
                excluded[UNKNOWN_TIER if tier is None else BEYOND_CAP] += observed + censored
                continue
        if cap is not None and tokens >= cap:
            observed, censored = 0, observed + censored
        counted = counts[name, cap].setdefault(tokens, [0, 0])
        counted[0] += observed
        counted[1] += censored
    return tuple(_counted(name, cap, by_length) for (name, cap), by_length in counts.items()), excluded


def _own(
    sums: Summed, menus: Mapping[str, Menu], names: Sequence[str], lengths: Sequence[LengthCounts]
) -> OwnLengths | None:
    """Return the lengths by customer, None if there are none; lengths of tiers that no menu has are left out."""
    places = {counts.tier: place for place, counts in enumerate(lengths)}
    rows = {name: row for row, name in enumerate(names)}
    entries = []
    for week, customer, version, name, *rest in sums.own_lengths:
        tier = menus[version].tier(name) if version in menus and name != OPEN_TIER else None
        place = places.get(_label(name, None if tier is None else tier.conversation_tokens_max))
        if (tier is not None or name == OPEN_TIER) and place is not None and customer in rows:
            entries.append((rows[customer], place, bisect_right(sums.windows, week) - 1, *rest))
    return OwnLengths(*np.array(entries, dtype=np.int64).T) if entries else None


def _label(name: str, cap: int | None) -> str:
    return f"{name or 'observed'} ({'no cap' if cap is None else f'{cap} tokens'})"


def _counted(name: str, cap: int | None, by_length: Mapping[int, Sequence[int]]) -> LengthCounts:
    tokens = np.array(sorted(by_length), dtype=np.int64)
    ends = np.array([by_length[length] for length in tokens.tolist()], dtype=np.int64)
    return LengthCounts(_label(name, cap), cap, tokens, ends[:, 0], ends[:, 1])


def _amounts(rows: Iterable[tuple[Any, ...]], names: list[str], number: int) -> Ints:
    """Return the customers' amounts in order, and append their names to ``names``. Shape (n, number)."""
    pieces = [np.zeros((0, number), dtype=np.int64)]
    remaining = iter(rows)
    while chunk := list(islice(remaining, ROWS_AT_ONCE)):
        names += [row[0] for row in chunk]
        pieces.append(np.array([row[1:] for row in chunk], dtype=np.int64))
    return np.concatenate(pieces)


def _customers(amounts: Ints, choices: Ints | None, windows: Windows | None) -> Customers:
    seconds: Floats = amounts / 1000.0
    return Customers(
        disconnects=amounts[:, 1],
        waited_s=seconds[:, 2],
        conversations=amounts[:, 0],
        early=Part(amounts[:, 3], seconds[:, 4]),
        even=Part(amounts[:, 5], seconds[:, 6]),
        choices=choices,
        untimed=Part(amounts[:, 7], seconds[:, 8]),
        windows=windows,
    )


def _windows(amounts: Ints, starts: tuple[int, ...]) -> Windows | None:
    """Return the customers by window; the last window is the total less the others."""
    if len(starts) == 1:
        return None
    disconnects, waited = amounts[:, AMOUNTS::2], amounts[:, AMOUNTS + 1 :: 2]
    last = amounts[:, 1] - disconnects.sum(axis=1), amounts[:, 2] - waited.sum(axis=1)
    return Windows(
        starts, np.column_stack((disconnects, last[0])), np.column_stack((waited, last[1])).astype(np.float64) / 1000.0
    )


def _taken(
    rows: Iterable[tuple[str, str, str, bool, int]], menus: Mapping[str, Menu], choosing: Choosing
) -> dict[str, _Taken]:
    """Return the choices from each menu for which the mechanism's thresholds hold: one price per conversation."""
    taken: dict[str, _Taken] = {}
    for customer, version, name, named, conversations in rows:
        if not named and not choosing.chose(customer, version):
            continue
        menu = menus.get(version)
        if menu is None or not _is_an_offer(menu) or menu.tier(name) is None:
            continue
        menu_taken = taken.setdefault(version, _Taken())
        if named:
            menu_taken.named[name] += conversations
            menu_taken.naming.add(customer)
        else:
            menu_taken.kept[customer] = max(menu_taken.kept.get(customer, (0, "")), (conversations, name))
    return taken


def _is_an_offer(menu: Menu) -> bool:
    return menu.bill == "conversation" and not any(tier.output_nanousd_per_mtok for tier in menu.tiers)


def _sorted_names(menu: Menu) -> list[str]:
    return [
        tier.name
        for tier in sorted(
            menu.tiers,
            key=lambda tier: (
                np.inf if tier.conversation_tokens_max is None else tier.conversation_tokens_max,
                tier.price_nanousd,
            ),
        )
    ]


def _offer(menu: Menu, taken: _Taken) -> Offer:
    tiers = [menu.tier(name) for name in _sorted_names(menu)]
    existing = [tier for tier in tiers if tier is not None]
    return Offer(
        caps_tokens=tuple(tier.conversation_tokens_max for tier in existing),
        prices_nanousd=tuple(tier.price_nanousd for tier in existing),
        taken=tuple(taken.named.get(tier.name, 0) for tier in existing) if taken.named else None,
    )


def _choices(names: Sequence[str], menus: Mapping[str, Menu], taken: Mapping[str, _Taken]) -> Ints | None:
    """Return each customer's tier of each menu: its place, 1 for the smallest, -1 without a choice; None if none chose.

    ``BOUGHT`` is for customers who named tiers for conversations. Shape (n, menus).
    """
    if not any(menu_taken.kept or menu_taken.naming for menu_taken in taken.values()):
        return None
    rows = {name: row for row, name in enumerate(names)}
    choices = np.full((len(names), len(taken)), -1, dtype=np.int64)
    for column, (version, menu_taken) in enumerate(taken.items()):
        places = {name: place for place, name in enumerate(_sorted_names(menus[version]), start=1)}
        choices[[rows[customer] for customer in menu_taken.naming if customer in rows], column] = BOUGHT
        for customer, (_, name) in menu_taken.kept.items():
            if customer in rows:
                choices[rows[customer], column] = places[name]
    return choices


def with_refusals(
    customers: Customers, column: int, refusing: int, offers: int, known: Sequence[int] = ()
) -> Customers:
    """Return the customers together with customers who took no tier of an offer.

    Args:
        customers: customers with conversations.
        column: the refused offer.
        refusing: the number of refusing customers without conversations; each counts with the median number of
            conversations of the others.
        offers: the number of offers.
        known: rows of customers with conversations who took no tier of this offer.
    """
    number = len(customers.conversations)
    median_conversations = max(1, int(np.median(customers.conversations))) if number else 1
    choices = np.full((number, offers), -1, dtype=np.int64) if customers.choices is None else customers.choices.copy()
    choices[list(known), column] = 0
    refused = np.full((refusing, offers), -1, dtype=np.int64)
    refused[:, column] = 0
    no_disconnects, no_wait = np.zeros(refusing, dtype=np.int64), np.zeros(refusing)

    def longer(part: Part | None) -> Part | None:
        if part is None:
            return None
        return Part(np.concatenate((part.disconnects, no_disconnects)), np.concatenate((part.waited_s, no_wait)))

    windows = customers.windows
    if windows is not None:
        zeros = np.zeros((refusing, len(windows.starts)))
        windows = Windows(
            windows.starts,
            np.concatenate((windows.disconnects, zeros.astype(np.int64))),
            np.concatenate((windows.waited_s, zeros)),
        )
    return Customers(
        disconnects=np.concatenate((customers.disconnects, no_disconnects)),
        waited_s=np.concatenate((customers.waited_s, no_wait)),
        conversations=np.concatenate(
            (customers.conversations, np.full(refusing, median_conversations, dtype=np.int64))
        ),
        early=longer(customers.early),
        even=longer(customers.even),
        choices=np.concatenate((choices, refused)),
        untimed=longer(customers.untimed),
        windows=windows,
    )


def _ages(rows: Iterable[tuple[int, int, int, int]]) -> AgeCounts:
    """Return the disconnects and the time waited at each age.

    The time is a second for each longer wait, and the elapsed part of a second for each wait that ended at this age.
    """
    counts = np.zeros((AGES, 3), dtype=np.int64)
    for age, *amounts in rows:
        counts[age] += amounts
    beyond = np.cumsum(counts[::-1, 0])[::-1]
    return AgeCounts(
        disconnects=counts[:, 1],
        waited_s=np.append(beyond[1:], 0).astype(np.float64) + counts[:, 2] / 1000.0,
    )


def _pace(amounts: Sequence[float]) -> PaceCounts:
    calls, first, first_squared, tokens, tokens_squared, ms, ms_squared, tokens_ms = amounts
    return PaceCounts(
        calls=int(calls),
        ttft_s=first / 1e3,
        ttft_squared=first_squared / 1e6,
        tokens=float(tokens),
        tokens_squared=float(tokens_squared),
        seconds=ms / 1e3,
        seconds_squared=ms_squared / 1e6,
        tokens_seconds=tokens_ms / 1e3,
        set_aside=0,
    )
