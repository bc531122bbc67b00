"""``tokencap price fit``: a market from files or from a ledger, the same from both, and near the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.catalog import customer_rows
from gateway.catalog.customer_rows import CustomerRow
from gateway.ledger.database import Database
from pricing.market.estimated import estimated
from pricing.market.market import read_market
from tests.gateway.cli.commands import tokencap
from tests.gateway.cli.keeping import kept
from tests.pricing.estimate.simulated import Truth
from tests.pricing.estimate.talking import NOON, menu_of, talk

TRUTH = Truth((0.01, 0.05, 0.15), (0.3, 0.4, 0.3))
MENU = menu_of((140, 1040, None), (60_000_000, 545_000_000, 625_000_000))
WORTH = ("--value-nanousd", "1000000000")
FEW = (*WORTH, "--draws", "2")
"""Choices are read once a draw, so few draws are quick; what is tested here does not hang on how many there are."""
BEYOND_PER_S = 0.2
"""No customer more urgent than 0.18/s wants the smallest tier, so buyers alone show next to nobody beyond this."""


def talked(customers: int) -> list[dict[str, Any]]:
    """Return the calls of customers who name a tier with each of twenty conversations."""
    return list(talk(TRUTH, MENU, customers=customers, conversations=20, random=np.random.default_rng(1)))


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    """The calls of a quarter of the customers who tell the shares between the types."""
    return talked(100)


@pytest.fixture(scope="module")
def assigned(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same calls of customers whose tiers were assigned: there are no choices to be read, which take long."""
    return [record | {"tier_chosen": None} for record in records]


@pytest.fixture(scope="module")
def assigned_files(tmp_path_factory: pytest.TempPathFactory, assigned: list[dict[str, Any]]) -> tuple[str, ...]:
    """The words that name the files of these calls and their menu."""
    place = tmp_path_factory.mktemp("assigned")
    usage, menu = written(place / "u.jsonl", assigned), written(place / "m.json", [MENU])
    return "--usage", str(usage), "--menu", str(menu)


@pytest.fixture(scope="module")
def by_leaving(tmp_path_factory: pytest.TempPathFactory, assigned_files: tuple[str, ...]) -> Any:
    """The market that ``price fit`` learns where tiers were assigned, so that only leaving is read."""
    data = tmp_path_factory.mktemp("fitted") / "data"
    fitted = tokencap(data, "price", "fit", *assigned_files, *FEW, "--out", "-")
    assert fitted.returncode == 0, fitted.stderr
    return json.loads(fitted.stdout)


@pytest.fixture(scope="module")
def told_by_files(tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]) -> str:
    """What ``price fit`` says of the records as files."""
    place = tmp_path_factory.mktemp("files")
    files = [written(place / "usage.jsonl", records), written(place / "menu.json", [MENU])]
    fitted = tokencap(
        place / "data", "price", "fit", "--usage", str(files[0]), "--menu", str(files[1]), *FEW, "--out", "-"
    )
    assert fitted.returncode == 0, fitted.stderr
    return fitted.stdout


