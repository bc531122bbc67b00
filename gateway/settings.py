"""Every setting, from the environment or ``tokencap.toml``; no other part of the gateway reads settings from these."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from gateway import setting_checks
from gateway.errors import StartupError
from gateway.redaction import redacted
from gateway.setting_sources import PREFIX, FromEnvironment, FromFile, outside, refuse_unknown, warn_of_kubernetes
from pricing.menus.menu import HangupBills


class Settings(BaseSettings):
    """The settings of one installation. A variable's name is ``TOKENCAP_`` and the field in capitals.

    Only ``VALKEY_SERVER_BIN`` has no prefix: it names a program of this machine.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    upstream_url: str = "simulated"
    upstream_key: SecretStr | None = None
    upstream_key_header: str = "authorization"
    upstream_headers: SecretStr | None = None
    upstream_proxy: str | None = None
    model: str = "aligned-1"
    model_aliases: Annotated[tuple[str, ...], NoDecode] = ()
    embedding_model: str | None = None
    upstream_profile: Literal["auto", "any", "openai", "vllm", "sglang", "llamacpp", "ollama"] = "auto"
    upstream_dialects: Annotated[tuple[str, ...], NoDecode] = ()
    upstream_limit_fields: Annotated[tuple[str, ...], NoDecode] = ()
    passed_fields: Annotated[tuple[str, ...], NoDecode] = ()
    passed_headers: Annotated[tuple[str, ...], NoDecode] = ()
    hosted_tools: Literal["refuse", "drop"] = "refuse"
    unknown_fields: Literal["drop", "refuse", "pass"] = "drop"
    upstream_usage: Literal["ask", "omit"] = "ask"
    upstream_streams: Literal["as_asked", "always"] = "as_asked"
    on_hangup: Literal["finish", "stop"] | None = None
    drain_s: float = Field(default=300, ge=0, le=86_400)
    hangup_bills: HangupBills | None = None
    conversation_headers: str = "x-claude-code-session-id, session-id, session_id, conversation_id"
    tokenizer: str | None = None
    recount_share: float = Field(default=0.01, ge=0, le=1)

    redis_url: str = "embedded"
    redis_batches: bool = True
    redis_memory_max: int | None = Field(default=None, ge=16 * 2**20, le=2**50)
    database_url: str | None = None
    data_dir: Path = Path("tokencap-data")
    valkey_server_bin: Path | None = Field(default=None, validation_alias="valkey_server_bin")
    admin_token: SecretStr | None = None
    metrics_token: SecretStr | None = None
    webhook_url: str | None = None
    log_level: Literal["info", "warning"] = "info"
    notice_percents: Annotated[tuple[int, ...], NoDecode] = (80, 100)
    webhook_secret: SecretStr | None = Field(default=None, validate_default=True)
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    proration: Literal["none", "time"] = "none"
    retention_days: int | None = Field(default=None, ge=62, le=36_500)
    adjustment_nanousd_max: Annotated[tuple[str, ...], NoDecode] = ()
    invoice_address: str | None = Field(default=None, max_length=1_000)
    invoice_tax_lines: str | None = Field(default=None, max_length=1_000)
    invoice_prefix: str | None = Field(default=None, max_length=32)

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    admin_host: str | None = None
    admin_port: int | None = Field(default=None, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=64)

    lease_s: float = Field(default=10, ge=0.5, le=300)
    call_deadline_s: float = Field(default=900, ge=1, le=86_400)
    first_token_deadline_s: float = Field(default=120, ge=0.1, le=3_600)
    idle_deadline_s: float = Field(default=60, ge=0.1, le=3_600)
    write_deadline_s: float = Field(default=60, ge=0.1, le=3_600)
    stream_keep_alive_s: float = Field(default=15, ge=0, le=3_600)
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    head_max: int = Field(default=32 * 2**10, ge=1_024, le=2**20)
    head_deadline_s: float = Field(default=10, ge=0.5, le=3_600)
    body_rate_min: float = Field(default=1_024, ge=0, le=2**30)
    keep_alive_s: float = Field(default=75, ge=0.5, le=3_600)
    connections_max: int | None = Field(default=None, ge=1, le=1_000_000)
    connections_per_address_max: int | None = Field(default=None, ge=1, le=1_000_000)
    body_max: int = Field(default=16 * 2**20, ge=1024, le=64 * 2**20)
    upstream_concurrency_max: int | None = Field(default=None, ge=1, le=100_000)
    upstream_queue_s: float = Field(default=10, ge=0, le=600)
    shutdown_s: float = Field(default=30, ge=0, le=3_600)

    image_tokens_max: int = Field(default=5_000, ge=1, le=10**6)
    audio_tokens_per_kb: int = Field(default=32, ge=1, le=10**4)
    file_tokens_max: int = Field(default=100_000, ge=1, le=10**7)
    kept_tokens_max: int = Field(default=131_072, ge=1, le=10**7)
    answer_tokens_max: int = Field(default=16_384, ge=1, le=2**31)
    conversation_tokens_max: int = Field(default=131_072, ge=1, le=2**31)
    requests_per_minute: int = Field(default=1_000, ge=1, le=10**9)
    concurrency_max: int = Field(default=1_000, ge=1, le=10**9)
    kept_answers_max: int = Field(default=32 * 2**20, ge=0, le=2**40)
    grant_tokens_min: int = Field(default=16, ge=1, le=16_384)
    self_selection: Literal["none", "account", "conversation"] = "none"
    mode: Literal["enforce", "observe"] = "enforce"

    pricing_every_h: float | None = Field(default=None, ge=1, le=8_760)
    pricing_days: int = Field(default=28, ge=7, le=3_650)
    pricing_publish: Literal["no", "now", "next_period"] = "no"

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Mask passwords in addresses, because printed settings end up in logs."""
        for name, value in super().__repr_args__():
            yield name, redacted(value) if isinstance(value, str) else value

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_written(cls, value: Any, field: ValidationInfo) -> Any:
        """Refuse values that no setting can have: unprintable characters, and a boolean, which would count as 1."""
        texts = value if isinstance(value, (list, tuple)) else (value,)
        if any(isinstance(text, str) and not text.isprintable() for text in texts):
            raise ValueError("it has unprintable characters")
        if isinstance(value, bool) and field.field_name != "redis_batches":
            raise ValueError("it cannot be true or false")
        return value

    @field_validator("upstream_url", mode="after")
    @classmethod
    def _is_an_endpoint(cls, value: str) -> str:
        return value if value == "simulated" else setting_checks.http_url(value, credentials=False, query=True)

    @field_validator("upstream_proxy", mode="after")
    @classmethod
    def _is_a_proxy(cls, value: str | None) -> str | None:
        return value and setting_checks.http_url(value, credentials=True, path=False)

    @field_validator("webhook_url", mode="after")
    @classmethod
    def _is_a_webhook(cls, value: str | None) -> str | None:
        return value and setting_checks.http_url(value, credentials=True, query=True)

    @field_validator("redis_url", mode="after")
    @classmethod
    def _is_a_redis(cls, value: str) -> str:
        return setting_checks.redis_url(value)

    @field_validator("database_url", mode="after")
    @classmethod
    def _is_a_database(cls, value: str | None) -> str | None:
        return value and setting_checks.database_url(value)

    @field_validator("admin_token", "metrics_token", mode="after")
    @classmethod
    def _is_not_guessed(cls, value: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if value is not None:
            setting_checks.secret_token(value.get_secret_value())
            if others.field_name == "metrics_token" and value == others.data.get("admin_token"):
                raise ValueError("it is the admin token, which may do far more than read metrics")
        return value

    @field_validator("upstream_key", mode="after")
    @classmethod
    def _fits_in_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (text := value.get_secret_value()).isascii():
            raise ValueError(
                f"it has {sum(not character.isascii() for character in text)} characters that no header can carry"
            )
        return value

    @field_validator("upstream_key_header", mode="after")
    @classmethod
    def _carries_a_key(cls, value: str) -> str:
        return setting_checks.upstream_header(value)

    @field_validator("upstream_headers", mode="before")
    @classmethod
    def _is_written_as_json(cls, value: Any) -> Any:
        return json.dumps(value) if isinstance(value, dict) else value  # a table of tokencap.toml

    @field_validator("upstream_headers", mode="after")
    @classmethod
    def _are_headers_of_ours(cls, value: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if value is not None:
            headers = setting_checks.upstream_headers(value.get_secret_value())
            if others.data.get("upstream_key") and others.data.get("upstream_key_header") in headers:
                raise ValueError("it has the header in which TOKENCAP_UPSTREAM_KEY is sent")
        return value

    @field_validator(
        "model_aliases",
        "upstream_dialects",
        "upstream_limit_fields",
        "passed_fields",
        "passed_headers",
        "cors_origins",
        "adjustment_nanousd_max",
        "notice_percents",
        mode="before",
    )
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("upstream_dialects", mode="after")
    @classmethod
    def _are_dialects(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return _each_of(values, ("chat", "completions", "responses", "messages", "embeddings"))

    @field_validator("passed_headers", mode="after")
    @classmethod
    def _may_pass(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(setting_checks.passed_header, values))

    @field_validator("cors_origins", mode="after")
    @classmethod
    def _are_origins(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(setting_checks.origin, values))

    @field_validator("adjustment_nanousd_max", mode="after")
    @classmethod
    def _are_limits_of_roles(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        setting_checks.amounts_by_role(values)
        return values

    @field_validator("notice_percents", mode="after")
    @classmethod
    def _are_percents(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return setting_checks.percents(values)

    @field_validator("upstream_limit_fields", mode="after")
    @classmethod
    def _are_limits(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return _each_of(values, ("max_completion_tokens", "max_tokens"))

    @field_validator("conversation_headers", mode="after")
    @classmethod
    def _are_headers(cls, value: str) -> str:
        for name in filter(None, map(str.strip, value.split(","))):
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}", name):
                raise ValueError(f"{name!r} is no name of a header")
        return value

    @field_validator("webhook_secret", mode="after")
    @classmethod
    def _signs_the_webhook(cls, value: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if value is None and others.data.get("webhook_url"):
            raise ValueError("the webhook is signed with it; make one with `openssl rand -base64 32`, behind whsec_")
        if value is not None:
            _webhook_key(value)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, FromEnvironment(settings_cls, os.environ), FromFile(settings_cls)

    @property
    def upstream_more_headers(self) -> dict[str, str]:
        """The operator's headers that the upstream is sent in addition to the key, by lower-case names."""
        headers = self.upstream_headers
        return {} if headers is None else setting_checks.upstream_headers(headers.get_secret_value())

    @property
    def adjustment_limits(self) -> dict[str, int]:
        """The largest amount that each role may put on a bill at once, in nano-units; other roles have no limit."""
        return setting_checks.amounts_by_role(self.adjustment_nanousd_max)

    @property
    def ledger_url(self) -> str:
        """The database's URL: the operator's, or else SQLite in the data directory."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'ledger.sqlite').absolute()}"

    @property
    def configured_currency(self) -> str | None:
        """The currency that the operator has set, or None, which means the ledger's currency."""
        return self.currency if "currency" in self.model_fields_set else None

    @property
    def metrics_dir(self) -> Path:
        """The directory in which each process of this gateway writes its counters."""
        return self.data_dir / "metrics"

    @property
    def webhook_key(self) -> bytes | None:
        """The key in the webhook's secret."""
        return None if self.webhook_secret is None else _webhook_key(self.webhook_secret)

    @property
    def watermarks_file(self) -> Path:
        """The file in which the bookkeeper reports the ledger's watermarks to the workers of this machine."""
        return self.data_dir / "watermarks"

    def to_environment(self) -> dict[str, str]:
        """Return the settings as the environment of a process that this process starts, secrets in clear."""
        return {outside(name): _text(value) for name, value in self if value is not None}


