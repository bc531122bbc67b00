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
    said = tokencap(directory, *words.split(), **urls, **KEYS)

    assert said.returncode in (1, 2, 3)
    assert said.stdout + said.stderr
    assert SECRET not in said.stdout + said.stderr
    assert "aHVudGVyMkh1bnRlcjJodW50ZXIyaHVudGVyMg" not in said.stdout + said.stderr
    assert "Traceback" not in said.stderr


def test_the_doctor_names_an_address_without_its_password(directory: Path) -> None:
    said = tokencap(directory, "doctor", upstream_url=URLS["upstream_url"], redis_url=URLS["redis_url"])

    assert "http://…@127.0.0.1:9/v1" in said.stdout
    assert SECRET not in said.stdout
