"""``tokencap simulate``: the simulated model on its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx

from tests.gateway.cli.commands import COMMAND, environment

ASKED = {"model": "another-model", "max_tokens": 3, "messages": [{"role": "user", "content": "hello"}]}


def test_it_answers_by_the_law_it_was_given_until_it_is_stopped(directory: Path) -> None:
    """It says where, serves the model that the settings name, and ends in order."""
    words = ("simulate", "--port", "0", "--tokens-per-s", "10000", "--mean-tokens", "1e6", "--first-token-s", "0")
    variables = environment(directory, model="another-model")
    with subprocess.Popen([*COMMAND, *words], env=variables, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]

        answer = httpx.post(f"{url}/chat/completions", json=ASKED)
        process.terminate()

    assert answer.json()["usage"]["completion_tokens"] == 3
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert url.endswith("/v1")
    assert process.returncode == 0
