"""Sends menus to a running gateway over its admin API, and puts its refusals into one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

import httpx

from gateway.cli.admin_api import ask, problem, refusal
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
        answer = ask(self._client, "POST", MENUS, menu)
        if answer.is_success:
            return str(answer.json()["version"])
        if problem(answer).get("code") != IS_THERE:
            raise _refusal(answer)
        version = str(menu["version"])
        kept = ask(self._client, "GET", f"{MENUS}/{quote(version, safe='')}")
        if not kept.is_success:
            raise _refusal(kept)
        if _sold(kept.json()) != _sold(menu):
            raise StartupError(f"The gateway has another menu {version}; a menu never changes.", exit_code=1)
        return version

    def publish(self, version: str, effective: Effective, moves: Mapping[str, str]) -> None:
        """Put a menu that the gateway has in force.

        Raises:
            StartupError: the gateway refuses, or does not answer.
        """
        body = {"effective": effective, "moves": dict(moves)}
        answer = ask(self._client, "POST", f"{MENUS}/{quote(version, safe='')}/publish", body)
        if not answer.is_success:
            raise _refusal(answer)


def _refusal(answer: httpx.Response) -> StartupError:
    strands = problem(answer).get("code") == STRANDING
    return refusal(answer, " Or say with --moves old=new where they go." if strands else "")


def _sold(menu: Mapping[str, Any]) -> Any:
    """Return what a menu sells, by which two of one version are told apart."""
    return [{name: value for name, value in tier.items() if value is not None} for tier in menu["tiers"]]
