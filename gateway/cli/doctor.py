"""``tokencap doctor``: checks everything the gateway depends on, and says what to change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import httpx
import redis
import typer
from redis.exceptions import RedisError, ResponseError

from gateway.clock import now_s
from gateway.errors import MeteringUnavailable, StartupError
from gateway.holds.store.clients import connect
from gateway.ledger.book.dead_letters import count_dead_letters
from gateway.ledger.database import Database
from gateway.metrics.counters import Place, add_up
from gateway.metrics.definitions import RECOUNTED
from gateway.redaction import NO_URL, redacted
from gateway.runtime.running_valkey import reached
from gateway.runtime.sockets import files_allowed
from gateway.serving.configuration import effective_profile, endpoint_of
from gateway.serving.upstream.detection import Engine, detected
from gateway.serving.upstream.endpoint import Endpoint
from gateway.settings import Settings, read_settings

CLOCK_MS = 1_000
FILES_LEAST = 4_096
"""Enough for two thousand calls at a time in one worker."""

RECOUNTED_LEAST = 1_000
"""The fewest recounted tokens from which a difference is significant."""

RECOUNTED_APART = 0.05
"""The share by which two counts of the same text may differ, since one count includes a template's own tokens."""

ANSWER_S = 10.0
PERSISTENCE = ("appendonly", "appendfsync", "maxmemory-policy", "maxmemory")

app = typer.Typer()


