"""A request's head has each meaningful header once, and no parameter that its route does not know."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loop.rig import Rig, Sold, rig

CHAT = "/v1/chat/completions"
ASKED = json.dumps({"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}).encode()
TWICE = {
    "x-api-key": "tc-00-" + "x" * 43,
    "x-conversation-id": "one",
    "idempotency-key": "one",
    "x-tokencap-tier": "open",
    "x-request-id": "one",
    "content-type": "application/json",
    "content-encoding": "identity",
}
KEYED = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/aligned-1"),
    ("GET", "/v1/account"),
    ("GET", "/v1/account/usage"),
    ("GET", "/v1/account/menu"),
    ("PUT", "/v1/account/tier"),
    ("POST", CHAT),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/v1/embeddings"),
]
NO_KEY = "tc-00-" + "x" * 43


@pytest.fixture(scope="module")
def loop(shared: tuple[str, str, Path]) -> Iterator[Rig]:
    """A loop that all tests share, each with a customer of its own."""
    with rig(*shared) as running:
        running.tier("open")
        yield running


@pytest.fixture
def who(loop: Rig) -> Sold:
    return loop.customer("open")


def send(loop: Rig, method: str, path: str, *headers: tuple[str, str], body: bytes = ASKED) -> tuple[int, Any]:
    """Send a request with its headers unchanged, and return the status and the JSON of its answer."""
    address = httpx.URL(loop.url)
    lines = [f"{method} {path} HTTP/1.1", "host: x", *(f"{name}: {value}" for name, value in headers)]
    sent = [] if method == "GET" else [f"content-length: {len(body)}"]
    request = "\r\n".join([*lines, *sent, "connection: close", "", ""]).encode("latin-1")
    with socket.create_connection((address.host, address.port or 80), timeout=30) as connection:
        connection.sendall(request + (b"" if method == "GET" else body))
        received = b""
        while piece := connection.recv(65_536):
            received += piece
    head, _, answer = received.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), json.loads(answer)


def key_of(who: Sold) -> tuple[str, str]:
    return "authorization", f"Bearer {who.key}"


@pytest.mark.parametrize(("method", "path"), [*KEYED, ("GET", "/v1/menu")])
def test_a_header_that_means_something_comes_once(
    loop: Rig, who: Sold, calls_before: int, method: str, path: str
) -> None:
    """A second value is refused even if equal: a proxy in front may read the first value and the gateway the last."""
    for name, value in TWICE.items():
        for again in (value, value + "2"):
            status, answer = send(loop, method, path, key_of(who), (name, value), (name.upper(), again))

            assert (status, answer["error"]["param"].lower()) == (400, name), answer
    assert loop.counted()["calls"] == calls_before


@pytest.mark.parametrize(("method", "path"), KEYED)
def test_a_key_comes_once_whoever_it_belongs_to(loop: Rig, who: Sold, method: str, path: str) -> None:
    other = loop.customer("open")
    for second in (key_of(who), key_of(other), ("authorization", "Basic eA==")):
        for pair in ((key_of(who), second), (second, key_of(who))):
            status, answer = send(loop, method, path, *pair)
            assert (status, answer["error"]["param"]) == (400, "Authorization"), answer
    status, answer = send(loop, method, path, key_of(who), ("x-api-key", other.key))
    assert (status, answer["error"]["param"]) == (400, "X-Api-Key"), answer
    status, answer = send(
        loop, method, path, ("authorization", f"Bearer {NO_KEY}"), ("x-request-id", "a"), ("x-request-id", "b")
    )
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key"), answer


def test_the_same_key_in_both_of_its_headers_or_one_that_is_not_ours_beside_it_is_one_key(loop: Rig, who: Sold) -> None:
    """Anthropic's clients send both headers where both are configured."""
    for beside in (who.key, "sk-ant-0123456789abcdef", ""):
        assert send(loop, "GET", "/v1/account", key_of(who), ("x-api-key", beside))[0] == 200
    assert (
        send(loop, "GET", "/v1/account", ("authorization", "Bearer sk-0123456789abcdef"), ("x-api-key", who.key))[0]
        == 200
    )


