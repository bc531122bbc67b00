"""Customers' observed behaviour, with similar customers grouped in rows, and the tiers chosen for single conversations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pricing.estimate.laws.choices import Intervals
from pricing.estimate.observations.statistics import BOUGHT, Customers
from pricing.market.answers import Floats, Ints

BIN = 0.03
"""Customers with the same disconnects whose seconds differ by less than this share are grouped."""

DISCONNECTS_EXACT = 40
"""Above this number, similar numbers of disconnects are grouped as well."""

STRATUM_LEAST = 100
"""The fewest customers in a stratum of volume; a smaller stratum is joined with the next one."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Observed customers, similar customers in a row: likelihood r^d e^(-r E) for low < r <= high. Shapes (rows,).

    Attributes:
        disconnects, waited_s: d and E of a customer, averages over the row.
        low, high: the bounds that choices set on r. 1/s.
        stratum: the stratum of customers with similar numbers of conversations, numbered from 0.
        customers: the number of customers in the row.
        conversations: the total over these customers.
        waited_in_s: E of a customer in each window of time, averages over the row. Shape (rows, windows).
        left_in: disconnects of all customers in each window. Shape (windows,).
    """

    disconnects: Floats
    waited_s: Floats
    low: Floats
    high: Floats
    stratum: Ints
    customers: Ints
    conversations: Floats
    waited_in_s: Floats
    left_in: Floats


@dataclass(frozen=True, slots=True)
class Chosen:
    """Conversations of unknown customers, by the interval of their tier: low < r <= high. 1/s, shapes (k,).

    They carry no information on urgencies outside all intervals, such as those of refusals that were not counted.
    """

    low: Floats
    high: Floats
    conversations: Ints


def rows_of_customers(customers: Customers, offers: list[Intervals], *, leaving: bool) -> tuple[Rows, int]:
    """Return the rows of grouped customers, and how many customers contradict themselves.

    Args:
        customers: a row for each customer.
        offers: the intervals of each offer, in the order of ``customers.choices``.
        leaving: whether disconnects count; otherwise only choices count, and customers without a choice are left out.
    """
    low, high = np.zeros(len(customers.conversations)), np.full(len(customers.conversations), np.inf)
    chose = np.zeros(len(customers.conversations), dtype=bool)
    if customers.choices is not None:
        for place, offer in enumerate(offers):
            choice = customers.choices[:, place]
            offered = choice >= 0
            low[offered] = np.maximum(low[offered], offer.low[choice[offered]])
            high[offered] = np.minimum(high[offered], offer.high[choice[offered]])
            chose |= offered
            served = offer.high[1:][offer.low[1:] < offer.high[1:]]
            bought = choice == BOUGHT
            high[bought] = np.minimum(high[bought], served.max(initial=0.0))
    is_consistent = low < high
    retained = np.flatnonzero(is_consistent if leaving else is_consistent & chose)
    contradicting = int((~is_consistent).sum())
    disconnects = customers.disconnects[retained].astype(np.float64) if leaving else np.zeros(len(retained))
    waited = customers.waited_s[retained] if leaving else np.zeros(len(retained))
    weight = customers.conversations[retained].astype(np.float64)
    stratum = _strata(customers.conversations[retained])
    cell = _cells(
        _binned(disconnects), np.round(np.log(np.maximum(waited, 1e-3)) / BIN), low[retained], high[retained], stratum
    )
    count = int(cell.max(initial=-1)) + 1
    customers_in = np.bincount(cell, minlength=count)
    representative = np.zeros(count, dtype=np.int64)
    representative[cell] = np.arange(len(retained))
    by_window, left = waited[:, None], disconnects[:, None]
    if leaving and customers.windows is not None:
        by_window, left = (
            customers.windows.waited_s[retained],
            customers.windows.disconnects[retained].astype(np.float64),
        )
    within = [np.bincount(cell, column, count) / np.maximum(customers_in, 1) for column in by_window.T]
    return Rows(
        disconnects=np.bincount(cell, disconnects, count) / np.maximum(customers_in, 1),
        waited_s=np.bincount(cell, waited, count) / np.maximum(customers_in, 1),
        low=low[retained][representative],
        high=high[retained][representative],
        stratum=stratum[representative],
        customers=customers_in,
        conversations=np.bincount(cell, weight, count).astype(np.float64),
        waited_in_s=np.stack(within, axis=1),
        left_in=left.sum(axis=0).astype(np.float64),
    ), contradicting


def chosen_of(offer: Intervals, refused: int | None, taken: tuple[int, ...]) -> Chosen:
    """Return choices for single conversations; ``refused`` is the number that took no tier, None if not counted.

    Choices whose interval is empty are left out.
    """
    counts = np.array([refused or 0, *taken], dtype=np.int64)
    is_possible = offer.low < offer.high
    is_possible[0] &= refused is not None
    return Chosen(offer.low[is_possible], offer.high[is_possible], counts[is_possible])


def joined(parts: list[Chosen]) -> Chosen:
    """Return the choices under all offers."""
    return Chosen(
        np.concatenate([np.zeros(0), *(part.low for part in parts)]),
        np.concatenate([np.zeros(0), *(part.high for part in parts)]),
        np.concatenate([np.zeros(0, dtype=np.int64), *(part.conversations for part in parts)]),
    )


def _binned(disconnects: Floats) -> Floats:
    """Return a bin for each number of disconnects: the number itself up to ``DISCONNECTS_EXACT``."""
    above = np.maximum(disconnects, DISCONNECTS_EXACT) / DISCONNECTS_EXACT
    return np.minimum(disconnects, DISCONNECTS_EXACT) + np.round(np.log(above) / BIN)


def _strata(conversations: Ints) -> Ints:
    """Return each customer's stratum of volume; conversations within a stratum differ by about a factor of two."""
    levels = np.round(np.log2(np.maximum(conversations, 1))).astype(np.int64)
    counts = np.bincount(levels, minlength=1)
    number, size, stratum = 0, 0, np.zeros(len(counts), dtype=np.int64)
    for level, count in enumerate(counts.tolist()):
        if size >= STRATUM_LEAST and counts[level:].sum() >= STRATUM_LEAST:
            number, size = number + 1, 0
        stratum[level] = number
        size += count
    placed: Ints = stratum[levels]
    return placed


def _cells(*columns: Floats | Ints) -> Ints:
    """Return the same number for rows that agree in every column."""
    cell = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, place = np.unique(column, return_inverse=True)
        _, cell = np.unique(cell * len(values) + place, return_inverse=True)
    return cell
