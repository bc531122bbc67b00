"""A setting that cannot be meant stops every command with one sentence that names it, and no secret is repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.cli.main import COMMANDS
from gateway.errors import StartupError
from gateway.setting_checks import TELLING_LEAST, passed_header, secret_token, telling_characters, upstream_header
from gateway.settings import Settings, read_settings, without_settings

GOOD = "1f8c9a0be77d4c52a6f3e9d0"
OTHER = "Zk3-_qP0vR8xT1mY5bWc7LdN"

BAD = {
    "TOKENCAP_UPSTREAM_URL": [
        *("localhost:8000/v1", "localhost", "http:/h/v1", "http://", "http:///v1", "//h/v1", "ftp://h/v1", "h"),
        *("http://h:port/v1", "http://h:0/v1", "http://h:/v1", "http://h:99999/v1", "http://h:-1/v1", "http://:80/v1"),
        *("http://a b/v1", "http://h/v1#x", "http://u:secret@h/v1", "http://[::1/v1", "http://h..h/v1", "http://-h/"),
        *("http://h/\x01", "http://h/v1\n", "http://" + "h" * 300, "HTTP//h", "https://?", "http://h^/v1", " "),
        *("embedded", "http://\u2100/v1"),
    ],
    "TOKENCAP_UPSTREAM_PROXY": ["socks5://h:1", "h:3128", "http://h:port", "http://h/path", "http://h?x", "http://"],
    "TOKENCAP_WEBHOOK_URL": ["http://h:port/x", "h/x", "http://", "ftp://h", "http://h#x", "http://h:70000"],
    "TOKENCAP_REDIS_URL": [
        *("localhost:6379", "http://h", "redis://", "redis://h:port", "redis://h/abc", "redis://h?foo=1", "unix://"),
        *("redis://h:99999", "redis://h/0?db=x", "memory", "rediss:h", "redis+cluster://", "redis://h /0"),
    ],
    "TOKENCAP_DATABASE_URL": [
        *("mysql://h/d", "postgres://h/d", "postgresql://", "postgresql://h:port/d", "postgresql://h:99999/d"),
        *("sqlite://", "sqlite:///", "sqlite:x", "ledger.sqlite", "postgresql://u:p w@h/d"),
    ],
    "TOKENCAP_ADMIN_TOKEN": ["x", "admin", "a" * 64, "password" * 4, "0123456789abcdef" * 2, "two words and more here"],
    "TOKENCAP_METRICS_TOKEN": ["x", "metrics-token-123", "\u00fc" * 40],
    "TOKENCAP_UPSTREAM_KEY": ["sk-\u00fc", "sk-\n"],
    "TOKENCAP_UPSTREAM_KEY_HEADER": ["x api key", "host", "Content-Length", "x-request-id", "x\u00fc"],
    "TOKENCAP_UPSTREAM_HEADERS": [
        *("x-team: blue", "[]", '{"x-team": 1}', '{"host": "h"}', '{"a b": "c"}', '{"x": ""}', '{"X": "1", "x": "2"}'),
        *('{"x": "a\\nb"}', '{"x": "\u00fc"}'),
    ],
    "TOKENCAP_CORS_ORIGINS": ["app.example.com", "https://a/b", "http://a\nb"],
    "TOKENCAP_STREAM_KEEP_ALIVE_S": ["-1", "nan", "often"],
    "TOKENCAP_WEBHOOK_SECRET": ["x", "whsec_", "whsec_!!!!", "whsec_" + "A" * 8],
    "TOKENCAP_LEASE_S": ["0", "-1", "nan", "inf", "1e400", "ten", "0x10"],
    "TOKENCAP_CALL_DEADLINE_S": ["0", "nan", "-inf"],
    "TOKENCAP_SHUTDOWN_S": ["-1", "nan"],
    "TOKENCAP_WORKERS": ["0", "-1", "1.5", "9" * 40, "9" * 5000, "many"],
    "TOKENCAP_PORT": ["-1", "65536", "http", "8080.5"],
    "TOKENCAP_ANSWER_TOKENS_MAX": ["0", str(2**53)],
    "TOKENCAP_PRICING_EVERY_H": ["0", "nan"],
    "TOKENCAP_SELF_SELECTION": ["all"],
    "TOKENCAP_MODE": ["Enforce!"],
    "TOKENCAP_CURRENCY": ["usd", "US", "EURO"],
    "TOKENCAP_REDIS_BATCHES": ["perhaps"],
    "TOKENCAP_UPSTREAM_DIALECTS": ["chat,gopher", "chat\nopenai"],
    "TOKENCAP_MODEL": ["a\x00b", "a\nb", "\udcff"],
    "TOKENCAP_MODEL_ALIASES": ["a\nb", "a,b\x1b[2J", ["a", "b\x00"]],
    "TOKENCAP_PASSED_FIELDS": ["a\u2028b"],
    "TOKENCAP_DATA_DIR": ["a\x00b"],
}
GIVEN = [(name, value) for name, values in BAD.items() for value in values]

ADDRESSES = {
    "upstream_url": ["simulated", "http://h/v1", "https://h.example:8443/a/v1/", "http://[::1]:8000/v1", "http://vllm_0:8000/v1", "https://h/v1?api-version=1"],
    "upstream_proxy": ["http://h:3128", "http://u:p@h:3128/"],
    "redis_url": [
        *("embedded", "redis://h", "redis://:p%40@h:6379/3", "rediss://u:p@h/0?ssl_cert_reqs=none"),
        *("unix:///run/redis.sock?db=2", "redis+cluster://h:7000"),
    ],
    "database_url": ["sqlite:///a.sqlite", "sqlite:////a/b.sqlite", "postgresql://u:p@h:5432/d?sslmode=require", "postgresql:///d?host=/run/postgresql"],
}  # fmt: skip
TAKEN = [(name, value) for name, values in ADDRESSES.items() for value in values]

KUBERNETES = {
    "TOKENCAP_PORT": "tcp://10.43.0.1:8080",
    "TOKENCAP_SERVICE_HOST": "10.43.0.1",
    "TOKENCAP_SERVICE_PORT": "8080",
    "TOKENCAP_SERVICE_PORT_HTTP": "8080",
    "TOKENCAP_PORT_8080_TCP": "tcp://10.43.0.1:8080",
    "TOKENCAP_PORT_8080_TCP_PROTO": "tcp",
    "TOKENCAP_PORT_8080_TCP_PORT": "8080",
    "TOKENCAP_PORT_8080_TCP_ADDR": "10.43.0.1",
    "TOKENCAP_PORT_53_UDP": "udp://10.43.0.1:53",
    "TOKENCAP_ADMIN_PORT": "tcp://10.43.0.2:9090",
    "TOKENCAP_ADMIN_SERVICE_HOST": "10.43.0.2",
    "TOKENCAP_VALKEY_PORT_6379_TCP_ADDR": "10.43.0.3",
}


@pytest.fixture(autouse=True)
def environment(tmp_path: Path) -> Iterator[MutableMapping[str, str]]:
    """The environment, with no settings but those of the test; the current directory is the test's own."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.upper().startswith("TOKENCAP_")]:
        del os.environ[name]
    with chdir(tmp_path):
        yield os.environ
    os.environ.clear()
    os.environ.update(before)