def written(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def without_a_tier(name: str) -> CustomerRow:
    return CustomerRow(name, name, None, NOON, "active", "month", "UTC", NOON)


def test_a_market_is_estimated_from_files(tmp_path: Path) -> None:
    """Two files after one --usage; the shares between the types are recovered, and a menu can be made of it."""
    records = talked(400)
    data, menu, out = tmp_path / "data", written(tmp_path / "menu.json", [MENU]), tmp_path / "market.json"
    first, second = written(tmp_path / "a.jsonl", records[:3000]), written(tmp_path / "b.jsonl", records[2900:])

    done = tokencap(
        data, "price", "fit", "--usage", str(first), str(second), "--menu", str(menu), *FEW, "--out", str(out)
    )

    assert done.returncode == 0, done.stderr
    market = json.loads(out.read_text())
    reached = [sum(t["share"] for t in market["types"] if t["urgency_per_s"] <= at) for at in (0.025, 0.09)]
    np.testing.assert_allclose(reached, (0.3, 0.7), atol=0.1)
    assert market["estimate"]["sources"] == ["disconnects", "conversation_choices"]
    assert market["estimate"]["set_aside"] == {"records_repeated": 100}
    assert market["tokens_per_s"] == pytest.approx(50, rel=0.02)
    assert read_market(market).currency == "USD"
    assert "Set aside: 100 records repeated." in done.stdout
    menu = tokencap(data, "price", "menu", "--market", str(out), "--tiers", "3", "--out", str(tmp_path / "new.json"))
    assert menu.returncode == 0, menu.stderr


def test_a_ledger_tells_what_its_export_tells(
    tmp_path: Path, ledger_url: str, records: list[dict[str, Any]], told_by_files: str
) -> None:
    kept(ledger_url, records, MENU)

    by_ledger = tokencap(tmp_path / "data", "price", "fit", "--database", ledger_url, *FEW, "--out", "-")

    assert by_ledger.returncode == 0, by_ledger.stderr
    one, other = json.loads(by_ledger.stdout), json.loads(told_by_files)
    notes = [
        [note for note in market["estimate"].pop("notes") if "may still go on" not in note] for market in (one, other)
    ]
    assert notes[0] == notes[1]
    assert one["estimate"] == other["estimate"]
    assert one["answer_length"] == other["answer_length"]
    np.testing.assert_allclose(
        [(t["urgency_per_s"], t["share"]) for t in one["types"]],
        [(t["urgency_per_s"], t["share"]) for t in other["types"]],
        rtol=1e-6,
    )


def test_a_tier_taken_for_an_account_is_a_choice_only_if_the_customer_took_it(
    tmp_path: Path, assigned_files: tuple[str, ...], by_leaving: Any
) -> None:
    taken = tokencap(tmp_path / "data", "price", "fit", *assigned_files, *FEW, "--own-tiers", "--out", "-")

    assert by_leaving["estimate"]["sources"] == ["disconnects"]
    assert json.loads(taken.stdout)["estimate"]["sources"] == ["disconnects", "customer_choices"]


def test_the_value_is_told_by_tiers_that_customers_took(tmp_path: Path, assigned_files: tuple[str, ...]) -> None:
    """Nobody says one; the file says that it was estimated and from where to where choices leave it."""
    words = *assigned_files, "--own-tiers", "--estimate-value", "--draws", "2"

    done = tokencap(tmp_path / "data", "price", "fit", *words, "--out", "-")

    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)["estimate"]["value"]
    assert value["known_by"] == "estimated"
    assert value["low"] < 1.2e9 < value["high"]


def test_worth_and_costs_are_those_of_the_newest_menus_market_unless_said(
    tmp_path: Path, assigned: list[dict[str, Any]]
) -> None:
    market = TRUTH.to_json(step=20) | {"cost_nanousd_per_token": 7, "cost_on_disconnect": "runs"}
    menu = written(tmp_path / "m.json", [MENU | {"market": market}])
    usage = written(tmp_path / "u.jsonl", assigned)

    done = tokencap(tmp_path / "data", "price", "fit", "--usage", str(usage), "--menu", str(menu), "--out", "-")

    found = json.loads(done.stdout)
    worth = found["value_nanousd"] / (1 - found["estimate"]["value_understated_by"])
    assert worth == pytest.approx(1e9)
    assert (found["cost_nanousd_per_token"], found["cost_on_disconnect"]) == (7, "runs")
    beside = estimated(read_market(found))
    assert beside is not None
    assert len(beside.draws) == 20
    assert beside.tiers is None or 1 <= beside.tiers <= 4


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ((), 2, "Give either --usage with --menu, or --database."),
        (("--usage", "nowhere.jsonl", *WORTH), 2, "nowhere.jsonl: No such file or directory."),
        (("--usage", "bad.jsonl", *WORTH), 2, "bad.jsonl: line 2 is not JSON."),
        (("--usage", "list.jsonl", *WORTH), 2, "list.jsonl: line 1 is not a usage record, a JSON object."),
        (("--usage", "few.jsonl"), 2, "Nobody says what an answer is worth"),
        (("--usage", "few.jsonl", *WORTH), 1, "No market can be estimated: 0 customers are too few"),
        (("--usage", "few.jsonl", *WORTH, "--estimate-value"), 2, "Give either --value-nanousd or --estimate-value."),
        (("--usage", "few.jsonl", "--since", "soon", *WORTH), 2, "--since:"),
        (("--database", "sqlite:///nowhere.sqlite", *WORTH), 3, "There is no ledger at"),
    ],
)
def test_what_cannot_be_estimated_is_one_sentence(
    tmp_path: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": "a"}\n{\n')
    (tmp_path / "list.jsonl").write_text("[]\n")
    (tmp_path / "few.jsonl").write_text('{"id": "a"}\n')

    done = tokencap(tmp_path / "data", "price", "fit", *words, "--out", "market.json")

    assert done.returncode == code
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "market.json").exists()


