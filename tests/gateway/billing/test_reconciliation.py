"""Claims about reconciliation: what differs is named by day, model and figure, each with the cause that is likeliest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.billing.reconciliation import (
    DAY_MS,
    FEWER_REQUESTS,
    MIDNIGHT,
    MORE_REQUESTS,
    NOT_ON_RECORD,
    NOT_OURS,
    NOT_REPORTED,
    OTHER_FIGURES,
    WITH_REQUESTS,
    NoReport,
    read_report,
    reconciled,
)
from gateway.ledger.billing.upstream_sums import DaySum

DAY = 20_454 * DAY_MS  # 2026-01-01


def ours(day: int = DAY, **changes: Any) -> DaySum:
    sums = {"calls": 100, "input_tokens": 2_000, "cached_tokens": 100, "output_tokens": 5_000}
    return DaySum(**{"day": day, "embeds": False, **sums, "guessed_input": 0, "guessed_output": 0, **changes})


def theirs(day: int = DAY, model: str = "m", **changes: int) -> dict[tuple[int, str], dict[str, int]]:
    sums = {"requests": 100, "input_tokens": 2_000, "cached_tokens": 100, "output_tokens": 5_000}
    return {(day, model): {**sums, **changes}}


def found(sums: list[DaySum], report: dict[tuple[int, str], dict[str, int]]) -> list[tuple[str, int, str]]:
    differences = reconciled(sums, report, model="m", embedding_model="e")
    return [(one.what, one.difference, one.cause) for one in differences]


@pytest.mark.parametrize("name", ["m", "m-2026-01-01", ""])
def test_what_is_the_same_is_no_difference(name: str) -> None:
    """The endpoint's name of the model may have a version behind it, or be left out."""
    assert found([ours()], theirs(model=name)) == []


def test_embeddings_are_held_against_the_embedding_model() -> None:
    sums = [ours(), ours(embeds=True, calls=3, input_tokens=9, cached_tokens=0, output_tokens=0)]
    embeddings = theirs(model="e", requests=3, input_tokens=9, cached_tokens=0, output_tokens=0)

    assert found(sums, theirs() | embeddings) == []


@pytest.mark.parametrize(
    ("sums", "report", "expected"),
    [
        ([ours()], theirs(requests=103), [("requests", 3, MORE_REQUESTS)]),
        ([ours()], theirs(requests=97), [("requests", -3, FEWER_REQUESTS)]),
        (
            [ours()],
            theirs(requests=103, output_tokens=5_150),
            [("requests", 3, MORE_REQUESTS), ("output_tokens", 150, WITH_REQUESTS)],
        ),
        ([ours()], theirs(output_tokens=5_150), [("output_tokens", 150, OTHER_FIGURES)]),
        (
            [ours(guessed_output=200)],
            theirs(output_tokens=5_150),
            [("output_tokens", 150, "200 of ours the endpoint did not count: they are our own count or estimate")],
        ),
        (
            [ours(guessed_input=150)],
            theirs(input_tokens=1_850),
            [("input_tokens", -150, "150 of ours the endpoint did not count: they are our own count or estimate")],
        ),
        (
            [ours()],
            theirs() | theirs(model="x", requests=0, input_tokens=7, cached_tokens=0, output_tokens=0),
            [("input_tokens", 7, NOT_OURS)],
        ),
        (
            [ours(), ours(DAY + DAY_MS)],
            theirs(output_tokens=4_000) | theirs(DAY + DAY_MS, output_tokens=6_000),
            [("output_tokens", -1_000, MIDNIGHT), ("output_tokens", 1_000, MIDNIGHT)],
        ),
        (
            [ours(), ours(DAY + DAY_MS)],
            theirs(output_tokens=4_000) | theirs(DAY + DAY_MS, output_tokens=5_500),
            [("output_tokens", -1_000, OTHER_FIGURES), ("output_tokens", 500, OTHER_FIGURES)],
        ),
        (
            [ours()],
            theirs(requests=60) | theirs(model="m-2026", requests=50, input_tokens=0, cached_tokens=0, output_tokens=0),
            [("requests", 10, MORE_REQUESTS)],
        ),
    ],
)
def test_a_difference_has_its_likeliest_cause(
    sums: list[DaySum], report: dict[tuple[int, str], dict[str, int]], expected: list[tuple[str, int, str]]
) -> None:
    assert found(sums, report) == expected