def refusal(**values: object) -> str:
    with pytest.raises(StartupError) as refused:
        read_settings(**values)
    assert refused.value.exit_code == 2
    assert refused.value.message.endswith(".")
    assert "\n" not in refused.value.message
    return refused.value.message


@pytest.mark.parametrize(
    ("name", "value"), GIVEN, ids=[f"{name[9:]}-{number}" for number, (name, _) in enumerate(GIVEN)]
)
def test_what_cannot_be_meant_is_refused_by_name(name: str, value: str) -> None:
    """One sentence that begins with the setting and repeats nothing that may be a secret."""
    sentence = refusal(**{name.removeprefix("TOKENCAP_").lower(): value})

    assert sentence.startswith(f"{name}: ")
    assert "Value error" not in sentence
    assert "secret@" not in sentence


@pytest.mark.parametrize(("name", "value"), TAKEN)
def test_addresses_that_can_be_meant_are_taken(name: str, value: str) -> None:
    """As they were written."""
    assert getattr(read_settings(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("TOKENCAP_ADMINTOKEN", "TOKENCAP_ADMIN_TOKEN"),
        ("TOKENCAP_UPSTREAM_ULR", "TOKENCAP_UPSTREAM_URL"),
        ("TOKENCAP_WORKER", "TOKENCAP_WORKERS"),
        ("TOKENCAP_PORT_FILE", "TOKENCAP_PORT"),
        ("tokencap_modell", "TOKENCAP_MODEL"),
        ("TOKENCAP_LEASE", "TOKENCAP_LEASE_S"),
        ("TOKENCAP_SERVICE_HOSTS", "TOKENCAP_HOST"),
    ],
)
def test_a_misspelt_variable_names_the_nearest(environment: MutableMapping[str, str], name: str, nearest: str) -> None:
    """It would be taken for a setting that holds."""
    environment[name] = "1"

    assert refusal() == f"{name.upper()} is no setting; the nearest is {nearest}."


