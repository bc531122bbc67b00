"""A chart as an SVG file of its own, with its style and legend inside: for notebooks and documents."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pricing.charts import HEIGHT, LEFT, WIDTH, Axis, Series, line_chart

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
    whole = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + ROW * len(series)}"'
    legend = "".join(
        f'<rect class="bar c{number % len(COLORS)}" x="{LEFT}" y="{HEIGHT + ROW * number}" width="10" height="10"/>'
        f'<text x="{LEFT + 16}" y="{HEIGHT + ROW * number + 9}">{escape(one.label)}</text>'
        for number, one in enumerate(series)
    )
    return f"{chart.replace(size, whole, 1)}<style>{STYLE}</style>{legend}</svg>\n"
