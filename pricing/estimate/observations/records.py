"""Usage records in memory, turned into the statistics that the estimators need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pricing.estimate.observations.conversations import WEEK_MS, CannotEstimate, Watch, is_of_a_conversation
from pricing.estimate.observations.gathering import Choosing, anybody, nobody, statistics_of, summed
from pricing.estimate.observations.statistics import Statistics
from pricing.menus.menu import Menu

AT_ONCE = 10_000
REPEATED = "records_repeated"
MALFORMED = "records_malformed"

CUSTOMERS_TESTED, CUSTOMERS_SHARING, CONVERSATIONS_EACH = 60, 2, 1.05
"""The fields customer and conversation are swapped where at least ``CUSTOMERS_TESTED`` customers, at least
``CUSTOMERS_SHARING`` per name of a conversation, have at most ``CONVERSATIONS_EACH`` conversations each on average."""

WHOLE = ("time", "billed_output_tokens", "output_tokens")
MAYBE_WHOLE = ("settled", "ttft_ms", "duration_ms")
TEXT = ("id", "kind", "customer")
MAYBE_TEXT = ("conversation", "endpoint", "tier", "tier_chosen", "menu_version", "finish")


def seen_in_records(
    records: Iterable[Mapping[str, Any]], menus: Mapping[str, Menu], *, own_tiers: bool, since_ms: int = 0
) -> Statistics:
    """Return the statistics of usage records.

    Args:
        records: usage records, roughly in the order of their time; a repeated record counts once.
        menus: the menus, by version.
        own_tiers: whether customers chose the tier of their account themselves.
        since_ms: records of weeks before this time are left out, ms since 1970.

    Raises:
        CannotEstimate: records, or the menus that they name, are in several currencies.
    """
    watch, record_ids, aside = Watch(), set[str](), {REPEATED: 0, MALFORMED: 0}
    calls, names = set[int](), set[str]()
    batch: list[Mapping[str, Any]] = []
    currencies: set[str] = set()
    for record in records:
        if not _is_whole(record):
            aside[MALFORMED] += 1
        elif record["id"] in record_ids or (call := hash(_call(record))) in calls:
            aside[REPEATED] += 1
        else:
            record_ids.add(record["id"])
            calls.add(call)
            if is_of_a_conversation(record):
                names.add(record["conversation"])
            batch.append(record)
            currencies |= _currencies(record, menus)
        if len(batch) >= AT_ONCE:
            watch.see(batch)
            batch = []
    watch.see(batch)
    going = watch.close_all()
    _refuse_swapped(len({customer for _, customer in watch.sums.customers}), watch.sums.customers.values(), len(names))
    sums = summed(watch.sums, since_week=since_ms // WEEK_MS, going=going)
    counts = {**sums.aside, **{reason: count for reason, count in aside.items() if count}}
    statistics = statistics_of(replace(sums, aside=counts), menus, Choosing(chose=anybody if own_tiers else nobody))
    return replace(statistics, currency=_one_of(currencies))


def _currencies(record: Mapping[str, Any], menus: Mapping[str, Menu]) -> set[str]:
    """Return the currencies of a conversation's record and of the menu that it names."""
    if not is_of_a_conversation(record):
        return set()
    menu = menus.get(record["menu_version"])
    return {str(currency) for currency in (record.get("currency"), menu and menu.currency) if currency}


def _call(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the fields that identify a call without its id: a call that was exported twice may have two ids."""
    return tuple(
        record[name] for name in ("kind", "customer", "conversation", *WHOLE, *MAYBE_WHOLE, "finish", "endpoint")
    )


def _refuse_swapped(customers: int, amounts: Iterable[Sequence[int]], names: int) -> None:
    """Refuse records whose customers have one conversation each and share the names of conversations.

    Raises:
        CannotEstimate: the fields customer and conversation are swapped.
    """
    if customers < CUSTOMERS_SHARING * max(names, 1) or customers < CUSTOMERS_TESTED:
        return
    if sum(row[0] for row in amounts) <= CONVERSATIONS_EACH * customers:
        raise CannotEstimate(
            f"{customers:,} customers have a conversation each, and these have {names:,} names: the records' fields customer and "
            "conversation are swapped, so customers cannot be told apart."
        )


def _one_of(currencies: set[str]) -> str | None:
    if len(currencies) > 1:
        raise CannotEstimate(
            f"Records and their menus are in {' and '.join(sorted(currencies))}; prices are compared in one currency, so "
            "estimate from the records of one currency."
        )
    return next(iter(currencies), None)


def _is_whole(record: Mapping[str, Any]) -> bool:
    """Return whether a record has the required fields, of the right types."""
    return (
        all(_whole(record.get(name)) for name in WHOLE)
        and all(record.get(name) is None or _whole(record[name]) for name in MAYBE_WHOLE)
        and all(isinstance(record.get(name), str) for name in TEXT)
        and all(name in record and isinstance(record[name], str | None) for name in MAYBE_TEXT)
        and isinstance(record.get("stream"), bool)
        and {"settled", "ttft_ms", "duration_ms"} <= record.keys()
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
