"""What an upstream says of a refusal reaches the caller; what is between it and the house does not."""

from __future__ import annotations

import pytest

from gateway.serving.upstream import discreet


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-4f1b9c77d2e0a853",
        "sk-4f1b****a853",
        "org-Ab12Cd34Ef",
        "proj_Ab12Cd34Ef",
        "Bearer abc.def-ghi",
        "http://10.0.0.7:8000/v1/chat/completions",
        "http://localhost:11434/api",
        "https://model.prod.svc:8443/v1",
        "http://[fd00::7]:8000",
    ],
)
def test_keys_accounts_and_addresses_of_the_house_are_left_out(secret: str) -> None:
    assert discreet(f"This failed for {secret}, sadly.") == "This failed for …, sadly."


@pytest.mark.parametrize(
    "message",
    [
        "The prompt's 20004 tokens and the answer's limit exceed the context of 20000.",
        "Invalid schema for function 'look_up': see https://json-schema.org/understanding.",
        "max_tokens is too large: 9000. This model supports at most 4096.",
        "user-facing messages must alternate; the org-wide task-list was empty",
    ],
)
def test_everything_else_is_passed_on_as_it_was_said(message: str) -> None:
    assert discreet(message) == message
