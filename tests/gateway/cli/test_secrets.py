"""No secret of any setting is in what a command says, whether what it is set to works or not."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.gateway.cli.commands import tokencap

SECRET = "hunter2Hunter2hunter2"
URLS = {
    "upstream_url": f"http://ann:{SECRET}@127.0.0.1:9/v1?api-key={SECRET}",
    "upstream_proxy": f"http://ann:{SECRET}@127.0.0.1:9",
    "redis_url": f"redis://:{SECRET}@127.0.0.1:9/0",
    "database_url": f"postgresql://ann:{SECRET}@127.0.0.1:9/books",
    "webhook_url": f"https://ann:{SECRET}@127.0.0.1:9/hook?sig={SECRET}",
}
KEYS = {
    "upstream_key": SECRET,
    "upstream_headers": f'{{"x-secret": "{SECRET}"}}',
    "admin_token": SECRET * 2,
    "metrics_token": SECRET,
    "webhook_secret": "whsec_" + "aHVudGVyMkh1bnRlcjJodW50ZXIyaHVudGVyMg==",
}
UNESCAPED = {name: url.replace(SECRET, f"a/b:{SECRET}@c", 1) for name, url in URLS.items()}
ESCAPED = {name: url.replace(SECRET, quote(f"%{SECRET}/@"), 1) for name, url in URLS.items()}


@pytest.mark.parametrize("urls", [URLS, UNESCAPED, ESCAPED], ids=["plain", "unescaped", "escaped"])
@pytest.mark.parametrize("words", ["doctor", "serve", "ledger recover", "admin-token"])
def test_no_command_says_a_secret(directory: Path, words: str, urls: dict[str, str]) -> None:
    """Nothing answers at any of these addresses, so each command has something to say of them."""
    ran = tokencap(directory, *words.split(), **urls, **KEYS)

    assert ran.returncode in (1, 2, 3)
    assert ran.stdout + ran.stderr
    assert SECRET not in ran.stdout + ran.stderr
    assert "aHVudGVyMkh1bnRlcjJodW50ZXIyaHVudGVyMg" not in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("urls", [URLS, UNESCAPED], ids=["plain", "unescaped"])
@pytest.mark.parametrize("name", [name for name in URLS if name != "webhook_url"])
def test_the_doctor_says_of_each_address_what_is_wrong_without_its_password(
    directory: Path, name: str, urls: dict[str, str]
) -> None:
    """Each alone, so that it is looked at."""
    ran = tokencap(directory, "doctor", **{"redis_url": "redis://127.0.0.1:9", name: urls[name]})

    assert ran.returncode in (1, 3)
    assert SECRET not in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
