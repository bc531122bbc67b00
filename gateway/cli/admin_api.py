"""Gives commands a client of a running gateway's admin side, and puts its refusals into one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.errors import StartupError

if TYPE_CHECKING:
    import httpx

ANSWER_S = 120.0
"""How long to wait for the gateway's answer: it checks a menu for up to a minute."""

Url = Annotated[str, typer.Option(envvar="TOKENCAP_URL", help="The gateway, or its admin side's own address.")]
Token = Annotated[str, typer.Option(envvar="TOKENCAP_ADMIN_TOKEN", help="The admin token.")]


def admin_client(url: str, token: str) -> httpx.Client:
    """Return a client of the gateway's admin side.

    Raises:
        StartupError: the address is no URL.
    """
    import httpx  # noqa: PLC0415 - most commands that have its options call no gateway

    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise StartupError("--url is no URL.", exit_code=2) from error
    if base.scheme not in ("http", "https") or not base.host:
        raise StartupError("--url is an address such as http://127.0.0.1:8080.", exit_code=2)
    if not token.isascii() or not token.isprintable():
        raise StartupError("--token is no admin token: it has characters that no token has.", exit_code=2)
    timeout = httpx.Timeout(30, read=ANSWER_S)
    return httpx.Client(base_url=base, headers={"authorization": f"Bearer {token}"}, timeout=timeout)


def send_request(
    client: httpx.Client, method: str, path: str, body: Mapping[str, Any] | None = None, **headers: str
) -> httpx.Response:
    """Return the gateway's answer.

    Raises:
        StartupError: the gateway does not answer.
    """
    import httpx  # noqa: PLC0415 - as above

    try:
        return client.request(method, path, json=body, headers=headers)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise StartupError(f"The gateway at {client.base_url} does not answer: {reason}.") from error


def problem(answer: httpx.Response) -> Mapping[str, Any]:
    """Return the JSON object of a refusal; empty where there is none."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def refusal(answer: httpx.Response, advice: str = "") -> StartupError:
    """Return the error that ends the command: exit code 1 where the gateway refuses, 3 where it cannot answer now."""
    body = problem(answer)
    detail = body.get("violation") or body.get("detail")
    sentence = str(detail) if detail else f"There is no admin side of tokencap here: status {answer.status_code}."
    return StartupError(sentence + advice, exit_code=3 if answer.status_code >= 500 or not detail else 1)


app = typer.Typer()


@app.command("admin-token")
def admin_token() -> None:
    """Print a new admin token, retiring the lost one. It is shown once and stored as a hash."""
    # Commands that only call a running gateway need no ledger, so they do not wait for its libraries.
    from gateway.catalog.admin_tokens import new_admin_token  # noqa: PLC0415
    from gateway.clock import now_ms  # noqa: PLC0415
    from gateway.ledger.database import Database  # noqa: PLC0415
    from gateway.settings import read_settings  # noqa: PLC0415

    with closing(Database(read_settings().ledger_url)) as database:
        database.check()
        print(new_admin_token(database, now_ms()))
