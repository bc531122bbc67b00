"""``tokencap reconcile``: the ledger against a report, exit 0 where they agree and 1 naming what does not."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from tests.gateway.cli.commands import tokencap
from tests.gateway.ledger.records import NOON, record


@pytest.fixture
def kept(directory: Path) -> Path:
    """A data directory with a hundred records of one day."""
    directory.mkdir()
    with closing(Database(f"sqlite:///{directory / 'ledger.sqlite'}")) as database:
        database.migrate()
        append(database, [record(number) for number in range(100)])
    return directory


def report(path: Path, **changes: int) -> str:
    sums = {"num_model_requests": 100, "input_tokens": 2_000, "input_cached_tokens": 0, "output_tokens": 10_000}
    result = {**sums, **changes, "model": "aligned-1-2026"}
    path.write_text(json.dumps({"data": [{"start_time": NOON // 1000, "results": [result]}]}))
    return str(path)


def test_a_report_that_agrees_and_one_that_does_not(kept: Path, tmp_path: Path) -> None:
    same, near, far = (
        report(tmp_path / "a"),
        report(tmp_path / "b", output_tokens=10_050),
        report(tmp_path / "c", output_tokens=9_000),
    )

    agreed, close, apart = (tokencap(kept, "reconcile", one) for one in (same, near, far))
    told = tokencap(kept, "reconcile", "--json", "--within", "0.2", far)

    assert [one.returncode for one in (agreed, close, apart, told)] == [0, 0, 1, 0], apart.stderr
    assert agreed.stdout == "1 days: 0 figures differ by more than 1.0%, 0 at all.\n"
    assert close.stdout.startswith("2026-01-01  aligned-1  output_tokens: ours 10,000, theirs 10,050, +50 (+0.50%): ")
    assert "ours 10,000, theirs 9,000, -1,000 (-10.00%)" in apart.stdout
    assert json.loads(told.stdout)["difference"] == -1_000


def test_what_is_no_report_is_wrong_use(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("{}")

    found = [tokencap(kept, "reconcile", str(tmp_path / name)) for name in ("x", "none")]

    assert [one.returncode for one in found] == [2, 2]
    assert [len(one.stderr.splitlines()) for one in found] == [1, 1]
