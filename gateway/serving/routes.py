"""The customer's routes on plain ASGI: an allow-list, and the one place where an error becomes an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from gateway.clock import understood
from gateway.errors import (
    BadRequest,
    CallerGone,
    HouseError,
    ModelNotFound,
    RouteNotFound,
    TierChangeNotAllowed,
    TokencapError,
)
from gateway.holds.terms import Customer
from gateway.observing.metrics import REFUSALS
from gateway.observing.tally import Tally
from gateway.serving.account import Accounts, SelfService
from gateway.serving.api_key import BucketOfKey, key_of
from gateway.serving.body import read_body
from gateway.serving.dialects.dialect import Dialect
from gateway.serving.exchange import Exchange, Receive, Scope, Send
from gateway.serving.journey import Journey, Rules
from gateway.serving.ticks import Ticks
from pricing.usage import END_USER_MOST

log = logging.getLogger("tokencap.serving")

Handler = Callable[[Exchange], Awaitable[None]]

MODELS = "/v1/models"
RECORDS_MOST = 1000
"""Usage records in one answer."""


class CustomerRoutes:
    """Everything below ``/v1``. A path and method that is not listed here is 404: there is no unmetered door."""

    def __init__(
        self,
        journeys: Sequence[Journey],
        absent: Sequence[tuple[Dialect, str]],
        accounts: Accounts,
        self_service: SelfService,
        rules: Rules,
        tally: Tally,
        ticks: Ticks,
        *,
        bucket_of_key: BucketOfKey,
        names: frozenset[str],
        new_id: Callable[[], str],
        started_s: int,
    ) -> None:
        self._accounts = accounts
        self._self_service = self_service
        self._rules = rules
        self._tally = tally
        self._ticks = ticks
        self._write_ticks = ticks.within(rules.write_deadline_s)
        self._bucket_of_key = bucket_of_key
        self._names = names
        self._new_id = new_id
        self._started_s = started_s
        self._handlers: dict[tuple[str, str], Handler] = {
            ("GET", MODELS): self._models,
            ("GET", "/v1/account"): self._account,
            ("PUT", "/v1/account/tier"): self._choose_tier,
            ("GET", "/v1/account/usage"): self._usage,
            ("GET", "/v1/menu"): self._menu,
        }
        for dialect, why in absent:
            self._handlers["POST", dialect.endpoint] = self._not_served(why)
        for journey in journeys:
            self._handlers["POST", journey.dialect.endpoint] = journey.serve
        self._dialects = {
            dialect.endpoint: dialect for dialect in (*(one for one, _ in absent), *(one.dialect for one in journeys))
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._new_id(), self._ticks, self._write_ticks)
        if (dialect := self._dialects.get(exchange.path)) is not None:
            exchange.id_headers = dialect.id_headers
        with exchange:
            try:
                await self._handler(exchange)(exchange)
            except CallerGone:
                return
            except TokencapError as error:
                await self._refuse(exchange, error)
            except Exception:
                log.exception("call %s failed", exchange.request_id)
                if exchange.answers:
                    await self._refuse(exchange, HouseError("Something went wrong on our side; nothing was charged."))

    def _handler(self, exchange: Exchange) -> Handler:
        handler = self._handlers.get((exchange.method, exchange.path))
        if handler is not None:
            return handler
        if exchange.method == "GET" and exchange.path.startswith(MODELS + "/"):
            return self._model
        raise RouteNotFound(f"There is no {exchange.method[:16]} {exchange.path[:200]} here.")

    async def _refuse(self, exchange: Exchange, error: TokencapError) -> None:
        self._tally.add(REFUSALS, error.code or "")
        try:
            await exchange.drop_body()
        except CallerGone:
            return
        dialect = self._dialects.get(exchange.path)
        told = error.body() if dialect is None else dialect.refusal(error, exchange.request_id)
        await exchange.reply(error.status, told, error.headers.items())

    def _not_served(self, why: str) -> Handler:
        async def refuse(exchange: Exchange) -> None:
            await self._who(exchange)
            raise RouteNotFound(why)

        return refuse

    async def _models(self, exchange: Exchange) -> None:
        await self._who(exchange)
        models = [self._shown(name) for name in sorted(self._names)]
        page = {"has_more": False, "first_id": models[0]["id"], "last_id": models[-1]["id"]}
        await exchange.reply(200, {"object": "list", "data": models, **page})

    async def _model(self, exchange: Exchange) -> None:
        await self._who(exchange)
        name = unquote(exchange.path.removeprefix(MODELS + "/"))  # a name may have slashes, escaped or not
        if name not in self._names:
            raise ModelNotFound(f"The model {name[:64]!r} is not served here.", param="model")
        await exchange.reply(200, self._shown(name))

    def _shown(self, name: str) -> dict[str, Any]:
        """Return a model as OpenAI's clients know it, and beside it what Anthropic's look for."""
        created = datetime.fromtimestamp(self._started_s, UTC).isoformat().replace("+00:00", "Z")
        openai = {"id": name, "object": "model", "created": self._started_s, "owned_by": "tokencap"}
        return {**openai, "type": "model", "display_name": name, "created_at": created}

    async def _account(self, exchange: Exchange) -> None:
        await exchange.reply(200, await self._accounts.account(await self._who(exchange)))

    async def _choose_tier(self, exchange: Exchange) -> None:
        customer = await self._who(exchange)
        body = read_body(await exchange.body(), exchange.header(b"content-encoding"))
        if not self._rules.customers_choose_tier:
            raise TierChangeNotAllowed("The operator sets the tier here.")
        tier = body.get("tier")
        if not isinstance(tier, str):
            raise BadRequest("tier is the name of a tier.", code="invalid_type", param="tier")
        await asyncio.to_thread(self._self_service.choose, customer.id, tier)
        await exchange.reply(200, await self._accounts.account(await self._who(exchange)))

    async def _usage(self, exchange: Exchange) -> None:
        customer = await self._who(exchange)
        asked = UsageQuery.read(exchange.query)
        page = await asyncio.to_thread(
            self._self_service.usage,
            customer.id,
            asked.since,
            asked.until,
            asked.limit,
            asked.cursor,
            asked.end_user,
        )
        await exchange.reply(200, page)

    async def _menu(self, exchange: Exchange) -> None:
        menu = await self._accounts.menu()
        if menu is None:
            raise RouteNotFound("No menu has been published yet.")
        await exchange.reply(200, menu.to_json())

    async def _who(self, exchange: Exchange) -> Customer:
        key = await key_of(exchange, self._bucket_of_key)
        return await self._accounts.customer(key.bucket, key.digest)


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which records a customer asks for."""

    since: int | None
    until: int | None
    limit: int
    cursor: str | None
    end_user: str | None

    @classmethod
    def read(cls, query: str) -> UsageQuery:
        """Return what a query string asks for; what it does not name is not bounded.

        Raises:
            BadRequest: a value is not what it has to be; ``param`` says which.
        """
        given = dict(parse_qsl(query))
        times: dict[str, int | None] = {}
        for name in ("from", "to"):
            try:
                times[name] = understood(given[name]) if name in given else None
            except ValueError as error:
                raise BadRequest(str(error), param=name) from error
        limit = given.get("limit", "100")
        if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= RECORDS_MOST):
            raise BadRequest(f"limit is a whole number from 1 to {RECORDS_MOST}.", param="limit")
        end_user = given.get("end_user")
        if end_user is not None and not (len(end_user) <= END_USER_MOST and end_user.isprintable()):
            raise BadRequest(f"end_user is at most {END_USER_MOST} printed characters.", param="end_user")
        return cls(times["from"], times["to"], int(limit[:9]), given.get("cursor"), end_user)