class Verdict(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    CHANGE = "change"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was checked, its state, and what to change."""

    subject: str
    verdict: Verdict
    sentence: str


@app.command("doctor")
def doctor() -> None:
    """Check configuration, limits, persistence, clock, ledger and upstream; say what to change.

    Exit 0 if all is well, 1 if something should be changed, 3 if something is unavailable.
    """
    worst = 0
    for finding in examine():
        print(redacted(f"{finding.verdict:<8}{finding.subject}: {finding.sentence}"), flush=True)
        worst = max(worst, exit_code(finding.verdict))
    if worst:
        raise typer.Exit(worst)


def examine() -> Iterator[Finding]:
    """Yield each finding as soon as its check is done."""
    try:
        settings = read_settings()
    except StartupError as error:
        yield Finding("settings", Verdict.CHANGE, error.message)
        return
    yield Finding("settings", Verdict.OK, f"{settings.mode} {settings.model}, data in {settings.data_dir.absolute()}.")
    yield judge_files(files_allowed())
    yield from asyncio.run(_check_redis(settings))
    yield _check_ledger(settings)
    yield _check_upstream(settings)
    if (usage := judge_recount(add_up(settings.metrics_dir))) is not None:
        yield usage


def exit_code(verdict: Verdict) -> int:
    return {Verdict.OK: 0, Verdict.CHANGE: 1, Verdict.MISSING: 3}[verdict]


def judge_files(allowed: int) -> Finding:
    """Say whether a worker may have enough files open: a call takes two, to its caller and to the model."""
    if allowed < FILES_LEAST:
        sentence = f"a process may have {allowed:,}, two for each in-flight call: allow {FILES_LEAST:,} (ulimit -Hn)."
        return Finding("open files", Verdict.CHANGE, sentence)
    return Finding("open files", Verdict.OK, f"{allowed:,} a process, two for each in-flight call.")


def judge_persistence(config: Mapping[str, str]) -> Finding:
    """Say whether a Redis with this configuration keeps its data."""
    changes = []
    if config.get("appendonly") != "yes":
        changes.append("set appendonly to yes, or a restart loses calls that are not in the ledger yet")
    elif config.get("appendfsync") == "no":
        changes.append("set appendfsync to always (or everysec, which may lose a second)")
    if config.get("maxmemory-policy") != "noeviction":
        changes.append("set maxmemory-policy to noeviction, or a full server drops holds and records")
    if config.get("maxmemory") == "0":
        changes.append(
            "set maxmemory to what it may use, or a server that grows is killed by the system instead of refusing calls"
        )
    if changes:
        return Finding("redis persistence", Verdict.CHANGE, "; ".join(changes).capitalize() + ".")
    return Finding("redis persistence", Verdict.OK, f"appendonly, fsync {config.get('appendfsync')}, noeviction.")


def judge_clock(ahead_ms: int) -> Finding:
    """Say whether this machine's clock and Redis' agree; ``ahead_ms`` is how far Redis' is ahead."""
    if abs(ahead_ms) <= CLOCK_MS:
        return Finding("clock", Verdict.OK, f"{abs(ahead_ms)} ms from Redis'.")
    way = "ahead of" if ahead_ms > 0 else "behind"
    sentence = f"Redis' clock is {abs(ahead_ms)} ms {way} this machine's: keep both by NTP, periods begin by Redis'."
    return Finding("clock", Verdict.CHANGE, sentence)


def judge_aside(count: int) -> Finding:
    """Say whether every settled record is in the book."""
    if count:
        sentence = f"{count} records are set aside and on no bill: see the table usage_aside for the reasons."
        return Finding("ledger", Verdict.CHANGE, sentence)
    return Finding("ledger", Verdict.OK, "its tables are this version's; no record is set aside.")


def judge_recount(counts: Mapping[Place, int]) -> Finding | None:
    """Say whether the upstream's usage agrees with this gateway's tokenizer; None where too little was recounted."""
    reported, counted = (counts.get((RECOUNTED.name, source), 0) for source in ("upstream", "tokenizer"))
    if counted < RECOUNTED_LEAST:
        return None
    beyond = reported / counted - 1
    way = "more" if beyond > 0 else "fewer"
    sentence = (
        f"the upstream reports {abs(beyond):.1%} {way} tokens than TOKENCAP_TOKENIZER counts in the same answers"
        f" ({reported:,} and {counted:,})"
    )
    if abs(beyond) <= RECOUNTED_APART:
        return Finding("usage", Verdict.OK, f"{sentence}.")
    return Finding("usage", Verdict.CHANGE, f"{sentence}: check that it is the model's tokenizer, then ask why.")


def judge_upstream(status: int, models: Sequence[str], settings: Settings, engine: Engine | None = None) -> Finding:
    """Say whether the upstream that answers ``GET …/models`` can be sold, and which engine it is."""
    where = Endpoint(settings.upstream_url).at("/models")
    if status in (401, 403):
        return Finding("upstream", Verdict.CHANGE, f"{where} answers {status}: set TOKENCAP_UPSTREAM_KEY.")
    if status >= 500:
        return Finding("upstream", Verdict.MISSING, f"{where} answers {status}.")
    if status != 200:
        sentence = f"{where} answers {status}: TOKENCAP_UPSTREAM_URL ends where the API begins, usually in /v1."
        return Finding("upstream", Verdict.CHANGE, sentence)
    if models and settings.model not in models:
        sentence = f"it serves {', '.join(models)}: set TOKENCAP_MODEL, which is {settings.model}, to one of them."
        return Finding("upstream", Verdict.CHANGE, sentence)
    suffix = "" if engine is None else f": {engine}"
    return Finding("upstream", Verdict.OK, f"{settings.upstream_url} answers{suffix}.")


async def _check_redis(settings: Settings) -> list[Finding]:
    try:
        async with reached(settings) as url:
            return await asyncio.to_thread(_query_redis, url)
    except StartupError as error:
        return [Finding("redis", Verdict.MISSING, error.message)]


def _query_redis(url: str) -> list[Finding]:
    try:
        with connect(url) as client:
            before = now_s()
            seconds, microseconds = cast(tuple[int, int], client.time())
            here_ms = round((before + now_s()) * 500)
            return [_persistence(client), judge_clock(seconds * 1_000 + microseconds // 1_000 - here_ms)]
    except StartupError as error:
        return [Finding("redis", Verdict.CHANGE, error.message)]
    except (RedisError, OSError) as error:
        return [Finding("redis", Verdict.MISSING, f"TOKENCAP_REDIS_URL is unavailable: {error}.")]


def _persistence(client: redis.Redis) -> Finding:
    try:
        config = cast(dict[Any, Any], client.config_get(*PERSISTENCE))
    except ResponseError:
        sentence = "it does not report this; make sure that it has appendonly yes and maxmemory-policy noeviction."
        return Finding("redis persistence", Verdict.OK, sentence)
    return judge_persistence({_text(name): _text(value) for name, value in config.items()})


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_ledger(settings: Settings) -> Finding:
    with closing(Database(settings.ledger_url)) as database:
        if database.is_sqlite and settings.database_url is None and not _ledger_file(settings).exists():
            return Finding("ledger", Verdict.OK, "none yet; `tokencap serve` makes it.")
        try:
            database.check()
            return judge_aside(count_dead_letters(database))
        except (StartupError, MeteringUnavailable) as error:
            return Finding("ledger", Verdict.MISSING, error.message)


def _ledger_file(settings: Settings) -> Path:
    return Path(settings.ledger_url.removeprefix("sqlite:///"))


def _check_upstream(settings: Settings) -> Finding:
    if settings.upstream_url == "simulated":
        sentence = "simulated; set TOKENCAP_UPSTREAM_URL to sell a model."
        return Finding("upstream", Verdict.OK, sentence)
    endpoint = endpoint_of(settings)
    try:
        response = httpx.get(endpoint.at("/models"), headers=dict(endpoint.headers), timeout=ANSWER_S, trust_env=False)
    except (httpx.InvalidURL, ValueError):
        return Finding("upstream", Verdict.CHANGE, NO_URL.format("TOKENCAP_UPSTREAM_URL"))
    except httpx.HTTPError as error:
        sentence = f"{settings.upstream_url} is unavailable: {error or type(error).__name__}."
        return Finding("upstream", Verdict.MISSING, sentence)
    engine = asyncio.run(detected(endpoint, settings.model))
    return judge_upstream(
        response.status_code, _models(response), settings, engine and effective_profile(engine, settings)
    )


def _models(response: httpx.Response) -> list[str]:
    try:
        return [str(model["id"]) for model in response.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return []
