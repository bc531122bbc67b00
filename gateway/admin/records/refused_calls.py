"""The route of a customer's refusals: which limit refused its calls, and when."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel, Field

from gateway.admin.api.pages import Limit
from gateway.admin.api.routes import AdminServices, Routes
from gateway.catalog import customer_rows
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import translated
from gateway.holds.store.refusal_log import MOST, shown


class Refusal(BaseModel):
    """One call that was not admitted."""

    time: int = Field(description="When, ms since 1970, UTC.", examples=[1767268800000])
    status: int = Field(examples=[429])
    code: str | None = Field(examples=["insufficient_quota"])
    limit: str | None = Field(
        description="The limit that refused the call; null if no limit did.", examples=["period_tokens_max"]
    )
    max: int | None = Field(description="The amount of that limit.", examples=[100000])
    used: int | None = Field(description="The amount of it that was used.", examples=[99000])
    held: int | None = Field(description="The amount of it that running calls held.", examples=[400])
    asked: int | None = Field(description="The amount that the call requested.", examples=[800])
    key_id: str | None = Field(examples=["key_0c41d7e2aa7b5f3c9e81d604"])
    request_id: str = Field(examples=["req_019b7a3e5c000123456789abcdef0123"])


class Refusals(BaseModel):
    """A customer's last refusals, newest first."""

    data: list[Refusal]


class CustomerRefusals:
    """Reads the refusals that workers have recorded in Redis."""

    def __init__(self, services: AdminServices) -> None:
        self._database = services.database
        self._redis = services.redis

    def add_to(self, routes: Routes) -> None:
        path = "/customers/{customer_id}/refusals"
        routes.add("GET", path, self.list, "List a customer's last refusals", 404, response_model=Refusals)

    def list(self, customer_id: str, limit: Limit = MOST) -> dict[str, Any]:
        """List a customer's refused calls, newest first: the last 1,000, or as many as `limit`.

        The list is stored for 35 days after the last refusal. Requests with an unknown key, or with a refused body, are
        not in it.
        """
        with self._database.read() as connection:
            customer_rows.find(connection, customer_id)
        with translated():
            name = redis_keys.refusals(redis_keys.bucket_of(customer_id), customer_id)
            return {"data": shown(cast(list[bytes], self._redis.lrange(name, 0, MOST - 1)))[:limit]}
