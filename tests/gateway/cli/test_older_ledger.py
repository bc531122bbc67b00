"""A ledger that is older than its Redis is refused at the start, naming what is missing, until somebody decides."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx

from tests.gateway.cli.commands import Serving, serving, tokencap
from tests.loop.rig import Sold

ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}]}


def call(gateway: Serving, who: Sold) -> int:
    url = f"{gateway.url}/v1/chat/completions"
    return httpx.post(url, json=ASKED, headers=who.headers, timeout=30).status_code


def test_a_ledger_from_before_is_refused_until_its_records_are_given_up(directory: Path, tmp_path: Path) -> None:
    """As a backup that was put back: the records of two calls are missing, and nothing is rebuilt without them."""
    with serving(directory) as gateway:
        rig = gateway.rig(token := gateway.admin_token())
        rig.tier("only", period_tokens_max=100_000)
        who = rig.customer("only")
        assert call(gateway, who) == 200
        gateway.stop()
    before, after = tmp_path / "before", tmp_path / "after"
    shutil.copytree(directory, before)
    with serving(directory) as gateway:
        assert [call(gateway, who), call(gateway, who)] == [200, 200]
        gateway.stop()
    shutil.copytree(directory, after)
    for file in directory.glob("ledger.sqlite*"):
        file.unlink()
    for file in before.glob("ledger.sqlite*"):
        shutil.copy2(file, directory)

    started, recovered = tokencap(directory, "serve"), tokencap(directory, "ledger", "recover")
    for file in after.glob("ledger.sqlite*"):
        shutil.copy2(file, directory)
    with serving(directory) as gateway:
        assert call(gateway, who) == 200
        assert len(gateway.rig(token).usage(who)) >= 3
        gateway.stop()
    for file in directory.glob("ledger.sqlite*"):
        file.unlink()
    for file in before.glob("ledger.sqlite*"):
        shutil.copy2(file, directory)
    given_up = tokencap(directory, "ledger", "recover", "--without-missing")
    with serving(directory) as gateway:
        assert call(gateway, who) == 200
        assert len(gateway.rig(token).usage(who)) == 2
        gateway.stop()

    missing = "The ledger ends at record 1 and has had 3: 2 records are missing."
    assert [ran.returncode for ran in (started, recovered, given_up)] == [3, 3, 0]
    assert missing in started.stderr
    assert missing in recovered.stderr
