"""The gateway as the demo's operator sees it: its admin API, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

import httpx

from gateway.errors import StartupError
from pricing.menus.menu import Menu, Tier
from pricing.usage import UsageRecord


async def answered(request: Awaitable[httpx.Response]) -> httpx.Response:
    """Return the response.

    Raises:
        StartupError: there is no response.
    """
    try:
        return await request
    except httpx.TransportError as error:
        raise StartupError(f"The gateway or its model does not answer: {error or type(error).__name__}.") from error


class Operator:
    """Sets up menus and customers, and reads the usage."""

    def __init__(self, client: httpx.AsyncClient, admin_token: str) -> None:
        self._client = client
        self._headers = {"authorization": f"Bearer {admin_token}"}

    async def sell(self, menu: Mapping[str, Any], moves: Mapping[str, str] | None = None) -> Menu:
        """Post a computed menu and put it in force, unless it already is; return the public menu.

        ``moves`` names the new tiers of customers whose tiers the menu lacks.
        """
        version = menu["version"]
        if not (await self._request("GET", f"/admin/menus/{version}")).is_success:
            await self._json("POST", "/admin/menus", json=menu)
        shown = await self._request("GET", "/v1/menu")
        if not shown.is_success or shown.json()["version"] != version:
            await self._json(
                "POST", f"/admin/menus/{version}/publish", json={"effective": "now", "moves": dict(moves or {})}
            )
        return await self.on_sale()

    async def type_tier(self, tier: Tier) -> None:
        """Sell a tier that is entered by hand."""
        await self._json("PUT", f"/admin/tiers/{tier.name}", json={"price_nanousd": tier.price_nanousd})

    async def give_tier(self, customer: str, tier: str | None) -> None:
        """Give a customer a tier that it did not choose, or none."""
        await self._json("PUT", f"/admin/customers/{customer}/tier", json={"tier": tier, "effective": "now"})

    async def recompute(self, run_input: Mapping[str, Any]) -> str:
        """Request a pricing run and return its id."""
        run = await self._json("POST", "/admin/pricing/runs", json=dict(run_input))
        return str(run["id"])

    async def run(self, run_id: str) -> Any:
        """Return a pricing run in its present state."""
        return await self._json("GET", f"/admin/pricing/runs/{run_id}")

    async def on_sale(self) -> Menu:
        """Return the public menu."""
        return Menu.from_json(await self._json("GET", "/v1/menu"))

    async def customers(self) -> dict[str, str]:
        """Return the ids of the customers with an ``external_id``, by that id."""
        return {
            customer["external_id"]: customer["id"]
            async for customer in self._pages("/admin/customers", {})
            if customer.get("external_id") and customer["status"] != "deleted"
        }

    async def sign_up(self, name: str, external_id: str) -> str:
        """Create a customer, who has no tier yet, and return its id."""
        customer = await self._json("POST", "/admin/customers", json={"name": name, "external_id": external_id})
        return str(customer["id"])

    async def new_key(self, customer: str) -> str:
        """Return a new key, which is shown only here."""
        created = await self._json("POST", f"/admin/customers/{customer}/keys", json={"name": "demo"})
        return str(created["key"])

    def usage(self, from_ms: int) -> AsyncIterator[UsageRecord]:
        """Yield all usage records from ``from_ms`` on."""
        return self._pages("/admin/usage", {"from": from_ms})

    async def _pages(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            more = {} if cursor is None else {"cursor": cursor}
            page = await self._json("GET", path, params={**query, "limit": 1000, **more})
            for row in page["data"]:
                yield row
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def _json(self, method: str, path: str, **more: Any) -> Any:
        response = await self._request(method, path, **more)
        if not response.is_success:
            raise StartupError(f"{method} {path} was answered {response.status_code}: {response.text[:300]}")
        return response.json()

    async def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await answered(self._client.request(method, path, headers=self._headers, **more))
