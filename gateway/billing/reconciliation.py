"""Compares our records with the endpoint's own report, by day and model; names differences and likely causes; pure."""

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
"""The names that a report may use for each figure."""

Place = tuple[int, str]
"""The start of a day, ms, and a model."""

NOT_ON_RECORD = "nothing of it is on record: calls that did not go through this gateway, or records that are missing"
NOT_REPORTED = "the report has nothing of it: it is not complete yet, or of another account"
NOT_OURS = "a model that this gateway does not serve"
MIDNIGHT = "calls that ran over midnight: the day beside it differs the other way"
MORE_REQUESTS = "requests without a record: failed or broken off before an answer began, or made past this gateway"
FEWER_REQUESTS = "the report is not complete yet, or counts later than it answers"
WITH_REQUESTS = "it goes with the difference in requests"
OTHER_FIGURES = "the endpoint reports other figures than it sends with its answers"


class NoReport(ValueError):
    """The text is not a report of usage; the message says why."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of one day and model that differs between the two sides."""

    day: int
    model: str
    what: str
    ours: int
    theirs: int
    cause: str

    @property
    def difference(self) -> int:
        """The reported figure less ours."""
        return self.theirs - self.ours

    @property
    def share(self) -> float:
        """The difference as a share of the larger figure."""
        return self.difference / max(self.ours, self.theirs)


@dataclass(slots=True)
class Side:
    """The figures of one side for a day and model."""

    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WHAT, 0))
    guessed: dict[str, int] = field(default_factory=dict)


def read_report(text: str, days: Iterable[int] = ()) -> dict[Place, dict[str, int]]:
    """Return a report's sums by day and model: OpenAI's usage as JSON (a page, a list or one page a line), or CSV.

    Args:
        days: starts of the days, ms, that the report covers; a day that it does not name has no usage.

    Raises:
        NoReport: the text has neither form, or has no day.
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
            value = next((row[name] for name in names if row.get(name) not in (None, "")), 0)
            sums[what] += int(value)
    if not found:
        raise NoReport("it has no day")
    return dict(found)


def reconciled(
    ours: Iterable[DaySum], theirs: Mapping[Place, Mapping[str, int]], *, model: str, embedding_model: str | None
) -> list[Difference]:
    """Return the figures that differ on the days of a report, in the order of day, model and figure.

    A model of the report is ours where its name is ours, is ours followed by a version, or is empty.
    """
    days = {day for day, _ in theirs}
    recorded: dict[Place, Side] = defaultdict(Side)
    for day_sum in ours:
        if min(days) <= day_sum.day <= max(days):
            side = recorded[day_sum.day, (embedding_model or "embeddings") if day_sum.embeds else model]
            side.sums = {"requests": day_sum.calls, **{what: getattr(day_sum, what) for what in WHAT[1:]}}
            side.guessed = {"input_tokens": day_sum.guessed_input, "output_tokens": day_sum.guessed_output}
    reported: dict[Place, Side] = defaultdict(Side)
    for (day, name), sums in theirs.items():
        side = reported[day, _known_as(name, model, embedding_model)]
        for what in WHAT:
            side.sums[what] += sums[what]
    places = sorted(recorded.keys() | reported.keys())
    differences = {
        (place, what): reported[place].sums[what] - recorded[place].sums[what] for place in places for what in WHAT
    }
    known = {model, embedding_model or "embeddings"}
    return [
        Difference(
            *place,
            what,
            recorded[place].sums[what],
            reported[place].sums[what],
            _cause(place, what, recorded, reported, differences, known),
        )
        for place in places
        for what in WHAT
        if differences[place, what]
    ]


def _cause(
    place: Place,
    what: str,
    recorded: Mapping[Place, Side],
    reported: Mapping[Place, Side],
    differences: Mapping[tuple[Place, str], int],
    known: set[str],
) -> str:
    """Return the likeliest reason why a figure differs."""
    difference, requests = differences[place, what], differences[place, "requests"]
    if place[1] not in known:
        return NOT_OURS
    adjacent = [((place[0] + way * DAY_MS, place[1]), what) for way in (-1, 1)]
    if any(10 * abs(difference + differences[key]) <= abs(difference) for key in adjacent if differences.get(key)):
        return MIDNIGHT
    if not any(recorded[place].sums.values()):
        return NOT_ON_RECORD
    if not any(reported[place].sums.values()):
        return NOT_REPORTED
    if what == "requests":
        return MORE_REQUESTS if difference > 0 else FEWER_REQUESTS
    if abs(difference) <= (guessed := recorded[place].guessed.get(what, 0)):
        return f"{guessed} of ours the endpoint did not count: they are our own count or estimate"
    return WITH_REQUESTS if requests * difference > 0 else OTHER_FIGURES


def _known_as(name: str, model: str, embedding_model: str | None) -> str:
    """Return our name for a model of the report."""
    if not name:
        return model
    matches = [known for known in (model, embedding_model) if known and (name == known or name.startswith(f"{known}-"))]
    return max(matches, key=len, default=name)


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
        date = (row.get("date") or row.get("start_time") or row.get("day") or "").strip()
        if not date:
            raise NoReport("a row has no date, start_time or day")
        start = int(date) * 1000 if date.isdecimal() and len(date) <= 11 else understood(date)
        yield start - start % DAY_MS, (row.get("model") or "").strip(), row
