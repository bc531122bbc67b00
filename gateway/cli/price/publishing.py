"""Sends menus to a running gateway over its admin API, and puts its refusals into one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from gateway.cli.admin_api import problem, refusal, send_request
from gateway.errors import StartupError

if TYPE_CHECKING:
    import httpx

Effective = Literal["now", "next_period"]

MENUS = "/admin/menus"
IS_THERE = "already_exists"
STRANDING = "tier_in_use"


class Publisher:
    """Posts and publishes menus. ``client`` knows the address and carries the admin token."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def post(self, menu: Mapping[str, Any]) -> str:
        """Post a menu to the gateway, which checks it, and return its version; a menu that exists stays as it is.

        Raises:
            StartupError: the gateway refuses the menu, has another menu of this version, or does not answer.
        """
        answer = send_request(self._client, "POST", MENUS, menu)
        if answer.is_success:
            return str(answer.json()["version"])
        if problem(answer).get("code") != IS_THERE:
            raise _refusal(answer)
        version = str(menu["version"])
        existing = send_request(self._client, "GET", f"{MENUS}/{quote(version, safe='')}")
        if not existing.is_success:
            raise _refusal(existing)
        if _sold(existing.json()) != _sold(menu):
            raise StartupError(f"The gateway has another menu {version}; a menu never changes.", exit_code=1)
        return version

    def publish(self, version: str, effective: Effective, moves: Mapping[str, str]) -> None:
        """Put a menu that the gateway has in force.

        Raises:
            StartupError: the gateway refuses, or does not answer.
        """
        body = {"effective": effective, "moves": dict(moves)}
        answer = send_request(self._client, "POST", f"{MENUS}/{quote(version, safe='')}/publish", body)
        if not answer.is_success:
            raise _refusal(answer)


def _refusal(answer: httpx.Response) -> StartupError:
    is_stranding = problem(answer).get("code") == STRANDING
    return refusal(answer, " Or say with --moves old=new where they go." if is_stranding else "")


def _sold(menu: Mapping[str, Any]) -> Any:
    """Return the tiers that a menu sells, by which two menus of the same version are distinguished."""
    return [{name: value for name, value in tier.items() if value is not None} for tier in menu["tiers"]]
