"""A ledger that is older than its Redis is refused at the start, naming what is missing, until somebody decides."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.holds.store.redis_keys import bucket_of
from gateway.holds.store.watermarks import PLACES, Watermarks
from tests.gateway.cli.commands import Serving, serving, tokencap
from tests.loop.rig import Sold
from tests.servers import short_directory

ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}]}
MISSING = "The ledger ends at record 1 and has had 4: 3 records are missing"


def call(gateway: Serving, who: Sold) -> int:
    url = f"{gateway.url}/v1/chat/completions"
    return httpx.post(url, json=ASKED, headers=who.headers, timeout=30).status_code


def put_back(copy: Path, directory: Path) -> None:
    """Put the ledger of a copy in the place of the one that is there."""
    for file in directory.glob("ledger.sqlite*"):
        file.unlink()
    for file in copy.glob("ledger.sqlite*"):
        shutil.copy2(file, directory)


@dataclass(frozen=True)
class Lost:
    """A directory whose ledger lacks its last three records: one of a backup was put back. ``whole`` has all of them."""

    directory: Path
    whole: Path
    token: str
    who: Sold
    later: Sold
    """A customer of another bucket, of which the older ledger has no record."""
    account: dict[str, Any]
    billed: list[int]
    """The tokens that each of ``who``'s three records bills."""


@pytest.fixture(scope="module")
def losing() -> Iterator[Lost]:
    with short_directory() as place:
        directory, before, whole = (place / name for name in ("data", "before", "whole"))
        with serving(directory) as gateway:
            rig = gateway.rig(token := gateway.admin_token())
            rig.tier("only", period_tokens_max=100_000, output_nanousd_per_mtok=1_000_000)
            who = rig.customer("only")
            others = (rig.customer("only") for _ in range(10))
            later = next(one for one in others if bucket_of(one.id) != bucket_of(who.id))
            assert call(gateway, who) == 200
            gateway.stop()
        shutil.copytree(directory, before)
        with serving(directory) as gateway:
            assert [call(gateway, one) for one in (who, who, later)] == [200] * 3
            account = gateway.rig(token).account(who)["period"]
            billed = [record["billed_output_tokens"] for record in gateway.rig(token).usage(who)]
            gateway.stop()
        shutil.copytree(directory, whole)
        put_back(before, directory)
        yield Lost(directory, whole, token, who, later, account, billed)


@pytest.fixture
def lost(directory: Path, losing: Lost) -> Lost:
    """A copy of it for one test."""
    shutil.copytree(losing.directory, directory)
    return replace(losing, directory=directory)


def test_a_ledger_from_before_is_refused_until_the_newer_one_is_put_back(lost: Lost) -> None:
    """Nothing is rebuilt from it without a word: that would give away what the missing records say."""
    started, recovered = tokencap(lost.directory, "serve"), tokencap(lost.directory, "ledger", "recover")
    both = tokencap(lost.directory, "ledger", "recover", "--without-missing", "--book-missing")
    put_back(lost.whole, lost.directory)
    with serving(lost.directory) as gateway:
        assert call(gateway, lost.who) == 200
        records = gateway.rig(lost.token).usage(lost.who)

    assert [ran.returncode for ran in (started, recovered, both)] == [3, 3, 2]
    assert MISSING in started.stderr
    assert MISSING in recovered.stderr
    assert len(records) == 4


def test_what_is_missing_can_be_given_up(lost: Lost) -> None:
    """Also what this machine's file says of each bucket: a bucket that has to have what is given up serves nobody."""
    given_up = tokencap(lost.directory, "ledger", "recover", "--without-missing")
    known = [*Watermarks(lost.directory / "watermarks").numbers]
    with serving(lost.directory) as gateway:
        rig = gateway.rig(lost.token)
        used = rig.account(lost.who)["period"]["tokens_used"]
        assert [call(gateway, one) for one in (lost.later, lost.who)] == [200, 200]
        records = rig.usage(lost.who)

    assert given_up.returncode == 0, given_up.stderr
    assert (known[PLACES[bucket_of(lost.who.id)]], sum(known)) == (1, 1)
    assert used == lost.billed[0]
    assert len(records) == 2


def test_what_is_missing_can_be_booked_as_redis_counts_it(lost: Lost) -> None:
    """Each customer keeps what it has used and owes, on a correction that makes up for its calls; a rebuild agrees."""
    kept = tokencap(lost.directory, "ledger", "recover", "--book-missing")
    again = tokencap(lost.directory, "ledger", "recover", "--book-missing")
    rebuilt = tokencap(lost.directory, "ledger", "recover")
    with serving(lost.directory) as gateway:
        rig = gateway.rig(lost.token)
        account, records = rig.account(lost.who)["period"], rig.usage(lost.who)
        assert call(gateway, lost.who) == 200
    verified = tokencap(lost.directory, "ledger", "verify")

    assert kept.stdout == "What Redis counts is booked: 2 corrections.\n", kept.stderr
    assert again.stdout == "What Redis counts is booked: 0 corrections.\n", again.stderr
    assert (rebuilt.returncode, verified.returncode) == (0, 0), rebuilt.stderr + verified.stderr
    assert account == lost.account
    assert [record["kind"] for record in records] == ["usage", "correction"]
    assert records[1]["billed_output_tokens"] == records[1]["charge_nanousd"] == sum(lost.billed[1:])
