"""Wrong tokens are answered later and later, counted, told and audited within bounds; the right one never waits."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import select

from gateway.admin.api.routes import AdminServices
from gateway.admin.api.wrong_tokens import ADDRESSES_MOST, FREE, MOST_S, WAITING_MOST, WINDOW_S, WrongTokens
from gateway.ledger.database import Database
from gateway.ledger.tables import audit
from tests.gateway.admin.conftest import admin_app, calling
from tests.gateway.admin.operator import Operator, problem


@dataclass
class Waits:
    """A clock that stands still, and what was waited for."""

    now_s: float = 0.0
    counted: int = 0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, delay: float) -> None:
        self.slept.append(delay)

    def count(self) -> None:
        self.counted += 1


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def wrong(database: Database, waits: Waits) -> WrongTokens:
    return WrongTokens(database, now_ms=lambda: 5, monotonic=waits.monotonic, count=waits.count, sleep=waits.sleep)


@pytest.fixture
async def attacked(services: AdminServices, admin_token: str, wrong: WrongTokens) -> AsyncIterator[Operator]:
    async with calling(admin_app(replace(services, wrong_tokens=wrong)), admin_token) as operator:
        yield operator


async def test_the_right_token_never_waits(attacked: Operator, waits: Waits) -> None:
    """However many wrong ones came from its own address; each of those is 401 and counted."""
    for number in range(FREE + 20):
        answer = await attacked.send("GET", "/admin/customers", authorization=f"Bearer wrong{number}")
        assert problem(answer)["code"] == "invalid_admin_token"
    before = len(waits.slept)

    assert (await attacked.send("GET", "/admin/customers")).status_code == 200
    assert waits.counted == FREE + 20
    assert before == len(waits.slept) == 20
    assert waits.slept == sorted(waits.slept)
    assert waits.slept[-1] == MOST_S


async def test_an_address_has_its_free_ones_again_after_a_minute(wrong: WrongTokens, waits: Waits) -> None:
    """Counted from its first: who goes on without a pause waits no longer than a minute's worth."""
    for seconds, slept in ((0.0, 1), (WINDOW_S - 0.1, 2), (WINDOW_S, 2)):
        waits.now_s = seconds
        for _ in range(FREE + 1 if seconds == 0 else 1):
            await wrong.meet("10.0.0.1")
        assert len(waits.slept) == slept


async def test_everybody_together_waits_too(wrong: WrongTokens, waits: Waits) -> None:
    """Each from an address of its own that is past its free ones: the answers leave one after another."""
    for network in range(100):
        for _ in range(FREE + 1):
            await wrong.meet(f"10.0.0.{network}")

    assert len(waits.slept) == 100
    assert waits.slept[-1] == pytest.approx(100 / 20)


async def test_one_network_of_ipv6_is_one_address(wrong: WrongTokens, waits: Waits) -> None:
    for number in range(FREE + 1):
        await wrong.meet(f"2001:db8::{number:x}")

    assert len(waits.slept) == 1


async def test_what_is_told_and_written_is_bounded(
    wrong: WrongTokens, waits: Waits, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Five thousand wrong tokens of as many addresses in a second: one line, one row; a minute later one more."""
    with caplog.at_level(logging.WARNING):
        for number in range(5_000):
            await wrong.meet(f"10.0.{number // 256}.{number % 256}")
        waits.now_s += 60
        await wrong.meet("10.9.9.9")

    with database.read() as connection:
        rows = connection.execute(select(audit.c.action, audit.c.actor, audit.c.after)).all()
    assert [(action, actor) for action, actor, _ in rows] == [
        ("token.wrong", "address:10.0.0.0"),
        ("token.wrong", "address:10.9.9.9"),
    ]
    assert '"wrong_tokens":5000' in rows[1].after
    assert len(caplog.records) == 2
    assert len(wrong._attempts) == ADDRESSES_MOST


async def test_only_so_many_refusals_wait(database: Database, waits: Waits, services: AdminServices) -> None:
    """Beyond them the answer is 429, which costs nothing to give."""
    stuck: list[object] = []

    async def never_yet(delay: float) -> None:
        stuck.append(delay)
        if len(stuck) < WAITING_MOST + 1:
            await wrong.meet("10.0.0.1")

    wrong = WrongTokens(database, now_ms=lambda: 5, monotonic=waits.monotonic, sleep=never_yet)
    for _ in range(FREE):
        await wrong.meet("10.0.0.1")
    with pytest.raises(Exception, match="Too many wrong tokens") as refused:
        await wrong.meet("10.0.0.1")

    assert refused.value.status == 429  # type: ignore[attr-defined]
    assert len(stuck) == WAITING_MOST
