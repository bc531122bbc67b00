"""Fixtures of the admin side: the API over real HTTP semantics, real Valkey, each kind of ledger."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

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


@pytest.fixture
def valkey(valkey_url: str) -> Iterator[redis.Redis]:
    with connect(valkey_url) as client:
        yield client


@pytest.fixture
def hot(valkey: redis.Redis) -> Hot:
    return Hot(valkey)


@pytest.fixture
def services(database: Database, valkey: redis.Redis, clock: Clock) -> AdminServices:
    return AdminServices(
        database=database,
        projection=Projection(valkey),
        redis=valkey,
        tokens=AdminTokens(database, time.monotonic),
        wrong_tokens=WrongTokens(database, now_ms=clock, monotonic=time.monotonic, sleep=at_once),
        now_ms=clock,
        random_bytes=os.urandom,
        settings=Settings(),
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


@asynccontextmanager
async def calling(services: AdminServices, token: str) -> AsyncIterator[Operator]:
    app = FastAPI(title="tokencap", openapi_url=None)
    build_admin(app, services)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://gateway", headers={"authorization": f"Bearer {token}"}
    ) as client:
        yield Operator(client)


@pytest.fixture
async def operator(services: AdminServices, admin_token: str) -> AsyncIterator[Operator]:
    async with calling(services, admin_token) as operator:
        yield operator


@pytest.fixture
async def operator_without_redis(without_redis: AdminServices, admin_token: str) -> AsyncIterator[Operator]:
    async with calling(without_redis, admin_token) as operator:
        yield operator
