"""Nobody but the admin gets in, and a token that was retired gets in no longer."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import select

from gateway.catalog.admin_tokens import AdminTokens, digest_of, ensure_admin_token, new_admin_token
from gateway.errors import StartupError
from gateway.ledger.database import Database
from gateway.ledger.tables import admin_tokens, audit
from tests.gateway.admin.operator import Operator, problem


class Seconds:
    """A monotonic clock that stands still until it is moved."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic {token}", "{token}", "Bearer {token}x"]
)
async def test_a_request_without_the_admin_token_is_refused(operator: Operator, admin_token: str, header: str) -> None:
    response = await operator.send("GET", "/admin/customers", authorization=header.format(token=admin_token))

    assert problem(response)["code"] == "invalid_admin_token"
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")


async def test_the_word_bearer_may_be_written_in_any_case(operator: Operator, admin_token: str) -> None:
    response = await operator.send("GET", "/admin/customers", authorization=f"bearer {admin_token}")

    assert response.status_code == 200


async def test_every_route_wants_the_token(operator: Operator) -> None:
    paths = (await operator.get("/openapi.json"))["paths"]

    statuses = {
        (method, path): (await operator.send(method.upper(), path, {}, authorization="Bearer no")).status_code
        for path, methods in paths.items()
        for method in methods
    }

    assert len(statuses) >= 15
    assert set(statuses.values()) == {401}


async def test_a_strangers_body_is_not_even_parsed(operator: Operator) -> None:
    response = await operator.client.post(
        "/admin/customers",
        content=b'{"name": ',
        headers={"authorization": "Bearer no", "content-type": "application/json"},
    )

    assert response.status_code == 401


def test_of_a_token_only_the_digest_is_kept(database: Database) -> None:
    token = ensure_admin_token(database, None, 1)

    with database.read() as connection:
        rows = connection.execute(select(admin_tokens)).all()
    assert token is not None
    assert [row.digest for row in rows] == [hashlib.sha256(token.encode()).hexdigest()]
    assert token not in repr(rows)


def test_a_token_is_made_once_and_shown_once(database: Database) -> None:
    first = ensure_admin_token(database, None, 1)

    second = ensure_admin_token(database, None, 2)

    assert first is not None
    assert first.startswith("tca-")
    assert second is None
    assert AdminTokens(database, Seconds()).is_admin(first)


def test_a_token_from_the_settings_is_the_only_one(database: Database) -> None:
    token = ensure_admin_token(database, None, 1)

    shown = ensure_admin_token(database, "the operator's own", 2)

    tokens = AdminTokens(database, Seconds())
    assert shown is None
    assert tokens.is_admin("the operator's own")
    assert token is not None
    assert not tokens.is_admin(token)


def test_a_token_that_was_retired_never_works_again(database: Database) -> None:
    """Neither by another one in the settings, nor by the command; the start says what to do."""
    ensure_admin_token(database, "one", 1)
    ensure_admin_token(database, "one", 2)
    new = new_admin_token(database, 3)

    with pytest.raises(StartupError, match="was retired") as refused:
        ensure_admin_token(database, "one", 4)

    tokens = AdminTokens(database, Seconds())
    assert refused.value.exit_code == 2
    assert not tokens.is_admin("one")
    assert tokens.is_admin(new)
    assert ensure_admin_token(database, new, 5) is None


def test_each_new_token_is_a_row_of_the_audit(database: Database) -> None:
    """Also one that a command made; a start that changes nothing writes none."""
    ensure_admin_token(database, "one", 1)
    ensure_admin_token(database, "one", 2)
    new_admin_token(database, 3)

    with database.read() as connection:
        rows = connection.execute(select(audit).order_by(audit.c.seq)).all()
    assert [(row.action, row.actor) for row in rows] == [("token.new", "settings"), ("token.new", "command")]
    assert digest_of("one")[:12] in rows[1].before
    assert "one" not in rows[1].after


def test_a_new_token_works_at_once_and_the_lost_one_dies_within_a_second(database: Database) -> None:
    clock = Seconds()
    tokens = AdminTokens(database, clock)
    lost = new_admin_token(database, 1)
    assert tokens.is_admin(lost)

    new = new_admin_token(database, 2)
    clock.now_s += 1.0

    assert not tokens.is_admin(lost)
    assert tokens.is_admin(new)


def test_a_new_token_is_known_before_the_old_look_up_is_forgotten(database: Database) -> None:
    tokens = AdminTokens(database, Seconds())
    assert tokens.is_admin(new_admin_token(database, 1))

    assert tokens.is_admin(new_admin_token(database, 2))
