"""The sources of settings: the environment, ``tokencap.toml``, and files with secrets. Unknown names are refused."""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from gateway.errors import StartupError

PREFIX = "TOKENCAP_"
FILE = "_file"
WRONG_USE = 2
TOML = Path("tokencap.toml")
TOML_MOST = 1_000_000
SECRET_MOST = 65_536
"""The most characters of a file with a secret."""

WITH_PASSWORDS = frozenset({"redis_url", "database_url", "upstream_url", "upstream_proxy", "webhook_url"})
"""Addresses that may contain a password, so they can be set by a file, too."""

OF_CLIENTS = frozenset({"TOKENCAP_URL", "TOKENCAP_KEY"})
"""Variables that are not settings: where commands find a running gateway, and a customer's key in our examples."""

_KUBERNETES = re.compile(
    r"TOKENCAP_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBERNETES_PORT = re.compile(r"TOKENCAP_(\w+_)?PORT")
_KUBERNETES_URL = re.compile(r"(tcp|udp|sctp)://")

log = logging.getLogger(__name__)


def outside(name: str) -> str:
    """Return the name of a setting's environment variable."""
    return f"{PREFIX}{name}".upper() if name != "valkey_server_bin" else "VALKEY_SERVER_BIN"


def of_kubernetes(name: str, value: str) -> bool:
    """Return whether Kubernetes makes this variable from the name of a Service: ``tokencap``, ``tokencap-admin``, ….

    ``TOKENCAP_PORT`` is such a variable if its value is an address, not a number.
    """
    if _KUBERNETES.fullmatch(name) is not None:
        return True
    return _KUBERNETES_PORT.fullmatch(name) is not None and _KUBERNETES_URL.match(value) is not None


def own_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with our prefix that Kubernetes did not make, by their names in capitals."""
    named = [(name, value) for name, value in environment.items() if name.upper().startswith(PREFIX)]
    found = {name.upper(): value for name, value in named} | {name: value for name, value in named if name.isupper()}
    return {name: value for name, value in found.items() if not of_kubernetes(name, value)}


def refuse_unknown(environment: Mapping[str, str], kind: type[BaseSettings]) -> None:
    """Refuse a misspelt setting: if it were ignored, the operator would believe that it applies.

    Raises:
        StartupError: a variable with our prefix is not a setting; the message names the nearest setting.
    """
    known = {outside(name) for name in _names(kind.model_fields)}
    for name in sorted(own_variables(environment)):
        if name not in known | OF_CLIENTS:
            raise _unknown(name, known)


def warn_of_kubernetes(environment: Mapping[str, str]) -> None:
    """Log a warning that names the variables that are ignored because Kubernetes made them."""
    ignored = [name for name, value in environment.items() if of_kubernetes(name.upper(), value)]
    if ignored:
        log.warning("%s: made by Kubernetes of a Service's name, and ignored.", ", ".join(sorted(ignored)))


class FromEnvironment(PydanticBaseSettingsSource):
    """Variables ``TOKENCAP_…``. ``X_FILE`` is the path of a file that has only the secret, or the address, ``X``."""

    def __init__(self, kind: type[BaseSettings], environment: Mapping[str, str]) -> None:
        super().__init__(kind)
        self._environment = environment

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # ``__call__`` reads all settings

    def __call__(self) -> dict[str, Any]:
        refuse_unknown(self._environment, self.settings_cls)
        given = {**own_variables(self._environment)}
        if "VALKEY_SERVER_BIN" in self._environment:
            given["VALKEY_SERVER_BIN"] = self._environment["VALKEY_SERVER_BIN"]
        named = {name: given.get(outside(name), "") for name in _names(self.settings_cls.model_fields)}
        return _resolved({name: value for name, value in named.items() if value}, outside)


class FromFile(PydanticBaseSettingsSource):
    """``tokencap.toml`` of the current directory, if there is one."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        given = _read_toml()
        known = set(_names(self.settings_cls.model_fields))
        for name in given:
            if name not in known:
                raise _unknown(name, known, f"{TOML}: ")
        # Settings of the earlier sources take precedence, whether they were set directly or by a file.
        before = self.current_state
        return _resolved({name: value for name, value in given.items() if name.removesuffix(FILE) not in before}, str)


def _read_toml() -> dict[str, Any]:
    try:
        if not TOML.exists():
            return {}
        with TOML.open("rb") as file:
            content = file.read(TOML_MOST + 1)
        if len(content) > TOML_MOST:
            raise ValueError(f"it has more than {TOML_MOST:,} bytes")
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise StartupError(f"{TOML} cannot be read: {error.strerror}.", WRONG_USE) from error
    except UnicodeDecodeError as error:
        raise StartupError(f"{TOML} is not UTF-8.", WRONG_USE) from error
    except (ValueError, RecursionError) as error:
        raise StartupError(f"{TOML} is not TOML that can be read: {error}.", WRONG_USE) from error


def _names(fields: Mapping[str, FieldInfo]) -> Iterable[str]:
    """Yield the names that can be set: each setting, and the file of a secret or of an address with a password."""
    for name, field in fields.items():
        yield name
        if name in WITH_PASSWORDS or SecretStr in (field.annotation, *get_args(field.annotation)):
            yield name + FILE


def _resolved(given: dict[str, Any], called: Any) -> dict[str, Any]:
    """Return the settings, with the contents of the files that were named instead of values."""
    found = {name: value for name, value in given.items() if not name.endswith(FILE)}
    for name, value in given.items():
        if name.endswith(FILE):
            setting = name.removesuffix(FILE)
            if setting in found:
                raise StartupError(f"{called(setting)} and {called(name)} are both set; keep one.", WRONG_USE)
            found[setting] = _secret_in(value, called(name))
    return found


def _secret_in(path: Any, name: str) -> str:
    """Return the text in a file, without white space at its ends."""
    if not isinstance(path, str):
        raise StartupError(f"{name}: the value must be the path of a file.", WRONG_USE)
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(SECRET_MOST + 1).strip()
    except OSError as error:
        raise StartupError(f"{name}: {path} cannot be read: {error.strerror}.", WRONG_USE) from error
    except ValueError as error:
        raise StartupError(f"{name}: that file cannot be read as text.", WRONG_USE) from error
    if not text or len(text) > SECRET_MOST:
        raise StartupError(f"{name}: {path} {'holds far too much for one secret' if text else 'is empty'}.", WRONG_USE)
    return text


def _unknown(name: str, known: Iterable[str], where: str = "") -> StartupError:
    [nearest] = get_close_matches(name, sorted(known), n=1, cutoff=0)
    shown = name if name.isprintable() and len(name) <= 100 else ascii(name[:100])
    return StartupError(f"{where}{shown} is no setting; the nearest is {nearest}.", WRONG_USE)
