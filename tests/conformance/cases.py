"""Random requests: each is a valid request of one of the formats, in most cases with some parts made wrong."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from typing import Any

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/embeddings": {"input": "Hello", "model": "aligned-1-embedding"},
}
OTHER_PATHS = ("/v1/models", "/v1/models/aligned-1", "/v1/account", "/v1/account/usage", "/v1/menu", "/v1/files")
METHODS = ("GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "post")

LIMITS = (
    *("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "num_predict", "max_new_tokens"),
    *("max_gen_tokens", "n", "best_of", "n_cmpl", "min_tokens"),
)
FIELDS = (
    *LIMITS,
    *("model", "messages", "prompt", "input", "stream", "stream_options", "tools", "tool_choice", "metadata", "user"),
    "safety_identifier",
    *("previous_response_id", "conversation", "background", "echo", "logprobs", "seed", "system", "stop", "options"),
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3,
        16,
        17,
        20,
        2**31,
        2**63,
        2**200,
        1.5,
        5.0,
        1e18,
        "",
        "5",
        "ü",
        "\x00",
        "\ud800",
    ),
    *([], {}, [[]], [1, 2], [{}], ["a", "b", "c"], [None], {"include_usage": True}, {"num_predict": 10**9}),
    *([{"role": "user", "content": "Hello"}], [{"role": "tool", "tool_call_id": "x"}], [{"type": "function"}]),
    *(
        "aligned-1",
        "gpt-9",
        "resp_1",
        {"id": "conv_1"},
        {"max_tokens": 10**9},
        {"user_id": "ann"},
        {"user_id": "\x00"},
        "x" * 300,
    ),
)
HEADERS: dict[str, tuple[str, ...]] = {
    "x-conversation-id": ("talk", "a b", "x" * 200, "ü"),
    "idempotency-key": ("again", "", "y" * 300),
    "x-tokencap-tier": ("open", "nothing"),
    "content-encoding": ("gzip", "identity", "br"),
    "content-type": ("text/plain", "application/json; charset=latin-1"),
    "expect": ("nothing",),
    "anthropic-version": ("2023-06-01",),
    "x-request-id": ("mine", "z" * 500),
    "accept-encoding": ("gzip",),
}


@dataclass(frozen=True)
class Case:
    """One request, as it is sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def case(chance: random.Random, key: str) -> Case:
    """Return a request of a customer with ``key``, in most cases with up to three things wrong."""
    path = chance.choice(list(BODIES))
    body = json.dumps(_body(path, chance)).encode()
    headers = {"content-type": "application/json", **_authority(chance, key)}
    method = "POST"
    if chance.random() < 0.15:
        name = chance.choice(list(HEADERS))
        headers[name] = chance.choice(HEADERS[name]).encode().decode("latin-1")
    if chance.random() < 0.15:
        method = chance.choice(METHODS)
    if chance.random() < 0.2:
        path = _odd(chance.choice((path, chance.choice(OTHER_PATHS))), chance)
    if chance.random() < 0.15:
        body = _mangled(body, chance)
    return Case(method, path, headers, body)


def _body(path: str, chance: random.Random) -> dict[str, Any]:
    body = {"model": "aligned-1", **BODIES[path], "stream": chance.random() < 0.5}
    for _ in range(chance.choice((0, 0, 1, 1, 2, 3, 5))):
        name = chance.choice(LIMITS if chance.random() < 0.5 else FIELDS)
        if chance.random() < 0.1:
            body.pop(name, None)
        else:
            body[name] = chance.choice(VALUES)
    return body


def _authority(chance: random.Random, key: str) -> dict[str, str]:
    bearer, api_key = {"authorization": f"Bearer {key}"}, {"x-api-key": key}
    wrong = chance.choice(({}, {"authorization": f"Basic {key}"}, {"x-api-key": key[:-1]}, {"authorization": "Bearer"}))
    return chance.choices((bearer, api_key, wrong), (12, 4, 1))[0]


def _odd(path: str, chance: random.Random) -> str:
    place = chance.randrange(1, len(path))
    return chance.choice(
        (
            "/" + path,
            path + "/",
            path.upper(),
            path + "?max_tokens=100000",
            path + ";x=1",
            path + "%00",
            path.replace("/v1", "/v1/.", 1),
            path.replace("/v1", "/v1/x/..", 1),
            path.replace("/", "%2F"),
            path[:place] + f"%{ord(path[place]):02x}" + path[place + 1 :],
            path[:place],
            path.replace("/v1", "", 1),
            path.replace("/v1", "/admin", 1),
            path + "/" + "x" * chance.choice((1, 100, 4_000)),
        )
    )


def _mangled(body: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(body))
    return chance.choice(
        (
            b"",
            body[:place],
            body[:place] + bytes([chance.randrange(256)]) + body[place + 1 :],
            body.replace(b"{", b'{"max_tokens": 100000, ', 1),
            body.replace(b"}", b', "n": 16, "n": 1}', 1),
            b"[" * chance.choice((1, 5_000)) + body,
            b"\xef\xbb\xbf" + body,
            gzip.compress(body),
            body.decode().encode("utf-16"),
            body.replace(b'"stream"', b'"str\\u0065am": true, "stream"'),
        )
    )
