"""``tokencap price report``: one page that needs nothing else, and never of a menu that is not what it claims."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gateway.cli.main import run
from tests.gateway.cli.price.test_commands import COSTLY


class Page(HTMLParser):
    """What a page asks a browser to fetch, and what it draws."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.drawings = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.drawings += tag == "svg"
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "action")]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    market, menu = tmp_path / "market.json", tmp_path / "menu.json"
    market.write_text(json.dumps(COSTLY))
    assert run(["price", "menu", "--market", str(market), "--tiers", "2", "--out", str(menu)]) == 0
    return market, menu


def test_a_page_with_drawings_that_fetches_nothing(files: tuple[Path, Path], tmp_path: Path) -> None:
    market, menu = files
    out = tmp_path / "report.html"
    code = run(["price", "report", "--market", str(market), "--menu", str(menu), "--out", str(out)])
    page = Page()
    page.feed(out.read_text())

    assert code == 0
    assert page.drawings > 0
    assert all(link.startswith("#") for link in page.fetched)
    assert "url(http" not in out.read_text()
    assert json.loads(menu.read_text())["version"] in out.read_text()


def test_no_report_on_a_menu_that_is_not_what_it_claims(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    market, menu = files
    tampered = json.loads(menu.read_text())
    tampered["tiers"][0]["price_nanousd"] += 1
    menu.write_text(json.dumps(tampered))
    capsys.readouterr()
    out = tmp_path / "report.html"
    code = run(["price", "report", "--market", str(market), "--menu", str(menu), "--out", str(out)])

    assert code == 1
    assert "price" in capsys.readouterr().err
    assert not out.exists()