def test_bad_records_are_set_aside_with_a_count(
    tmp_path: Path, assigned: list[dict[str, Any]], by_leaving: Any
) -> None:
    """Clock jumps, negative durations, deleted tiers, halves of records, and a program that hangs up a million times."""

    def spoilt(number: int, **changes: Any) -> dict[str, Any]:
        return (
            assigned[number] | {"id": f"bad_{number}", "conversation": f"bad_{number}", "customer": "cus_bad"} | changes
        )

    bad = [
        *(spoilt(n, duration_ms=-1000) for n in range(3)),
        *(spoilt(n, settled=0) for n in range(3, 5)),
        *(spoilt(n, tier="deleted", billed_output_tokens=5) for n in range(5, 12)),
        *(spoilt(n, duration_ms="long") for n in range(12, 16)),
        *(spoilt(n, finish="vanished") for n in range(16, 18)),
        *(
            spoilt(0, id=f"bot_{n}", conversation=f"bot_{n}", customer="cus_bot", finish="disconnect", ttft_ms=None)
            | {"duration_ms": 60, "billed_output_tokens": 0, "output_tokens": 0, "time": NOON + n, "settled": NOON + n}
            for n in range(25_000)
        ),
    ]
    menu, all_of_it = written(tmp_path / "m.json", [MENU]), written(tmp_path / "b.jsonl", [*assigned, *bad])

    done = tokencap(
        tmp_path / "data", "price", "fit", "--usage", str(all_of_it), "--menu", str(menu), *FEW, "--out", "-"
    )

    one, other = by_leaving, json.loads(done.stdout)
    aside = other["estimate"]["set_aside"]
    assert aside["conversations_of_impossible_times"] == 5
    assert aside["conversations_of_unknown_tiers"] == 7
    assert aside["records_malformed"] == 4
    assert aside["conversations_of_unknown_ending"] == 2
    assert aside["customers_outsized"] == 1
    assert one["answer_length"] == other["answer_length"]
    assert sum(t["share"] for t in other["types"] if t["urgency_per_s"] < 0.09) == pytest.approx(
        sum(t["share"] for t in one["types"] if t["urgency_per_s"] < 0.09), abs=0.03
    )


def test_customers_who_took_nothing_are_refusals(
    tmp_path: Path, ledger_url: str, records: list[dict[str, Any]]
) -> None:
    """Twenty-five customers without a tier: the most urgent have a share that buyers alone would not show."""
    kept(ledger_url, records, MENU)
    database = Database(ledger_url)
    with database.write() as connection:
        for number in range(25):
            customer_rows.add(connection, without_a_tier(f"cus_none_{number}"))
    database.close()

    done = tokencap(tmp_path / "data", "price", "fit", "--database", ledger_url, *FEW, "--out", "-")

    market = json.loads(done.stdout)
    beyond = sum(t["share"] for t in market["types"] if t["urgency_per_s"] > BEYOND_PER_S)
    assert "customer_choices" in market["estimate"]["sources"]
    assert not any("Refusals were not counted" in note for note in market["estimate"]["notes"])
    assert beyond == pytest.approx(25 / 125, abs=0.06)
