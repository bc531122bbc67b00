"""An upstream's words about a refusal reach the caller; details of the house and its upstream do not."""

from __future__ import annotations

import time

import pytest

from gateway.serving.upstream.error_redaction import MESSAGE_MOST, House, discreet, discreet_name, renamed

KEY = "sk-proj-9fQx2LmZ7tRb4VnW8kYc1Hd5"
HOUSE = House.of(["http://model:8000/v1", "http://vllm-gpu-3.prod.acme.com/v1", "https://api.openai.com/v1"], KEY)

MASKED = (
    *(f"/{root}/ann/.cache/llama" for root in ("root", "home", "Users", "mnt", "var")),
    # Keys and accounts.
    *(KEY, KEY[:14], KEY[-12:], "sk-proj-4f1b9c77d2e0a853", "sk-4f1b****a853", "abcd****wxyz"),
    *("org-Ab12Cd34Ef", "proj_Ab12Cd34Ef", "user-Ab12Cd34EfGh56Ij", "req_0123456789abcdef0123456789abcdef"),
    *("Bearer abc.def-ghi", "Basic dXNlcjpwYXNz=", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdef12"),
    *("hf_AbCdEfGhIjKlMnOp1234", "api_key=0123456789abcdef"),
    # Addresses.
    *("http://model:8000/v1", "http://vllm-gpu-3:8000", "http://10.0.0.7:8000/v1/chat/completions"),
    *("http://localhost:11434/api", "https://model.prod.svc:8443/v1", "http://[fd00::7]:8000", "https://u:p@acme.com"),
    *("https://gpu7.acme.net/run", "https://llm.acme.net/v1/chat/completions", "https://api.openai.com/v1/models"),
    *("redis://:secret@cache:6379/0", "postgresql://db.acme.com/x", "s3://weights/llama", "grpc://triton:8001"),
    *("model:8000", "vllm-gpu-3:8000", "vllm-gpu-3.prod.acme.com", "gpu9.acme.com", "api.openai.com", "localhost:8000"),
    *("10.0.0.7", "10.0.0.7:8000", "fd00::7", "[fd00::7]:8000", "fe80::1%eth0", "2001:db8:0:0:0:0:0:1", "[::1]:8000"),
    *("host='model', port=8000", "ip-10-0-0-7.ec2.internal", "vllm.ns.svc.cluster.local:80", "gpu1.local"),
    *("port 8000", "host vllm-3", "vllm-7d9f8b6c5d-x2x9k", "inference.acme.io:8443", "http://model", "http://vllm/v1"),
    # Paths.
    *(
        "/srv/models/llama-3",
        "/srv/models/llama-3/config.json",
        "/etc/passwd",
    ),
    *("/models/llama-3-70b", "/data/models/llama", "/app/server.py", "/weird/place/model.safetensors", "~/.cache/hf"),
    *("/usr/lib/python3.11/json/decoder.py", "/run/vllm/engine.sock", "unix:/run/engine.sock", "unix:///run/e.sock"),
    *("C:\\models\\llama", "C:\\\\models\\\\llama", "D:/weights/llama", "\\\\nas\\share\\llama", "\\\\host\\share"),
)
STAYS = (
    "Invalid schema for function 'user_lookup_v2': In context=('properties', 'org_unit_4'), 'type' is missing.",
    "Invalid 'messages[0].content[1].image_url': expected one of image/png, image/jpeg and/or text/plain.",
    "/messages/0/content is required; /data/0/id, tool_calls/0/id and #/$defs/items/3 are wrong.",
    "messages.0.content.1.text: Input should be a valid string [type=string_type, input_value=3/4, input_type=str]",
    "The prompt's 20004 tokens and the answer's limit exceed the context of 20000.",
    "max_tokens:8000 is too large; limit:9000, ratio 16:9, at 12:30:45 on 2026-11-28, 2026-11-28T12:30:45Z, 28/11/2026.",
    "Invalid schema for function 'look_up': see https://json-schema.org/understanding.",
    "See https://platform.openai.com/docs/guides/error-codes/api-errors, or http://www.w3.org/2001/XMLSchema#string.",
    "Failed to download the image from https://example.com/cats/1.png (404).",
    "For further information visit https://errors.pydantic.dev/2.10/v/missing",
    "max_tokens is too large: 9000. This model supports at most 4096. The model does not exist.",
    "user-facing messages must alternate; the org-wide task-list was empty; the host is up; a port of it",
    "The models meta-llama/Llama-3.1-70B-Instruct, gpt-4o-2024-08-06, qwen2.5:72b and llama3:8b are not served.",
    "Invalid regex '^/?[a-z]+\\d{2,4}(\\w+|\\s*)$' or \"\\\\d+\\\\w\" or 'x:\\d+', r'\\b(?:a|b)\\b'.",
    "  File-like x[::1], x[1::2], std::vector<int>, a::b, {'a': 1}, def f(a: int) -> str: return a / 2 // 3",
    "Unexpected token '}' at line 3:14 (char 27), main.py:1234, line:1234, key: 'value', p < 0.05/2, 1e-5, 50 %",
    "POST /v1/chat/completions is a route, /v1/models another; he/she, n/a, km/h, 24/7, TCP/IP, I/O",
    "call_Ab12Cd34Ef was not answered; resp_0123456789abcdef is unknown; chatcmpl-4f1b9c77; file-Ab12Cd34Ef",
    "version 1.2.3, CUDA 12.4, pydantic 2.10.1; a24e4567-e89b-12d3-a456-426614174000; Bearer authentication required",
    "Jinja: {{ messages[0]['role'] }}, {% if x %}; SELECT a/b FROM c; C: first, D: second; <a href='/x'>; emails a@b.com",
)


@pytest.mark.parametrize("secret", MASKED)
@pytest.mark.parametrize("around", ["This failed for {}, sadly.", "Not found: '{}'", "({})", "{}"])
def test_what_is_the_houses_own_is_left_out(secret: str, around: str) -> None:
    assert discreet(around.format(secret), HOUSE) == around.format("…")


@pytest.mark.parametrize("message", STAYS)
def test_everything_else_is_passed_on_as_it_was_said(message: str) -> None:
    assert discreet(message, HOUSE) == message


def test_errors_of_clients_on_the_way_name_no_place() -> None:
    """The messages are in the words of urllib3, aiohttp and the socket module."""
    messages = (
        "HTTPConnectionPool(host='vllm-gpu-3', port=8000): Max retries exceeded with url: /v1/chat/completions",
        "Cannot connect to host model:8000 ssl:default [Connect call failed ('172.18.0.3', 8000)]",
        'Traceback (most recent call last): File "/opt/My Engine/serve.py", line 3, in f: connect to unix:/run/e.sock',
    )

    redacted = " ".join(discreet(message) for message in messages)

    assert not any(secret in redacted for secret in ("gpu", "8000", "172", "/opt", "Engine", "/run", "model:"))
    assert "Max retries exceeded with url: /v1/chat/completions" in redacted
    assert "line 3, in f" in redacted


def test_a_name_with_something_of_the_house_in_it_is_none() -> None:
    assert discreet_name("messages[0].content", HOUSE) == "messages[0].content"
    assert discreet_name("context_length_exceeded") == "context_length_exceeded"
    assert discreet_name("http://model:8000", HOUSE) is None
    assert discreet_name("x" * 1_000) is None


def test_the_model_is_told_by_the_name_that_the_caller_used() -> None:
    redacted = renamed(
        "The model `acme/llama-3.1` does not exist; acme/llama-3.1-70b does.", "acme/llama-3.1", "aligned-1"
    )

    assert redacted == "The model `aligned-1` does not exist; acme/llama-3.1-70b does."


def test_a_message_is_bounded_and_quickly_read() -> None:
    """Any message takes a small part of a second."""
    before = time.process_time()

    redacted = [
        discreet(piece * 100_000, HOUSE)
        for piece in ("a", "/", "a-", "1.", ":", "\\", "http://", "a:", "::", "/a", "*a")
    ]

    assert max(map(len, redacted)) <= MESSAGE_MOST
    assert time.process_time() - before < 5
