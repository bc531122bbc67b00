"""``import pricing``: the library for economists, and its tutorial on sample records of a known market."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import pricing
from pricing import library
from pricing.comparisons.sensitivity import offer_in
from pricing.market.market import read_market
from pricing.market.worth import valuation_of
from pricing.mechanism.demand import crowd_of
from tests.house.files import ROOT
from tests.pricing.estimate.recovery import CHOOSING, lognormal_urgency
from tests.pricing.estimate.talking import menu_of, talk

DOCS = ROOT / "docs" / "pricing"
TYPES = [(0.01, 0.3), (0.05, 0.4), (0.15, 0.3)]


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The tutorial's results, and the folder of its drawings."""
    out = tmp_path_factory.mktemp("tutorial")
    names: dict[str, Any] = {"__name__": "tutorial", "__file__": str(DOCS / "tutorial.py")}
    exec(compile((DOCS / "tutorial.py").read_text("utf-8"), "tutorial.py", "exec"), names)
    return names["main"](out), out


@pytest.fixture(scope="module")
def market() -> Any:
    return pricing.Market(types=TYPES, lengths={100: 0.3, 300: 0.4, 900: 0.3}, tokens_per_s=50)


def test_the_package_has_what_it_names_and_loads_numpy_with_the_first_of_it() -> None:
    """The gateway's serving path imports parts of the package, and must not wait for numpy."""
    program = "import sys, pricing; assert 'numpy' not in sys.modules; pricing.Market; assert 'numpy' in sys.modules"

    assert sorted(pricing.__all__) == sorted(library.__all__)
    assert all(getattr(pricing, name) is getattr(library, name) for name in pricing.__all__)
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)
    with pytest.raises(AttributeError, match="no attribute 'price'"):
        pricing.price  # noqa: B018
    assert (ROOT / "pricing" / "py.typed").exists()


def test_a_market_is_said_in_a_line_and_is_the_files(market: Any) -> None:
    again = pricing.Market.from_json(json.dumps(market.to_json()))

    assert market.to_columns() == again.to_columns()
    assert market.to_columns()["urgency_per_s"] == [0.01, 0.05, 0.15]
    assert "3 types" in market.summary()
    assert pricing.Market.from_json(pricing.Market(types=TYPES, mean_tokens=40, tokens_per_s=50).to_json()).to_json()[
        "answer_length"
    ] == {"family": "exponential", "mean_tokens": 40}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"types": TYPES}, "either mean_tokens or lengths"),
        ({"types": TYPES, "mean_tokens": 40, "lengths": {10: 1.0}}, "either mean_tokens or lengths"),
        ({"mean_tokens": 40}, "types is a list"),
        ({"types": [(0.1, 0.4)], "mean_tokens": 40}, "shares of types"),
        ({"types": TYPES, "mean_tokens": 40, "cost_nanousd_per_token": 5}, "cap_tokens_max is required"),
    ],
)
def test_what_is_no_market_is_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(pricing.NotAMarket, match=sentence):
        pricing.Market(tokens_per_s=50, **arguments)


def test_a_menu_is_that_of_the_file_and_verifies(market: Any) -> None:
    """The library's menu has a summary, a report and a table, and passes wishes through."""
    menu = pricing.optimal_menu(market, tiers=2)
    again = pricing.Menu(json.dumps(menu.to_json()))
    everyone = pricing.optimal_menu(market, tiers=2, everyone=True)
    best = pricing.compare_models({"one": market, "other": market})

    assert again.verify().ok
    assert again.market.to_json() == market.to_json()
    assert menu.profit == pytest.approx(
        sum(np.multiply(*map(menu.to_columns().get, ("share", "margin_nanousd")))), rel=1e-9
    )
    assert f"{menu.profit:,.0f}" in menu.summary()
    assert menu.report().startswith("<!doctype html>")
    assert "serves everyone" in repr(everyone)
    assert [model.behind for model in best] == [0, 0]
    with pytest.raises(pricing.NotAMenu):
        pricing.Menu({"tiers": []})


