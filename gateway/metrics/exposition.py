"""Counts as text in the Prometheus exposition format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from gateway.metrics.counters import SUM_MS, Place
from gateway.metrics.definitions import METRICS, Kind, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(counts: Mapping[Place, int]) -> str:
    """Return every metric with its help and type; a metric without labels is 0 until it is counted."""
    return "".join(f"{line}\n" for metric in METRICS for line in _lines(metric, counts))


def _lines(metric: Metric, counts: Mapping[Place, int]) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    if metric.kind is Kind.HISTOGRAM:
        yield from _histogram(metric, counts)
    elif not metric.labels:
        yield f"{metric.name} {counts.get((metric.name,), 0)}"
    else:
        for place in sorted(place for place in counts if place[0] == metric.name):
            labels = ",".join(
                f'{name}="{_escaped(value)}"' for name, value in zip(metric.labels, place[1:], strict=True)
            )
            yield f"{metric.name}{{{labels}}} {counts[place]}"


def _histogram(metric: Metric, counts: Mapping[Place, int]) -> Iterator[str]:
    bounds = [*(str(bound) for bound in metric.bounds_s), "+Inf"]
    filled = accumulate(counts.get((metric.name, str(bucket)), 0) for bucket in range(len(bounds)))
    total = 0
    for bound, total in zip(bounds, filled, strict=True):
        yield f'{metric.name}_bucket{{le="{bound}"}} {total}'
    yield f"{metric.name}_sum {counts.get((metric.name, SUM_MS), 0) / 1000}"
    yield f"{metric.name}_count {total}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