@pytest.mark.parametrize("content", ["adminToken = 'x'\n", "admin_tokn = 'x'\n", "[admin_tokens]\nx = 1\n"])
def test_a_misspelt_key_of_the_file_names_the_nearest(content: str) -> None:
    Path("tokencap.toml").write_text(content)

    assert "the nearest is admin_token" in refusal()


@pytest.mark.parametrize(
    "content",
    [
        *(b"\xff", b"port = ", b"a = 1\na = 2", b"port = true", b"workers = [1]", b"model = 5", b"lease_s = nan"),
        *(
            b"port = {a = 1}",
            b"model = " + b"[" * 100_000,
            b"#" * 1_000_001,
            b"model = '\x00'",
            b"admin_token_file = 5",
        ),
    ],
)
def test_a_file_that_is_none_is_one_sentence(content: bytes) -> None:
    Path("tokencap.toml").write_bytes(content)

    assert "Error" not in refusal()


def test_a_folder_of_that_name_is_one_sentence() -> None:
    Path("tokencap.toml").mkdir()

    assert refusal() == "tokencap.toml cannot be read: Is a directory."


def test_what_kubernetes_makes_of_a_service_is_ignored_with_a_word(environment: MutableMapping[str, str]) -> None:
    """Whatever the Service is called; a port that is a number is still the setting."""
    for name, value in KUBERNETES.items():
        environment[name] = value
    assert read_settings().port == 8080
    assert read_settings().admin_port is None

    environment["TOKENCAP_PORT"] = "9000"

    assert read_settings().port == 9000


READS_SETTINGS = [name for name, entry in COMMANDS.items() if not entry.hidden and name != "demo"]
"""``demo`` leaves every setting behind."""


@pytest.mark.parametrize("name", READS_SETTINGS)
def test_every_command_refuses_a_misspelt_setting(name: str, tmp_path: Path) -> None:
    """Also those that need none; ``doctor`` tells of it as a finding."""
    ran = command(tmp_path, name, *(["add", "x"] if name == "customers" else []), TOKENCAP_ADMIN_TOKN="x")

    assert "TOKENCAP_ADMIN_TOKN is no setting; the nearest is TOKENCAP_ADMIN_TOKEN." in ran.stdout + ran.stderr
    assert ran.returncode == (1 if name == "doctor" else 2)


