"""``tokencap doctor`` reports for each part whether it works, needs a change, or is unavailable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.cli.doctor import FILES_LEAST, Verdict, judge_clock, judge_files, judge_persistence, judge_upstream
from gateway.ledger.database import Database
from gateway.runtime.data_directory import DataDir
from gateway.serving.upstream.detection import Engine
from gateway.serving.upstream.profiles import VLLM
from gateway.settings import Settings
from gateway.simulator.model_server import Law, build
from tests.gateway.cli.commands import serving, tokencap
from tests.serving import served

SOUND = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "maxmemory": "1000000"}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"appendonly": "no"}, "appendonly"),
        ({"appendfsync": "no"}, "appendfsync"),
        ({"maxmemory-policy": "allkeys-lru"}, "maxmemory-policy"),
        ({"maxmemory": "0"}, "maxmemory to what it may use"),
        ({"appendonly": "no", "maxmemory-policy": "volatile-ttl"}, "noeviction"),
    ],
)
def test_a_redis_that_forgets_is_to_be_changed(changed: dict[str, str], named: str) -> None:
    """Whatever loses acknowledged writes is named."""
    finding = judge_persistence({**SOUND, **changed})

    assert finding.verdict is Verdict.CHANGE
    assert named in finding.sentence


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_a_redis_that_keeps_what_it_is_told_is_well(fsync: str) -> None:
    """Both ways of flushing in time are fine."""
    assert judge_persistence({**SOUND, "appendfsync": fsync}).verdict is Verdict.OK


@pytest.mark.parametrize(("allowed", "verdict"), [(FILES_LEAST, Verdict.OK), (FILES_LEAST - 1, Verdict.CHANGE)])
def test_a_system_that_allows_few_open_files_is_to_be_changed(allowed: int, verdict: Verdict) -> None:
    assert judge_files(allowed).verdict is verdict


@pytest.mark.parametrize(
    ("ahead_ms", "verdict"),
    [(0, Verdict.OK), (1_000, Verdict.OK), (-1_000, Verdict.OK), (1_001, Verdict.CHANGE), (-1_001, Verdict.CHANGE)],
)
def test_clocks_may_differ_by_a_second(ahead_ms: int, verdict: Verdict) -> None:
    """More than that moves calls into another period."""
    assert judge_clock(ahead_ms).verdict is verdict


@pytest.mark.parametrize(
    ("status", "models", "verdict", "named"),
    [
        (200, ["aligned-1"], Verdict.OK, "answers"),
        (200, [], Verdict.OK, "answers"),
        (200, ["other"], Verdict.CHANGE, "TOKENCAP_MODEL"),
        (401, [], Verdict.CHANGE, "TOKENCAP_UPSTREAM_KEY"),
        (404, [], Verdict.CHANGE, "/v1"),
        (502, [], Verdict.MISSING, "502"),
    ],
)
def test_what_the_upstream_answers_says_what_to_set(
    status: int, models: list[str], verdict: Verdict, named: str
) -> None:
    """Each answer points to the setting that is wrong, if one is."""
    finding = judge_upstream(status, models, Settings(upstream_url="http://model/v1"))

    assert finding.verdict is verdict
    assert named in finding.sentence


def test_it_says_what_the_upstream_is_taken_for() -> None:
    engine = Engine(VLLM, 4096)

    finding = judge_upstream(200, ["aligned-1"], Settings(upstream_url="http://model/v1"), engine)

    assert finding.sentence == "http://model/v1 answers: profile vllm, model 4,096 tokens long."


@pytest.fixture
def model() -> Iterator[str]:
    with served(build(Law())) as url:
        yield f"{url}/v1"


def _verdicts(lines: str) -> dict[str, str]:
    return {line[8:].partition(":")[0]: line[:8].strip() for line in lines.splitlines()}


def test_before_the_first_start_all_is_well(directory: Path) -> None:
    """Valkey is tried out and stopped again; there is no ledger yet, which is no fault."""
    healthy = tokencap(directory, "doctor")

    assert healthy.returncode == 0, healthy.stdout
    assert set(_verdicts(healthy.stdout).values()) == {"ok"}
    assert DataDir(directory).remembered().children == ()


def test_beside_a_running_gateway_all_is_well(directory: Path) -> None:
    """It asks the server that runs, and the ledger that is there."""
    with serving(directory):
        healthy = tokencap(directory, "doctor")

    assert healthy.returncode == 0, healthy.stdout
    assert _verdicts(healthy.stdout)["ledger"] == "ok"


def test_a_careless_redis_and_another_model_are_to_be_changed(directory: Path, valkey_url: str, model: str) -> None:
    """Exit 1, one line a finding."""
    settings: dict[str, Any] = {"redis_url": valkey_url, "upstream_url": model, "model": "not-that-one"}
    with redis.Redis.from_url(valkey_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        unhealthy = tokencap(directory, "doctor", **settings)
        client.config_set("maxmemory-policy", "noeviction")

    assert unhealthy.returncode == 1
    assert _verdicts(unhealthy.stdout) == {
        "settings": "ok",
        "open files": "ok",
        "redis persistence": "change",
        "clock": "ok",
        "ledger": "ok",
        "upstream": "change",
    }


def test_what_is_not_to_be_had_is_missing(directory: Path) -> None:
    """Exit 3: nobody answers for Redis, for the model, or for the ledger."""
    nowhere = {
        "redis_url": "redis://127.0.0.1:1",
        "upstream_url": "http://127.0.0.1:1/v1",
        "database_url": "postgresql://nobody:secret@127.0.0.1:1/none",
    }
    unhealthy = tokencap(directory, "doctor", **nowhere)

    assert unhealthy.returncode == 3
    assert _verdicts(unhealthy.stdout) == {
        "settings": "ok",
        "open files": "ok",
        "redis": "missing",
        "ledger": "missing",
        "upstream": "missing",
    }
    assert "secret" not in unhealthy.stdout + unhealthy.stderr


def test_a_valkey_that_does_not_run_is_missing(directory: Path) -> None:
    """The program that ``tokencap.toml`` names is tried, and is no server."""
    (directory.parent / "tokencap.toml").write_text('valkey_server_bin = "/bin/false"\n')

    unhealthy = tokencap(directory, "doctor")

    assert unhealthy.returncode == 3
    assert f"redis: Valkey ended with status 1; see {directory}/valkey/valkey.log." in unhealthy.stdout
    assert DataDir(directory).remembered().children == ()


def test_a_ledger_of_another_version_is_told(directory: Path, sqlite_url: str) -> None:
    """Tables that are not this version's are found before anything is written."""
    database = Database(sqlite_url)
    with database.write():
        database.close()
    unhealthy = tokencap(directory, "doctor", database_url=sqlite_url)

    assert unhealthy.returncode == 3
    assert _verdicts(unhealthy.stdout)["ledger"] == "missing"


def test_a_setting_that_makes_no_sense_is_to_be_changed(directory: Path) -> None:
    """The line says which."""
    unhealthy = tokencap(directory, "doctor", lease_s="long")

    assert unhealthy.returncode == 1
    assert unhealthy.stdout.startswith("change  settings: TOKENCAP_LEASE_S: ")
