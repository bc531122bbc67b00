"""Sends menus to a running gateway over its admin API, and puts its refusals into one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

import httpx

from gateway.errors import StartupError

Effective = Literal["now", "next_period"]

MENUS = "/admin/menus"
IS_THERE = "already_exists"
STRANDING = "tier_in_use"


class Publisher:
    """Posts and publishes menus. ``client`` knows the address and carries the admin token."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def post(self, menu: Mapping[str, Any]) -> str:
        """Give the gateway a menu, which it checks, and return its version; one that it has already stays as it is.

        Raises:
            StartupError: the gateway refuses it, has another one of this version, or does not answer.
        """
        answer = self._ask("POST", MENUS, menu)
        if answer.is_success:
            return str(answer.json()["version"])
        if _problem(answer).get("code") != IS_THERE:
            raise refusal(answer)
        version = str(menu["version"])
        kept = self._ask("GET", f"{MENUS}/{quote(version, safe='')}")
        if not kept.is_success:
            raise refusal(kept)
        if _sold(kept.json()) != _sold(menu):
            raise StartupError(f"The gateway has another menu {version}; a menu never changes.", exit_code=1)
        return version

    def publish(self, version: str, effective: Effective, moves: Mapping[str, str]) -> None:
        """Put a menu that the gateway has in force.

        Raises:
            StartupError: the gateway refuses, or does not answer.
        """
        body = {"effective": effective, "moves": dict(moves)}
        answer = self._ask("POST", f"{MENUS}/{quote(version, safe='')}/publish", body)
        if not answer.is_success:
            raise refusal(answer)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise StartupError(f"The gateway at {self._client.base_url} does not answer: {reason}.") from error


def refusal(answer: httpx.Response) -> StartupError:
    """Return what a refusal comes to: exit 1 where the answer is no, 3 where the gateway cannot answer now."""
    problem = _problem(answer)
    said = problem.get("violation") or problem.get("detail")
    sentence = str(said) if said else f"There is no admin side of tokencap here: status {answer.status_code}."
    if problem.get("code") == STRANDING:
        sentence += " Or say with --moves old=new where they go."
    return StartupError(sentence, exit_code=3 if answer.status_code >= 500 or not said else 1)


def _problem(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _sold(menu: Mapping[str, Any]) -> Any:
    """Return what a menu sells, by which two of one version are told apart."""
    return [{name: value for name, value in tier.items() if value is not None} for tier in menu["tiers"]]