def test_headers_that_mean_nothing_here_may_come_twice(loop: Rig, who: Sold) -> None:
    many = [
        ("accept", "*/*"),
        ("accept", "text/html"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-forwarded-for", "::1"),
    ]

    assert send(loop, "GET", "/v1/account", key_of(who), *many, *many)[0] == 200


@pytest.mark.parametrize(("method", "path"), [*KEYED, ("GET", "/v1/menu")])
def test_a_parameter_that_a_route_does_not_know_is_named(
    loop: Rig, who: Sold, calls_before: int, method: str, path: str
) -> None:
    for query, name in (
        ("customer=cus_1", "customer"),
        ("limit_=1", "limit_"),
        ("x=1&x=2", "x"),
        ("%ff=1", "\ufffd"),
        ("a[]=", "a[]"),
    ):
        status, answer = send(loop, method, f"{path}?{query}", key_of(who))

        assert (status, answer["error"]["code"], answer["error"]["param"]) == (422, "unknown_parameter", name), answer
    status, answer = send(loop, method, f"{path}?" + "&".join(f"a{number}=1" for number in range(200)), key_of(who))
    assert status == 400, answer
    assert loop.counted()["calls"] == calls_before


def test_what_clients_put_behind_the_routes_of_calls_changes_nothing(loop: Rig, who: Sold) -> None:
    for query in ("beta=true", "api-version=2024-10-21", "beta=true&api-version=", ""):
        assert send(loop, "POST", f"{CHAT}?{query}", key_of(who))[0] == 200
    for query in ("limit=20", "after_id=a&limit=1000", "client_version=1.0", "beta=true"):
        assert send(loop, "GET", f"/v1/models?{query}", key_of(who))[0] == 200


def written(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


CURSORS = [
    *(
        written(value)
        for value in ([10**30, "x"], [1, "\ud800"], [1.0, "x"], [True, "x"], ["x", 1], [[1]], [1, "x", 1], {}, 1)
    ),
    *(
        written(value)
        for value in ([-1, "x"], [2**53 + 1, "x"], [1, "\x00"], [1, ""], [1, "x" * 300], [1, None], None, "x")
    ),
    *(
        base64.urlsafe_b64encode(text).decode().rstrip("=")
        for text in (b"[[[[", b"[" * 600, b"", b"\xff", b"[1,", b"NaN")
    ),
    *("!", "a b", "%ff", "=", "a" * 4000, "\u0660", "WzEsIngiXQ==", '[1,"x"]', ""),
]


@pytest.mark.parametrize("cursor", CURSORS)
def test_a_cursor_that_no_list_gave_out_is_refused(loop: Rig, who: Sold, cursor: str) -> None:
    """Customers' and operators' lists refuse it alike, whatever it contains."""
    answer = httpx.get(f"{loop.url}/v1/account/usage", params={"cursor": cursor}, headers=who.headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cursor"), answer.text

    for path in ("usage", "customers", "audit", "menus", "pricing/runs", f"customers/{who.id}/keys"):
        shown = loop.admin.get(f"/admin/{path}", params={"cursor": cursor})
        assert shown.status_code == 422, shown.text
        assert [one["field"] for one in shown.json()["errors"]] == ["cursor"], shown.text


@pytest.mark.parametrize("name", ["authorization", "idempotency-key"])
def test_the_operator_says_a_header_once_too(loop: Rig, name: str) -> None:
    customers = loop.admin.get("/admin/customers?limit=1000").json()["data"]
    headers = [*loop.admin.headers.items(), (name, loop.admin.headers.get(name, "one")), (name, "one")]
    for method, path in (("POST", "/admin/customers"), ("GET", "/admin/usage"), ("GET", "/metrics")):
        answer = httpx.request(method, loop.url + path, headers=headers, content=b'{"name": "Acme"}')

        assert answer.status_code == 400, answer.text
        assert name in answer.json()["detail"].lower()
    assert loop.admin.get("/admin/customers?limit=1000").json()["data"] == customers


def test_parameters_that_come_twice_are_refused(loop: Rig, who: Sold) -> None:
    answer = httpx.get(f"{loop.url}/v1/account/usage?limit=1&limit=2", headers=who.headers)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")
