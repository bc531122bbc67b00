"""``tokencap reconcile``: the ledger against a report, exit 0 where they agree and 1 naming what does not."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from tests.gateway.cli.commands import COMMAND, environment, tokencap
from tests.gateway.ledger.records import NOON, record
from tests.serving import served


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
    as_json = tokencap(kept, "reconcile", "--json", "--within", "0.2", far)

    assert [one.returncode for one in (agreed, close, apart, as_json)] == [0, 0, 1, 0], apart.stderr
    assert agreed.stdout == "1 days: 0 figures differ by more than 1.0%, 0 at all.\n"
    assert close.stdout.startswith("2026-01-01  aligned-1  output_tokens: ours 10,000, theirs 10,050, +50 (+0.50%): ")
    assert "ours 10,000, theirs 9,000, -1,000 (-10.00%)" in apart.stdout
    assert json.loads(as_json.stdout)["difference"] == -1_000


def test_what_is_no_report_is_wrong_use(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("{}")

    found = [tokencap(kept, "reconcile", str(tmp_path / name)) for name in ("x", "none")]

    assert [one.returncode for one in found] == [2, 2]
    assert [len(one.stderr.splitlines()) for one in found] == [1, 1]


DAY_S = 86_400
BEGAN_S = NOON // 1000 - NOON // 1000 % DAY_S


class Reporting:
    """An endpoint that reports its usage as OpenAI does, two days a page, to who has the key."""

    def __init__(self, *, output_tokens: int = 10_000) -> None:
        self.queries: list[dict[str, str]] = []
        self._output_tokens = output_tokens

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.queries.append(query := dict(parse_qsl(scope["query_string"].decode())))
        is_known = dict(scope["headers"]).get(b"authorization") == b"Bearer admin-key"
        body = self._page(scope["path"], query) if is_known else {"error": {"message": "no"}}
        head = {"type": "http.response.start", "status": 200 if is_known else 401}
        await send({**head, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    def _page(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        first, end = int(query.get("page") or query["start_time"]), int(query["end_time"])
        days = range(first, min(first + 2 * DAY_S, end), DAY_S)
        more = days.stop if days.stop < end else None
        return {"data": [self._bucket(day, path) for day in days], "has_more": more is not None, "next_page": more}

    def _bucket(self, day: int, path: str) -> dict[str, Any]:
        sums = {"num_model_requests": 100, "input_tokens": 2_000, "input_cached_tokens": 0}
        result = {**sums, "output_tokens": self._output_tokens, "model": "aligned-1-2026"}
        there = day == BEGAN_S and path.endswith("/completions")
        return {"start_time": day, "end_time": day + DAY_S, "results": [result] if there else []}


def fetched(kept: Path, url: str, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    bounds = ("--from", "2025-12-30", "--to", "2026-01-04")
    return tokencap(kept, "reconcile", *bounds, *words, upstream_url=f"{url}/v1?version=2", **settings)


def test_the_endpoint_is_asked_for_its_own_report(kept: Path) -> None:
    """Page by page, with the endpoint's own query; a day of which it reports nothing is a day without usage."""
    same, other = Reporting(), Reporting(output_tokens=9_000)
    with served(same) as url, served(other) as another:
        agreed = fetched(kept, url, upstream_key="admin-key", embedding_model="embed-1")
        apart = fetched(kept, another, upstream_key="admin-key")

    assert (agreed.returncode, agreed.stdout) == (0, "5 days: 0 figures differ by more than 1.0%, 0 at all.\n"), agreed
    assert (apart.returncode, "ours 10,000, theirs 9,000" in apart.stdout) == (1, True)
    began = BEGAN_S - 2 * DAY_S
    first = {"start_time": str(began), "end_time": str(began + 5 * DAY_S), "bucket_width": "1d", "group_by": "model"}
    assert same.queries[0] == {"version": "2", **first, "limit": "5"}
    assert [one.get("page") for one in same.queries] == [None, str(BEGAN_S), str(BEGAN_S + 2 * DAY_S)] * 2


def test_what_cannot_be_fetched_is_said(kept: Path, tmp_path: Path) -> None:
    """A key that is refused, an endpoint that is away, days that are none, a variable that is not set, files beside days."""
    with served(Reporting()) as url:
        refused = fetched(kept, url, upstream_key="another")
    away = fetched(kept, url)
    file = report(tmp_path / "a")
    wrong = [
        tokencap(kept, "reconcile", *words)
        for words in (
            (),
            ("--from", "2026-01-01", file),
            ("--from", "2026-01-02", "--to", "2026-01-02"),
            ("--from", "now"),
            ("--from", "2026-01-01", "--to", "2026-01-02"),
            ("--from", "2026-01-01", "--to", "2026-01-02", "--url", "http://x/v1", "--key-env", "NO_SUCH_KEY"),
            ("--from", "2026-01-01", "--to", "2026-01-02", "--url", "http://x/v1"),
        )
    ]

    assert [one.returncode for one in (refused, away)] == [3, 3]
    assert refused.stderr.endswith("answers 401. It takes an admin key: name its variable with --key-env.\n")
    assert "is unavailable" in away.stderr
    assert [one.returncode for one in wrong] == [2] * 7
    assert all(len(one.stderr.splitlines()) == 1 for one in (refused, away, *wrong))
    assert "the simulated model" in wrong[4].stderr.lower()


def test_a_key_of_its_own_is_named_by_its_variable(kept: Path) -> None:
    """The key that calls are made with need not be allowed to read the report."""
    with served(Reporting()) as url:
        words = ("reconcile", "--from", "2026-01-01", "--to", "2026-01-02", "--key-env", "REPORT_KEY")
        settings = environment(kept, upstream_url=f"{url}/v1", upstream_key="another") | {"REPORT_KEY": "admin-key"}
        ran = subprocess.run(
            [*COMMAND, *words], env=settings, cwd=kept.parent, capture_output=True, text=True, check=False
        )

    assert ran.returncode == 0, ran.stderr
