"""The counts of one process: plain whole numbers, written to the process's own file about once a second.

Adding is a dictionary's ``+=``; it waits for no lock and no file. A scrape adds up all processes' files, so any worker
can answer it. A killed process loses the counts of its last second: metrics are not the ledger.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from gateway.metrics.definitions import CAP_HITS, CHARGED, EXCESS, FIRST_TOKEN, REQUESTS, TOKENS, Kind, Metric
from pricing.usage import UsageRecord

Place = tuple[str, ...]
"""A metric's name and the values of its labels; for a histogram its name and the index of a bucket, or ``sum_ms``."""

SUM_MS = "sum_ms"


class Counters:
    """Counts of one process."""

    def __init__(self, counts: Mapping[Place, int] | None = None) -> None:
        self._counts: dict[Place, int] = dict(counts or {})

    def add(self, metric: Metric, *labels: str, amount: int = 1) -> None:
        """Raise a counter. A negative amount, as of a downward correction, is ignored: a counter never falls."""
        assert metric.kind is Kind.COUNTER
        assert len(labels) == len(metric.labels)
        if amount > 0:
            place = (metric.name, *labels)
            self._counts[place] = self._counts.get(place, 0) + amount

    def put(self, metric: Metric, amount: int) -> None:
        """Set a gauge."""
        assert metric.kind is Kind.GAUGE
        self._counts[metric.name,] = amount

    def observe(self, metric: Metric, ms: int) -> None:
        """Count one duration in a histogram."""
        assert metric.kind is Kind.HISTOGRAM
        bucket = bisect_left(metric.bounds_s, ms / 1000)
        for place, amount in (((metric.name, str(bucket)), 1), ((metric.name, SUM_MS), ms)):
            self._counts[place] = self._counts.get(place, 0) + amount

    def counts(self) -> dict[Place, int]:
        """Return the present counts."""
        return dict(self._counts)


class Sheet:
    """One process's file; ``name`` distinguishes simultaneous processes."""

    def __init__(self, directory: Path, name: str, counters: Counters) -> None:
        self._path = directory / f"{name}.json"
        self._counters = counters
        self._written: dict[Place, int] | None = None
        self._one_at_a_time = threading.Lock()

    def write(self) -> None:
        """Write the sheet if it changed; a reader finds the old sheet or the new sheet, never a partial sheet.

        A full disk stops the metrics and nothing else.
        """
        with self._one_at_a_time, suppress(OSError):
            counts = self._counters.counts()
            if counts == self._written:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps([[*place, amount] for place, amount in counts.items()]), "utf-8")
            part.replace(self._path)
            self._written = counts


def read_sheet(directory: Path, name: str) -> dict[Place, int]:
    """Return the last sheet of a process with this name; empty if there is none."""
    return _read(directory / f"{name}.json")


def add_up(directory: Path) -> dict[Place, int]:
    """Return the counts of all processes together."""
    total: Counter[Place] = Counter()
    for path in sorted(directory.glob("*.json")):
        total.update(_read(path))
    return dict(total)


def _read(path: Path) -> dict[Place, int]:
    try:
        rows = json.loads(path.read_text("utf-8"))
        return {tuple(str(part) for part in place): int(amount) for *place, amount in rows}
    except (OSError, ValueError, TypeError):
        return {}


UNANSWERED = "unanswered"
"""The outcome of an admitted call that the upstream did not answer; it has no record."""


def count_records(counters: Counters, records: Iterable[UsageRecord]) -> None:
    """Count records that have just been appended to the ledger; a downward correction counts nothing."""
    tokens: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    calls: defaultdict[tuple[str, str], int] = defaultdict(int)
    charged = excess = 0
    for record in records:
        tier = record["tier"] or ""
        charged += max(record["charge_nanousd"], 0)
        tokens[tier, "input", record.get("input_source") or ""] += max(record["input_tokens"], 0)
        tokens[tier, "output", record["usage_source"] or ""] += max(record["billed_output_tokens"], 0)
        if record["kind"] == "usage":
            calls[tier, record["finish"] or ""] += 1
            if record["cap_tokens"] is not None:
                excess += max(record["output_tokens"] - record["cap_tokens"] * record["choices"], 0)
            if record["ttft_ms"] is not None:
                counters.observe(FIRST_TOKEN, record["ttft_ms"])
    counters.add(CHARGED, amount=charged)
    counters.add(EXCESS, amount=excess)
    for labels, amount in tokens.items():
        counters.add(TOKENS, *labels, amount=amount)
    for (tier, finish), amount in calls.items():
        counters.add(REQUESTS, tier, finish, amount=amount)
        if finish == "cap":
            counters.add(CAP_HITS, tier, amount=amount)