def _each_of(values: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``values``, or raise ValueError if one of them is not ``known``."""
    if unknown := [name for name in values if name not in known]:
        raise ValueError(f"{unknown[0]} is none of {', '.join(known)}")
    return values


def _webhook_key(secret: SecretStr) -> bytes:
    """Return the key in a secret in the format of Standard Webhooks."""
    text = secret.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("it is whsec_ and 24 to 64 bytes in base64")
    return key


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without any setting. A child process gets it together with ``to_environment``."""
    return {name: value for name, value in environment.items() if not name.upper().startswith(PREFIX)}


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def refuse_misspelt(environment: Mapping[str, str]) -> None:
    """Refuse variables with our prefix that are not settings; warn about those that Kubernetes made, which are ignored.

    Raises:
        StartupError: a variable with our prefix is not a setting.
    """
    refuse_unknown(environment, Settings)
    warn_of_kubernetes(environment)


def read_settings(**overrides: Any) -> Settings:
    """Return the settings: from ``overrides``, else the environment, else ``tokencap.toml``, else the default.

    Raises:
        StartupError: a setting is unknown or has an invalid value; the message names the first such setting.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name, sentence = outside(str(first["loc"][0])), str(first["msg"]).removeprefix("Value error, ")
        raise StartupError(f"{name}: {sentence}.", exit_code=2) from error


PROGRAM = (sys.executable, "-P", "-m", "gateway.cli.main")
"""Starts this program; the words of a command follow. With ``-P`` nothing in the current directory is imported."""