def test_tables_are_data_frames(market: Any) -> None:
    """An uncapped tier has no cap in a data frame either, and whole numbers stay whole."""
    frame = pricing.optimal_menu(market, tiers=3).to_frame()

    assert frame["cap_tokens"].isna().sum() == 1
    assert str(frame["cap_tokens"].dtype) == "Int64"
    assert list(market.to_frame()["share"]) == pytest.approx([0.3, 0.4, 0.3])


def test_without_pandas_it_is_said_what_to_install(market: Any) -> None:
    hidden, sys.modules["pandas"] = sys.modules.get("pandas"), None  # type: ignore[assignment]
    try:
        with pytest.raises(ImportError, match=r"tokencap\[frames\]"):
            market.to_frame()
    finally:
        del sys.modules["pandas"]
        if hidden is not None:
            sys.modules["pandas"] = hidden


def test_the_tutorial_learns_the_market_it_was_given(tutorial: tuple[dict[str, Any], Path]) -> None:
    """The truth is within 0.05 of the bands of eight draws; disconnects alone lead to 75 % of the best profit."""
    results, _ = tutorial
    truth, learnt, sold = results["worth"], results["urgency"], results["learnt"]
    curve = {name: np.array(values) for name, values in learnt.to_columns().items()}
    for rate, reached in ((0.02, 0.3), (0.09, 0.7)):
        place = int(np.searchsorted(curve["urgency_per_s"], rate))
        assert curve["cumulative_share_low"][place] - 0.05 <= reached <= curve["cumulative_share_high"][place] + 0.05

    there = valuation_of(read_market(truth.to_json()))
    earned = crowd_of([(1.0, there, 0.0, 0.0)]).profit(offer_in(there, sold.to_json()["tiers"]))
    assert earned >= 0.75 * results["menu"].profit
    assert "urgency" in learnt.summary().lower()
    assert len(sold.to_columns()["tier"]) <= learnt.to_json()["estimate"]["tiers"]


def test_what_was_taken_is_drawn_beside_what_the_estimate_predicts() -> None:
    """300 customers took tiers for their accounts: the estimate predicts the share of each tier within 0.1."""
    random, truth = np.random.default_rng(1), lognormal_urgency()
    offered = menu_of(CHOOSING.caps_tokens, CHOOSING.prices_nanousd)
    records = list(talk(truth, offered, customers=300, conversations=10, random=random, named=False))

    learnt = pricing.fit(records, [offered], value_nanousd=1_000_000_000, own_tiers=True, draws=2)

    [taken] = learnt.to_json()["estimate"]["choices"]
    assert taken["tiers"] == [1, 2, 3]
    assert sum(taken["observed"]) == pytest.approx(1)
    assert taken["predicted"] == pytest.approx(taken["observed"], abs=0.1)
    assert "What was taken" in learnt.plot("choices")


def test_where_nobody_chose_there_is_nothing_to_draw(tutorial: tuple[dict[str, Any], Path]) -> None:
    results, _ = tutorial

    with pytest.raises(ValueError, match="Nobody was seen to choose"):
        results["urgency"].plot("choices")


def test_the_pictures_of_the_documents_are_drawings(tutorial: tuple[dict[str, Any], Path]) -> None:
    """The tutorial draws the same pictures as the documents have; each is a valid small SVG, and loads nothing."""
    _, out = tutorial
    shipped = {path.name for path in DOCS.glob("*.svg")}

    assert shipped == {path.name for path in out.glob("*.svg")}
    for path in (*DOCS.glob("*.svg"), *out.glob("*.svg")):
        root = ElementTree.fromstring(path.read_text("utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert path.stat().st_size < 20_000
        assert not any("href" in name for one in root.iter() for name in one.attrib)
    assert {f"]({name})" for name in shipped} <= set(_links((DOCS / "README.md").read_text("utf-8")))


def _links(text: str) -> list[str]:
    return [f"]({part.split(')')[0]})" for part in text.split("](")[1:]]
