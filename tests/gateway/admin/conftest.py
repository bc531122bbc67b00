"""Fixtures of the admin side: the API over real HTTP semantics, real Valkey, each kind of ledger."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from fastapi import FastAPI

from gateway.admin.api.routes import AdminServices
from gateway.admin.api.wrong_tokens import WrongTokens
from gateway.admin.router import build_admin
from gateway.catalog.admin_tokens import AdminTokens, ensure_admin_token
from gateway.holds.store.clients import connect
from gateway.holds.store.projection import Projection
from gateway.ledger.database import Database
from gateway.settings import Settings
from tests.gateway.admin.operator import Clock, Hot, Operator


async def at_once(delay: float) -> None:
    """Do not wait: what is waited for is a matter of one test alone."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def valkey_client(valkey_server: str) -> Iterator[redis.Redis]:
    with connect(valkey_server) as client:
        yield client


@pytest.fixture
def valkey(valkey_client: redis.Redis, valkey_url: str) -> redis.Redis:
    """The session's Valkey, empty."""
    return valkey_client


@pytest.fixture
def hot(valkey: redis.Redis) -> Hot:
    return Hot(valkey)


@pytest.fixture(scope="session")
def settings() -> Settings:
    """The default settings, read once: they are frozen, and reading them takes longer than most requests."""
    return Settings()


@pytest.fixture
def services(database: Database, valkey: redis.Redis, clock: Clock, settings: Settings) -> AdminServices:
    return AdminServices(
        database=database,
        projection=Projection(valkey),
        redis=valkey,
        tokens=AdminTokens(database, time.monotonic),
        wrong_tokens=WrongTokens(database, now_ms=clock, monotonic=time.monotonic, sleep=at_once),
        now_ms=clock,
        random_bytes=os.urandom,
        settings=settings,
    )


@pytest.fixture
def without_redis(services: AdminServices, tmp_path: Path) -> AdminServices:
    """The same gateway while its Redis cannot be reached."""
    nowhere = connect(f"unix://{tmp_path / 'nowhere.sock'}")
    return replace(services, redis=nowhere, projection=Projection(nowhere))


@pytest.fixture
def admin_token(database: Database) -> str:
    token = ensure_admin_token(database, None, 0)
    assert token is not None
    return token


class Current:
    """The services of the test that runs, for routes that are made once: FastAPI takes longer to make them than to answer.

    Everything in it is the test's own; the routes look for it anew at each use.
    """

    def __init__(self) -> None:
        self.services: AdminServices | None = None

    def as_services(self, valkey: redis.Redis, settings: Settings) -> AdminServices:
        """Return services of which each is that of the test that runs, but for Valkey and the settings."""
        parts: dict[str, Any] = {field.name: Part(self, field.name) for field in fields(AdminServices)}
        return AdminServices(**{**parts, "redis": valkey, "settings": settings})


class Part:
    """One of the services of the test that runs."""

    def __init__(self, current: Current, name: str) -> None:
        self._current, self._name = current, name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(getattr(self._current.services, self._name), attribute)

    def __call__(self, *arguments: Any) -> Any:
        return getattr(self._current.services, self._name)(*arguments)


@pytest.fixture(scope="session")
def routes_of(valkey_client: redis.Redis, settings: Settings) -> Callable[[AdminServices], FastAPI]:
    """Routes of the admin API for the services of one test at a time, under default settings."""
    current = Current()
    app = admin_app(current.as_services(valkey_client, settings))

    def app_of(services: AdminServices) -> FastAPI:
        assert services.redis is valkey_client
        assert services.settings == settings
        current.services = services
        return app

    return app_of


def admin_app(services: AdminServices) -> FastAPI:
    """Return an app with the admin API and nothing else."""
    app = FastAPI(title="tokencap", openapi_url=None)
    build_admin(app, services)
    return app


@asynccontextmanager
async def calling(app: FastAPI, token: str) -> AsyncIterator[Operator]:
    """Yield an operator with a token, who calls an app."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://gateway", headers={"authorization": f"Bearer {token}"}
    ) as client:
        yield Operator(client)


@pytest.fixture
async def operator(
    routes_of: Callable[[AdminServices], FastAPI], services: AdminServices, admin_token: str
) -> AsyncIterator[Operator]:
    async with calling(routes_of(services), admin_token) as operator:
        yield operator


@pytest.fixture
async def operator_without_redis(without_redis: AdminServices, admin_token: str) -> AsyncIterator[Operator]:
    async with calling(admin_app(without_redis), admin_token) as operator:
        yield operator
