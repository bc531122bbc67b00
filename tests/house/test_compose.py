"""``docker-compose.yml`` is a valid Compose file whose settings exist; these tests need no container engine."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.settings import Settings
from tests.house.files import ROOT

FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = YAML(typ="safe").load(FILE)
SETTINGS = {f"TOKENCAP_{name.upper()}" for name in Settings.model_fields}
TOKEN = "1f8c9a0be77d4c52a6f3e9d0"
SERVICES = ("gateway", "model", "valkey", "postgres")


def test_the_file_is_valid_against_the_compose_schema() -> None:
    """The specification's own schema accepts it."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]

    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_setting_named_in_it_exists() -> None:
    """A ``TOKENCAP_`` name that the gateway does not know would be refused at its start, or do nothing."""
    named = set(re.findall(r"TOKENCAP_[A-Z_]+", FILE.read_text("utf-8")))

    assert named
    assert named <= SETTINGS


def test_the_gateways_environment_is_one_it_would_start_with() -> None:
    """With every ``${…}`` filled in, the settings accept it."""
    environment = COMPOSE["services"]["gateway"]["environment"]
    filled = {name: _filled_in(value) for name, value in environment.items()}
    wanted = {name: value for name, value in filled.items() if value and name != "TOKENCAP_ADMIN_TOKEN"}
    options_set = {name.removeprefix("TOKENCAP_").lower(): value for name, value in wanted.items()}

    settings = Settings(**options_set, admin_token=TOKEN)

    assert settings.host == "0.0.0.0"
    assert settings.redis_url.startswith("redis://valkey:")
    assert settings.ledger_url.startswith("postgresql://")


def _filled_in(value: str) -> str:
    """Return a value with its defaults filled in, and a word for each required variable."""
    with_defaults = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
    return re.sub(r"\$\{\w+(?::\?[^}]*)?\}", "given", with_defaults)


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_says_how_it_is(service: str) -> None:
    """Each of the four services has a health check, and the gateway waits for the other three."""
    assert COMPOSE["services"][service]["healthcheck"]["test"][0] == "CMD"
    assert service == "gateway" or COMPOSE["services"]["gateway"]["depends_on"][service] == {
        "condition": "service_healthy"
    }


def test_there_are_no_other_services() -> None:
    """A service that is not listed above would not be checked."""
    assert set(COMPOSE["services"]) == set(SERVICES)


def test_valkey_keeps_what_it_was_told() -> None:
    """Every write is on disk before it is acknowledged, and a full server refuses writes instead of evicting keys."""
    options = COMPOSE["services"]["valkey"]["command"]
    options_set = dict(zip(options[1::2], options[2::2], strict=True))

    assert options_set.pop("--maxmemory") == "${VALKEY_MEMORY_MAX:-1gb}"
    assert options_set == {
        "--appendonly": "yes",
        "--appendfsync": "always",
        "--save": "",
        "--maxmemory-policy": "noeviction",
    }


def test_no_secret_is_written_down() -> None:
    """Passwords and tokens come from the operator's environment, and Compose fails if a required one is missing."""
    gateway = COMPOSE["services"]["gateway"]["environment"]
    postgres = COMPOSE["services"]["postgres"]["environment"]

    for value in (gateway["TOKENCAP_ADMIN_TOKEN"], gateway["TOKENCAP_DATABASE_URL"], postgres["POSTGRES_PASSWORD"]):
        assert ":?" in value


def test_the_image_is_built_from_files_that_exist_and_are_sent() -> None:
    """The build's context and Dockerfile exist, and ``.dockerignore`` admits exactly the copied files."""
    build = COMPOSE["services"]["gateway"]["build"]
    dockerfile = ROOT / build["context"] / build["dockerfile"]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile.read_text("utf-8"), re.MULTILINE)
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    names = {name for line in copied for name in line.split()}

    assert names == sent
    assert all((ROOT / name).exists() for name in names)