def test_a_command_says_what_it_ignores(tmp_path: Path) -> None:
    """On stderr, in one line."""
    ran = command(tmp_path, "price", "starter", "chat", "--out", "-", **KUBERNETES)

    assert ran.returncode == 0
    assert ran.stderr.startswith("TOKENCAP_ADMIN_PORT, ")
    assert ran.stderr.strip().endswith("made by Kubernetes of a Service's name, and ignored.")


def command(directory: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-P", "-m", "gateway.cli.main", *words]
    environment = without_settings(os.environ) | variables
    return subprocess.run(program, cwd=directory, env=environment, capture_output=True, text=True, check=False)


SECRETS = ["admin_token", "metrics_token", "upstream_key", "webhook_secret", "redis_url", "database_url"]
SECRET_VALUES = dict.fromkeys(SECRETS, GOOD) | {
    "webhook_secret": "whsec_" + "QUFB" * 8,
    "redis_url": "redis://:secret@h/0",
    "database_url": "postgresql://u:secret@h/d",
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("where", ["environment", "file"])
def test_a_secret_may_be_given_as_a_file(environment: MutableMapping[str, str], name: str, where: str) -> None:
    """Its line's end is not part of it; a child process is given the secret and not the file."""
    Path("secret").write_text(SECRET_VALUES[name] + "\n")
    if where == "environment":
        environment[f"TOKENCAP_{name.upper()}_FILE"] = "secret"
    else:
        Path("tokencap.toml").write_text(f'{name}_file = "secret"\n')

    settings = read_settings()

    assert settings.to_environment()[f"TOKENCAP_{name.upper()}"] == SECRET_VALUES[name]
    assert not [each for each in without_settings(os.environ) if each.startswith("TOKENCAP_")]


def test_a_variable_goes_before_a_file_of_the_file(environment: MutableMapping[str, str]) -> None:
    Path("tokencap.toml").write_text('admin_token_file = "nowhere"\n')
    environment["TOKENCAP_ADMIN_TOKEN"] = GOOD

    assert read_settings().to_environment()["TOKENCAP_ADMIN_TOKEN"] == GOOD


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe", b"a" * 70_000, "folder"])
def test_a_file_without_a_secret_is_refused(environment: MutableMapping[str, str], content: bytes | str | None) -> None:
    """Not there, empty, no text, far too long, a folder."""
    if content == "folder":
        Path("secret").mkdir()
    elif isinstance(content, bytes):
        Path("secret").write_bytes(content)
    environment["TOKENCAP_ADMIN_TOKEN_FILE"] = "secret"

    assert refusal().startswith("TOKENCAP_ADMIN_TOKEN_FILE: ")


def test_a_secret_that_is_given_twice_is_refused(environment: MutableMapping[str, str]) -> None:
    environment["TOKENCAP_ADMIN_TOKEN_FILE"] = "secret"
    environment["TOKENCAP_ADMIN_TOKEN"] = GOOD

    assert refusal() == "TOKENCAP_ADMIN_TOKEN and TOKENCAP_ADMIN_TOKEN_FILE are both set; keep one."


def test_the_metrics_token_is_not_the_admins() -> None:
    assert refusal(admin_token=GOOD, metrics_token=GOOD).startswith("TOKENCAP_METRICS_TOKEN: ")
    assert read_settings(admin_token=GOOD, metrics_token=OTHER).metrics_token is not None


@pytest.mark.parametrize(
    "token",
    [
        *("administrator-admin", "admin-token-1234567890", "changeme-changeme", "aaaaaaaaaaaaaaaaaaaaaaaab"),
        *("12345678901234567890", "qwertyuiopasdfgh", "password1password1", "abababababababababab", "secret" * 9),
        *("zyxwvutsrqponmlkjihg", "hunter2hunter2hunter2", "0000000000000000", "tokencap-admin-token-1"),
    ],
)
def test_a_token_that_can_be_guessed_is_refused(token: str) -> None:
    assert telling_characters(token) < TELLING_LEAST
    with pytest.raises(ValueError, match="guessed"):
        secret_token(token)


@pytest.mark.parametrize("token", [GOOD, OTHER, "tca-" + OTHER * 2, "9" + GOOD[::-1], "correct-horse-battery-staple"])
def test_a_token_that_nobody_guesses_is_taken(token: str) -> None:
    assert secret_token(token) == token


def test_defaults_are_settings_that_would_be_taken() -> None:
    assert Settings().port == 8080


def test_no_secret_is_in_what_settings_look_like() -> None:
    """Whether they are taken or not."""
    secret = "3f9a1c07d2b84e6588aa41c29be0d7f6"
    addresses: dict[str, Any] = {
        "redis_url": f"redis://:{secret}@cache",
        "database_url": f"postgresql://ann:{secret}@db/books",
        "webhook_url": f"https://ann:{secret}@hooks.example/x?sig={secret}",
        "upstream_proxy": f"http://ann:{secret}@proxy:3128",
    }
    keys: dict[str, Any] = {"upstream_key": secret, "admin_token": secret, "webhook_secret": f"whsec_{secret}"}
    taken = Settings(**addresses, **keys)
    with pytest.raises(ValidationError) as refused:
        Settings(**{name: f"no url {value}" for name, value in addresses.items()}, **keys)

    assert taken.redis_url == addresses["redis_url"]
    for shown in (repr(taken), str(taken), f"{refused.value}", repr(refused.value)):
        assert "_url" in shown
        assert secret not in shown


RANDOM = "q7Xk2vB9mT4wZ8pL" * 32
"""Letters and digits that nobody guesses, as many as a token may have."""


@pytest.mark.parametrize(("length", "is_taken"), [(15, False), (16, True), (512, True), (513, False)])
def test_a_token_has_so_many_characters(length: int, is_taken: bool) -> None:
    token = (RANDOM + "a")[:length]

    if is_taken:
        assert secret_token(token) == token
    else:
        with pytest.raises(ValueError, match="characters"):
            secret_token(token)


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "Cookie", "X-Api-Key", "my-api-key-2", "Proxy-Authorization", "X-Forwarded-For", "Via"),
        *("Host", "Content-Length", "Transfer-Encoding", "Idempotency-Key", "X-Tokencap-Tier", "OpenAI-Organization"),
    ],
)
def test_what_is_secret_or_frames_a_request_never_passes(name: str) -> None:
    """Whatever a setting says: a caller's own credentials are not the upstream's to have."""
    with pytest.raises(ValueError, match="never passes"):
        passed_header(name)
    assert passed_header("X-Team") == "x-team"


