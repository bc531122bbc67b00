"""Our records against the endpoint's own report, by day and model: by how much they differ, and why that may be; pure."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.clock import understood
from gateway.ledger.billing.upstream_sums import DaySum

DAY_MS = 86_400_000
WHAT = ("requests", "input_tokens", "cached_tokens", "output_tokens")
NAMES: Mapping[str, tuple[str, ...]] = {
    "requests": ("num_model_requests", "n_requests", "requests"),
    "input_tokens": ("input_tokens", "n_context_tokens_total"),
    "cached_tokens": ("input_cached_tokens", "cached_tokens"),
    "output_tokens": ("output_tokens", "n_generated_tokens_total"),
}
"""What a report calls what is compared."""

Place = tuple[int, str]
"""A day's start, ms, and a model."""

NOT_ON_RECORD = "nothing of it is on record: calls that did not go through this gateway, or records that are missing"
NOT_REPORTED = "the report has nothing of it: it is not complete yet, or of another account"
NOT_OURS = "a model that this gateway does not serve"
MIDNIGHT = "calls that ran over midnight: the day beside it differs the other way"
MORE_REQUESTS = "requests without a record: failed or broken off before an answer began, or made past this gateway"
FEWER_REQUESTS = "the report is not complete yet, or counts later than it answers"
WITH_REQUESTS = "it goes with the difference in requests"
OTHER_FIGURES = "the endpoint reports other figures than it sends with its answers"


class NoReport(ValueError):
    """It is no report of usage; the message says why."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of a day and model that is not the same on both sides."""

    day: int
    model: str
    what: str
    ours: int
    theirs: int
    cause: str

    @property
    def difference(self) -> int:
        """By how much theirs is more."""
        return self.theirs - self.ours

    @property
    def share(self) -> float:
        """The same as a share of the larger one."""
        return self.difference / max(self.ours, self.theirs)


@dataclass(slots=True)
class Side:
    """What one side says of a day and model."""

    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WHAT, 0))
    guessed: dict[str, int] = field(default_factory=dict)


def read_report(text: str, days: Iterable[int] = ()) -> dict[Place, dict[str, int]]:
    """Return a report's sums by day and model: OpenAI's usage as JSON, a page, a list or a line each, or a CSV file.

    Args:
        days: starts of days, ms, that it is about; one that it does not name has no usage.

    Raises:
        NoReport: it is neither, or has no day.
    """
    found: dict[Place, dict[str, int]] = defaultdict(lambda: dict.fromkeys(WHAT, 0))
    try:
        rows = list(_from_json(text) if text.lstrip()[:1] in ("{", "[") else _from_csv(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoReport(f"it cannot be read: {error}") from error
    found.update({(day, ""): dict.fromkeys(WHAT, 0) for day in days})
    for day, model, row in rows:
        sums = found[day, model]
        for what, names in NAMES.items():
            given = next((row[name] for name in names if row.get(name) not in (None, "")), 0)
            sums[what] += int(given)
    if not found:
        raise NoReport("it has no day")
    return dict(found)


def reconciled(
    ours: Iterable[DaySum], theirs: Mapping[Place, Mapping[str, int]], *, model: str, embedding_model: str | None
) -> list[Difference]:
    """Return what differs on the days of a report, by day, model and figure.

    A model of the report is ours where it has our name, or our name and a version after it, or none.
    """
    days = {day for day, _ in theirs}
    mine: dict[Place, Side] = defaultdict(Side)
    for one in ours:
        if min(days) <= one.day <= max(days):
            side = mine[one.day, (embedding_model or "embeddings") if one.embeds else model]
            side.sums = {"requests": one.calls, **{what: getattr(one, what) for what in WHAT[1:]}}
            side.guessed = {"input_tokens": one.guessed_input, "output_tokens": one.guessed_output}
    said: dict[Place, Side] = defaultdict(Side)
    for (day, name), sums in theirs.items():
        side = said[day, _known_as(name, model, embedding_model)]
        for what in WHAT:
            side.sums[what] += sums[what]
    places = sorted(mine.keys() | said.keys())
    apart = {(place, what): said[place].sums[what] - mine[place].sums[what] for place in places for what in WHAT}
    known = {model, embedding_model or "embeddings"}
    return [
        Difference(
            *place, what, mine[place].sums[what], said[place].sums[what], _cause(place, what, mine, said, apart, known)
        )
        for place in places
        for what in WHAT
        if apart[place, what]
    ]


def _cause(
    place: Place,
    what: str,
    mine: Mapping[Place, Side],
    said: Mapping[Place, Side],
    apart: Mapping[tuple[Place, str], int],
    known: set[str],
) -> str:
    """Return the likeliest reason why one figure differs."""
    by, requests = apart[place, what], apart[place, "requests"]
    if place[1] not in known:
        return NOT_OURS
    beside = [((place[0] + way * DAY_MS, place[1]), what) for way in (-1, 1)]
    if any(10 * abs(by + apart[one]) <= abs(by) for one in beside if apart.get(one)):
        return MIDNIGHT
    if not any(mine[place].sums.values()):
        return NOT_ON_RECORD
    if not any(said[place].sums.values()):
        return NOT_REPORTED
    if what == "requests":
        return MORE_REQUESTS if by > 0 else FEWER_REQUESTS
    if abs(by) <= (guessed := mine[place].guessed.get(what, 0)):
        return f"{guessed} of ours the endpoint did not count: they are our own count or estimate"
    return WITH_REQUESTS if requests * by > 0 else OTHER_FIGURES


def _known_as(name: str, model: str, embedding_model: str | None) -> str:
    """Return what we call a model of the report."""
    if not name:
        return model
    ours = [one for one in (model, embedding_model) if one and (name == one or name.startswith(f"{one}-"))]
    return max(ours, key=len, default=name)


def _from_json(text: str) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    try:
        pages = json.loads(text)
    except ValueError:
        pages = [json.loads(line) for line in text.splitlines() if line.strip()]
    for page in pages if isinstance(pages, list) else [pages]:
        for bucket in page["data"]:
            start = int(bucket["start_time"]) * 1000
            for result in bucket["results"]:
                yield start - start % DAY_MS, result.get("model") or "", result


def _from_csv(text: str) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    for row in csv.DictReader(io.StringIO(text)):
        given = (row.get("date") or row.get("start_time") or row.get("day") or "").strip()
        if not given:
            raise NoReport("a row has no date, start_time or day")
        start = int(given) * 1000 if given.isdecimal() and len(given) <= 11 else understood(given)
        yield start - start % DAY_MS, (row.get("model") or "").strip(), row