def test_a_day_that_only_one_side_has_is_said_so() -> None:
    third = DAY + 2 * DAY_MS
    report = theirs() | theirs(third)

    assert {cause for _, _, cause in found([ours()], report)} == {NOT_ON_RECORD}
    assert {cause for _, _, cause in found([ours(), ours(DAY + DAY_MS), ours(third)], report)} == {NOT_REPORTED}
    assert found([ours(), ours(third), ours(third + DAY_MS)], report) == [], "a day after the report's last"
    assert found([ours(DAY - DAY_MS), ours(), ours(third)], report) == [], "a day before the report's first"


def test_a_model_whose_name_begins_with_anothers_is_itself() -> None:
    sums = [ours(embeds=True)]

    assert reconciled(sums, theirs(model="m-small-2026"), model="m", embedding_model="m-small") == []


@pytest.mark.parametrize(("output_tokens", "share"), [(4_000, -0.2), (6_250, 0.2), (0, -1.0)])
def test_a_share_is_of_the_larger_figure(output_tokens: int, share: float) -> None:
    [difference] = reconciled([ours()], theirs(output_tokens=output_tokens), model="m", embedding_model=None)

    assert difference.share == share


def test_what_the_record_lacks_is_the_whole_difference() -> None:
    [*differences] = reconciled([], theirs(), model="m", embedding_model=None)

    assert {difference.share for difference in differences} == {1.0}


PAGE = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": DAY // 1000,
            "end_time": (DAY + DAY_MS) // 1000,
            "results": [
                {
                    "input_tokens": 10,
                    "input_cached_tokens": 2,
                    "output_tokens": 5,
                    "num_model_requests": 1,
                    "model": "m",
                },
                {"input_tokens": 1, "output_tokens": 1, "num_model_requests": 1, "model": None},
            ],
        },
        {"object": "bucket", "start_time": DAY // 1000 + 3600, "results": [{"output_tokens": 7, "model": "m"}]},
    ],
}


@pytest.mark.parametrize("text", [json.dumps(PAGE), json.dumps([PAGE]), json.dumps(PAGE, indent=1)])
def test_openais_pages_are_read(text: str) -> None:
    assert read_report(text) == {
        (DAY, "m"): {"requests": 1, "input_tokens": 10, "cached_tokens": 2, "output_tokens": 12},
        (DAY, ""): {"requests": 1, "input_tokens": 1, "cached_tokens": 0, "output_tokens": 1},
    }
    assert read_report(f"{json.dumps(PAGE)}\n{json.dumps(PAGE)}\n")[DAY, "m"]["output_tokens"] == 24


def test_a_day_that_a_report_covers_and_does_not_name_has_no_usage() -> None:
    named, silent = read_report(json.dumps(PAGE), [DAY, DAY + DAY_MS]), DAY + DAY_MS

    assert named[silent, ""] == {"requests": 0, "input_tokens": 0, "cached_tokens": 0, "output_tokens": 0}
    assert named[DAY, ""]["output_tokens"] == 1
    assert {cause for _, _, cause in found([ours(silent)], {(silent, ""): named[silent, ""]})} == {NOT_REPORTED}


@pytest.mark.parametrize("first", ["2026-01-01", "2026-01-01T05:00:00Z", str(DAY // 1000), str(DAY + 5)])
def test_a_csv_file_is_read(first: str) -> None:
    text = f"start_time,model,num_model_requests,input_tokens,input_cached_tokens,output_tokens\n{first},m,1,10,,5\n"

    assert read_report(text) == {
        (DAY, "m"): {"requests": 1, "input_tokens": 10, "cached_tokens": 0, "output_tokens": 5}
    }


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"data": []}', "a,b\n1,2\n", "date,model\nsoon,m\n", '{"data": 1}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(NoReport):
        read_report(text)