@pytest.mark.parametrize("name", ["Host", "Connection", "content-length", "Transfer-Encoding", "X-Request-Id"])
def test_what_frames_a_request_to_the_upstream_is_the_gateways_to_say(name: str) -> None:
    with pytest.raises(ValueError, match="reserved for the gateway"):
        upstream_header(name)
    assert upstream_header("Api-Key") == "api-key"


def test_the_limits_of_roles_are_amounts_by_role() -> None:
    """Each role at most once, with a whole number of nano-units."""
    assert Settings(**{"adjustment_nanousd_max": "billing=5, viewer=0"}).adjustment_limits == {
        "billing": 5,
        "viewer": 0,
    }
    for wrong in ("boss=5", "billing", "billing=-1", "billing=1.5", "billing=1,billing=2"):
        with pytest.raises(ValidationError):
            Settings(**{"adjustment_nanousd_max": wrong})


def test_shares_at_which_the_webhook_is_told_rise_and_are_whole_percents() -> None:
    """They reach a process of ours as they were written."""
    assert Settings(**{"notice_percents": "50, 90"}).notice_percents == (50, 90)
    assert Settings().to_environment()["TOKENCAP_NOTICE_PERCENTS"] == "80,100"
    for wrong in ("0", "101", "90,50", "50,50", "12.5", "x", "", ",".join(map(str, range(1, 12)))):
        with pytest.raises(ValidationError):
            Settings(**{"notice_percents": wrong})
