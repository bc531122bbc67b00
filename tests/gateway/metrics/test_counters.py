"""Counts of several processes add up, survive a restart, and are read by Prometheus' own parser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Thread

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics.counters import Counters, Place, Sheet, add_up, count_records, read_sheet
from gateway.metrics.definitions import CAP_HITS, CHARGED, FIRST_TOKEN, HOLDS, METRICS, REFUSALS, REQUESTS, TOKENS
from gateway.metrics.exposition import exposition
from tests.gateway.ledger.records import record

AWKWARD = 'small "print"\\\n'


def samples(counts: Mapping[Place, int]) -> dict[tuple[str, ...], float]:
    """Return what a scraper sees: name and label values to number."""
    families = text_string_to_metric_families(exposition(counts))
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_the_parser_of_prometheus_reads_every_metric_back() -> None:
    """Each has its type and help, labels come back to the letter, and one without labels begins at 0."""
    counters = Counters()
    counters.add(REQUESTS, AWKWARD, "complete", amount=3)
    families = {family.name: family for family in text_string_to_metric_families(exposition(counters.counts()))}

    assert {name.removesuffix("_total") for name in (metric.name for metric in METRICS)} == families.keys()
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
    assert samples(counters.counts())[REQUESTS.name, AWKWARD, "complete"] == 3
    assert samples({})[CHARGED.name,] == 0
    assert samples({})[HOLDS.name,] == 0


def test_no_metric_has_a_label_by_customer() -> None:
    known = {"tier", "outcome", "kind", "source", "code", "part", "field"}

    assert {label for metric in METRICS for label in metric.labels} == known


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    """A duration on a bound is in that bound's bucket; all are in +Inf."""
    counters = Counters()
    for ms in (10, 25, 26, 40_000):
        counters.observe(FIRST_TOKEN, ms)

    seen = samples(counters.counts())

    name = FIRST_TOKEN.name
    assert [seen[f"{name}_bucket", bound] for bound in ("0.025", "0.05", "30.0", "+Inf")] == [2, 3, 3, 4]
    assert (seen[f"{name}_count",], seen[f"{name}_sum",]) == (4, 40.061)


def test_sheets_of_all_processes_add_up(tmp_path: Path) -> None:
    """Also of processes that are gone; what was not counted since is not written again."""
    tallies = [Counters() for _ in range(3)]
    for number, counters in enumerate(tallies):
        counters.add(REFUSALS, "not_found", amount=number + 1)
        Sheet(tmp_path / "metrics", f"w_{number}", counters).write()

    assert add_up(tmp_path / "metrics") == {(REFUSALS.name, "not_found"): 6}
    again = Counters(read_sheet(tmp_path / "metrics", "w_2"))
    again.add(REFUSALS, "not_found")
    Sheet(tmp_path / "metrics", "w_2", again).write()
    assert add_up(tmp_path / "metrics") == {(REFUSALS.name, "not_found"): 7}


def test_a_scrape_during_writes_never_reads_half_a_sheet(tmp_path: Path) -> None:
    """Sums only ever rise while a process counts and writes."""
    counters = Counters()
    sheet = Sheet(tmp_path, "w_1", counters)

    def count() -> None:
        for _ in range(500):
            counters.add(CAP_HITS, "small")
            counters.add(REFUSALS, "not_found")
            sheet.write()

    thread = Thread(target=count)
    thread.start()
    seen = [0]
    while thread.is_alive():
        seen.append(add_up(tmp_path).get((CAP_HITS.name, "small"), seen[-1]))
    thread.join()

    assert seen == sorted(seen)
    assert add_up(tmp_path) == {(CAP_HITS.name, "small"): 500, (REFUSALS.name, "not_found"): 500}


def test_what_cannot_be_written_costs_only_the_metrics(tmp_path: Path) -> None:
    """A directory that cannot be made is no error to who counts."""
    (tmp_path / "file").write_text("in the way")

    Sheet(tmp_path / "file" / "metrics", "w_1", Counters()).write()

    assert add_up(tmp_path / "file" / "metrics") == {}


EXCESS_TOKENS = ("tokencap_excess_tokens_total",)


@pytest.mark.parametrize(("output", "choices", "excess"), [(250, 2, 50), (200, 2, None), (0, 1, None), (101, 1, 1)])
def test_what_is_produced_beyond_the_grant_is_the_houses_loss(output: int, choices: int, excess: int | None) -> None:
    """The grant is per choice; an answer within it costs nothing."""
    counters = Counters()

    count_records(counters, [record(output_tokens=output, cap_tokens=100, choices=choices)])

    assert counters.counts().get(EXCESS_TOKENS) == excess


def test_a_correction_is_tokens_and_money_but_no_call() -> None:
    """And what it takes back, no counter can show."""
    counters = Counters()

    count_records(counters, [record(kind="correction", billed_output_tokens=5, input_tokens=-3, charge_nanousd=-1)])

    assert counters.counts() == {(TOKENS.name, "t2", "output", "upstream"): 5}


def test_an_answer_cut_at_the_cap_is_a_hit() -> None:
    counters = Counters()

    count_records(counters, [record(finish="cap"), record(2, finish="caller_limit")])

    assert counters.counts()[CAP_HITS.name, "t2"] == 1
    assert counters.counts()[REQUESTS.name, "t2", "cap"] == 1
