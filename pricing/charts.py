"""Line and bar charts as SVG text, for the report, or as separate files for notebooks and documents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 78, 16, 16, 46

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """Points joined by straight lines or by steps (each value holds up to its point), or drawn as dots."""

    label: str
    points: Sequence[Point]
    drawn: str = "line"


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a chart. A logarithmic axis must have positive values; ``marks`` replace the ticks near them."""

    label: str
    logarithmic: bool = False
    marks: Mapping[float, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def __call__(self, value: float) -> float:
        low, high, position = self.low, self.high, value
        if self.logarithmic:
            low, high, position = math.log(low), math.log(high), math.log(max(value, self.low))
        return self.start + (position - low) / (high - low) * (self.end - self.start)


def line_chart(title: str, series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> str:
    """Return a chart of some series with ticks, labels and a legend."""
    points = [point for curve in series for point in curve.points]
    x = _scale([px for px, _ in points], LEFT, WIDTH - RIGHT, x_axis.logarithmic)
    y = _scale([0.0, *(py for _, py in points)], HEIGHT - BOTTOM, TOP, False)
    parts = [_grid(x, y, x_axis, y_axis)]
    parts += [_series(curve, number, x, y) for number, curve in enumerate(series)]
    return _framed(title, parts) + _legend(series)


def bar_chart(title: str, bars: Sequence[tuple[str, float]], y_axis: Axis, second: Sequence[float | None] = ()) -> str:
    """Return a chart of labelled bars, each with its value; ``second`` are narrower bars drawn within these bars."""
    values = [value for _, value in bars] + [value for value in second if value is not None]
    y = _scale([0.0, *values], HEIGHT - BOTTOM, TOP + 14, False)
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(bars))
    parts = [_y_grid(y, y_axis)]
    for number, (label, value) in enumerate(bars):
        middle = LEFT + (number + 0.5) * slot
        parts.append(_bar(middle, 0.62 * slot, y(value), y(0.0), "c0"))
        inner = second[number] if number < len(second) else None
        if inner is not None:
            parts.append(_bar(middle, 0.22 * slot, y(inner), y(0.0), "c1"))
        parts.append(_text(middle, y(max(value, inner or 0.0)) - 5, shown(value), "middle"))
        parts.append(_text(middle, HEIGHT - BOTTOM + 18, label, "middle"))
    return _framed(title, parts)


def shown(value: float) -> str:
    """Return a number as a chart shows it: four digits, with thousands separators."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _scale(values: Sequence[float], start: float, end: float, logarithmic: bool) -> _Scale:
    low, high = min(values), max(values)
    if logarithmic:
        low = min(value for value in values if value > 0)
    if high <= low:
        high = low + (abs(low) or 1.0)
    if start > end:
        high += 0.04 * (high - low)
    return _Scale(low, high, start, end, logarithmic)


def _deadlines(scale: _Scale) -> list[float]:
    if scale.logarithmic:
        decades = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
        marks = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
        return [mark for mark in marks if scale.low <= mark <= scale.high]
    rough = (scale.high - scale.low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(scale.low / step - 1e-9)
    return [step * place for place in range(first, math.floor(scale.high / step + 1e-9) + 1)]


def _grid(x: _Scale, y: _Scale, x_axis: Axis, y_axis: Axis) -> str:
    parts = [_y_grid(y, y_axis)]
    for mark in _deadlines(x):
        parts.append(_line(x(mark), HEIGHT - BOTTOM, x(mark), HEIGHT - BOTTOM + 4, "axis"))
        parts.append(_text(x(mark), HEIGHT - BOTTOM + 18, shown(mark), "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_axis.label, "middle", "label"))
    return "".join(parts)


def _y_grid(y: _Scale, y_axis: Axis) -> str:
    parts = []
    labels = {
        mark: shown(mark) for mark in _deadlines(y) if all(abs(y(mark) - y(marked)) > 14 for marked in y_axis.marks)
    }
    for mark, label in (labels | dict(y_axis.marks)).items():
        parts.append(_line(LEFT, y(mark), WIDTH - RIGHT, y(mark), "grid"))
        parts.append(_text(LEFT - 8, y(mark) + 4, label, "end"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 14 {middle:.1f})"'
    parts.append(_text(14, middle, y_axis.label, "middle", "label", turned))
    parts.append(_line(LEFT, y(0.0), WIDTH - RIGHT, y(0.0), "axis"))
    return "".join(parts)


def _series(curve: Series, number: int, x: _Scale, y: _Scale) -> str:
    color = f"c{number % 8}"
    pixels = [(x(px), y(py)) for px, py in curve.points]
    if curve.drawn == "dots":
        return "".join(f'<circle class="dot {color}" cx="{px:.1f}" cy="{py:.1f}" r="4"/>' for px, py in pixels)
    path = f"M{pixels[0][0]:.1f} {pixels[0][1]:.1f}"
    for px, py in pixels[1:]:
        path += f"V{py:.1f}H{px:.1f}" if curve.drawn == "step" else f"L{px:.1f} {py:.1f}"
    return f'<path class="line {color}" d="{path}"/>'


def _bar(middle: float, width: float, top: float, foot: float, color: str) -> str:
    high, low = min(top, foot), max(top, foot)
    return (
        f'<rect class="bar {color}" x="{middle - width / 2:.1f}" y="{high:.1f}" '
        f'width="{width:.1f}" height="{low - high:.1f}"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick", attributes: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {attributes}>{escape(text)}</text>'


def _framed(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    entries = (f'<li><i class="c{number % 8}"></i>{escape(curve.label)}</li>' for number, curve in enumerate(series))
    return f'<ul class="legend">{"".join(entries)}</ul>'


ROW = 18
"""Height of a line of the legend."""

COLORS = ("#3e63dd", "#e5671a", "#18794e", "#a13fb1", "#0d8a9b", "#946800", "#cb1d63", "#60656c")

STYLE = (
    "svg{background:#fff}text{font:12px system-ui,sans-serif;fill:#60656c}text.label{fill:#1c2024}"
    ".grid{stroke:#e3e5e8}.axis{stroke:#60656c}.line{fill:none;stroke:currentColor;stroke-width:2}"
    ".bar,.dot{fill:currentColor}" + "".join(f".c{number}{{color:{color}}}" for number, color in enumerate(COLORS))
)


def drawing(title: str, series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> str:
    """Return a line chart as the text of an SVG file."""
    chart = line_chart(title, series, x_axis, y_axis).split("</svg>")[0]
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    enlarged = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + ROW * len(series)}"'
    legend = "".join(
        f'<rect class="bar c{number % len(COLORS)}" x="{LEFT}" y="{HEIGHT + ROW * number}" width="10" height="10"/>'
        f'<text x="{LEFT + 16}" y="{HEIGHT + ROW * number + 9}">{escape(curve.label)}</text>'
        for number, curve in enumerate(series)
    )
    return f"{chart.replace(size, enlarged, 1)}<style>{STYLE}</style>{legend}</svg>\n"
