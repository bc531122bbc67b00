"""The operators' files in ``deploy/`` use metrics and labels that exist."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.metrics.definitions import METRICS, Kind
from tests.house.files import ROOT

ALERTS: list[dict[str, Any]] = [
    rule for group in YAML(typ="safe").load(ROOT / "deploy" / "alerts.yml")["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "dashboard.json").read_text("utf-8"))
EXPRESSIONS = [
    *(pytest.param(rule["expr"], id=rule["alert"]) for rule in ALERTS),
    *(pytest.param(target["expr"], id=panel["title"]) for panel in DASHBOARD["panels"] for target in panel["targets"]),
]
SERIES = {
    **{metric.name: metric for metric in METRICS if metric.kind is not Kind.HISTOGRAM},
    **{f"{metric.name}_bucket": metric for metric in METRICS if metric.kind is Kind.HISTOGRAM},
}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_series_that_exist_by_labels_they_have(expression: str) -> None:
    """A misspelt metric is no error in Prometheus: the panel would stay empty, the alert silent."""
    named = re.findall(r"tokencap_\w+", expression)
    labels = {label for inside in re.findall(r"by \(([^)]*)\)", expression) for label in re.split(r",\s*", inside)}
    labels |= set(re.findall(r"(\w+)=~?\"", expression))
    known = {label for name in named for label in SERIES[name].labels} | {"le"}

    assert named
    assert labels <= known
    assert expression.count("(") == expression.count(")")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_counter_is_read_by_its_rate(expression: str) -> None:
    """A counter's value alone means nothing, and restarts at zero."""
    for name in re.findall(r"tokencap_\w+", expression):
        if SERIES[name].kind is not Kind.GAUGE:
            assert re.search(rf"(?:rate|increase)\({name}", expression)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {
        name
        for panel in DASHBOARD["panels"]
        for one in panel["targets"]
        for name in re.findall(r"tokencap_\w+", one["expr"])
    }

    assert shown == set(SERIES)


def test_panels_have_places_of_their_own() -> None:
    """No two panels share an id, or a square of the grid, which is 24 squares wide."""
    panels = DASHBOARD["panels"]
    squares = [
        (place["x"] + right, place["y"] + down)
        for place in (panel["gridPos"] for panel in panels)
        for right in range(place["w"])
        for down in range(place["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(squares)) == len(squares)
    assert max(right for right, _ in squares) < 24


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_how_bad_it_is_and_where_to_look(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description"}
