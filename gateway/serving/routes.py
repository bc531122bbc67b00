"""The customer's routes on plain ASGI: an allow-list, and the one place where a refusal becomes an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import unquote

from gateway.body_drain import BodyDrain
from gateway.deadlines import Deadlines
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
from gateway.metrics.counters import Counters
from gateway.metrics.definitions import REFUSALS
from gateway.serving.account import Accounts, SelfService
from gateway.serving.caller.api_key import BucketOfKey, key_of
from gateway.serving.caller.body_intake import BodyIntake
from gateway.serving.caller.cors import Cors
from gateway.serving.caller.exchange import Exchange, Receive, Scope, Send
from gateway.serving.caller.query import NONE, OF_CALLS, OF_MODELS, OF_PAGES, OF_USAGE, UsageQuery, check_head
from gateway.serving.dialects.base import Dialect
from gateway.serving.journey import Journey, Rules
from gateway.serving.upstream.endpoint import Names

log = logging.getLogger("tokencap.serving")

Handler = Callable[[Exchange], Awaitable[None]]

MODELS = "/v1/models"
USAGE = "/v1/account/usage"
PROOF = "/proof"
INVOICES = "/v1/account/invoices"
CREDIT_NOTES = "/v1/account/credit-notes"


class CustomerRoutes:
    """Everything below ``/v1``. A method and path that are not listed here get 404, so no route is unmetered."""

    def __init__(
        self,
        accounts: Accounts,
        self_service: SelfService,
        intake: BodyIntake,
        rules: Rules,
        counters: Counters,
        deadlines: Deadlines,
        *,
        cors: Cors | None,
        bucket_of_key: BucketOfKey,
        names: Names,
        new_id: Callable[[], str],
        started_s: int,
    ) -> None:
        self._accounts = accounts
        self._self_service = self_service
        self._intake = intake
        self._dropping = BodyDrain()
        self._rules = rules
        self._counters = counters
        self._deadlines = deadlines
        self._write_ticks = deadlines.within(rules.write_deadline_s)
        self._cors = cors
        self._bucket_of_key = bucket_of_key
        self._names = names
        self._new_id = new_id
        self._started_s = started_s
        self._own: dict[tuple[str, str], Handler] = {
            ("GET", MODELS): self._models,
            ("GET", "/v1/account"): self._account,
            ("PUT", "/v1/account/tier"): self._choose_tier,
            ("GET", USAGE): self._usage,
            ("GET", "/v1/account/refusals"): self._refusals,
            ("GET", "/v1/account/menu"): self._own_menu,
            ("GET", "/v1/menu"): self._menu,
            ("GET", INVOICES): self._invoices,
            ("GET", CREDIT_NOTES): self._credit_notes,
            ("GET", "/v1/account/prepaid"): self._prepaid,
            ("GET", "/v1/ledger/seals"): self._seals,
            ("GET", "/v1/organization/usage/completions"): partial(self._organization, is_costs=False),
            ("GET", "/v1/organization/costs"): partial(self._organization, is_costs=True),
        }
        self._handlers = self._own
        self._dialects: dict[str, Dialect] = {}

    def serve(self, journeys: Sequence[Journey], absent: Sequence[tuple[Dialect, str]]) -> None:
        """Serve calls of these dialects from now on; refuse calls of ``absent`` dialects, with the reason."""
        calls: dict[tuple[str, str], Handler] = {
            **{("POST", dialect.endpoint): self._not_served(why) for dialect, why in absent},
            **{("POST", journey.dialect.endpoint): journey.serve for journey in journeys},
        }
        self._handlers = self._own | calls
        served = (*(entry for entry, _ in absent), *(entry.dialect for entry in journeys))
        self._dialects = {dialect.endpoint: dialect for dialect in served}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._new_id(), self._deadlines, self._write_ticks)
        if (dialect := self._dialects.get(exchange.path)) is not None:
            exchange.id_headers = dialect.id_headers
        with exchange:
            try:
                if self._cors is not None and (origin := exchange.header(b"origin")) is not None:
                    exchange.more_headers = self._cors.headers(origin)
                    if await self._cors.preflight(exchange):
                        return
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
        if exchange.method == "GET" and exchange.path.startswith(USAGE + "/") and exchange.path.endswith(PROOF):
            return self._proof
        if exchange.method == "GET" and exchange.path.startswith(INVOICES + "/"):
            return self._invoice
        if exchange.method == "GET" and exchange.path.startswith(CREDIT_NOTES + "/"):
            return self._credit_note
        raise RouteNotFound(f"There is no {exchange.method[:16]} {exchange.path[:200]} here.")

    async def _refuse(self, exchange: Exchange, error: TokencapError) -> None:
        self._counters.add(REFUSALS, error.code or "")
        try:
            was_read = await exchange.drop_body(self._dropping)
        except CallerGone:
            return
        close_header = [] if was_read else [("connection", "close")]
        dialect = self._dialects.get(exchange.path)
        payload = error.body() if dialect is None else dialect.refusal(error, exchange.request_id)
        await exchange.reply(error.status, payload, [*error.headers.items(), *close_header])

    def _not_served(self, why: str) -> Handler:
        async def refuse(exchange: Exchange) -> None:
            await self._customer_of(exchange, OF_CALLS)
            raise RouteNotFound(why)

        return refuse

    async def _models(self, exchange: Exchange) -> None:
        await self._customer_of(exchange, OF_MODELS)
        models = [self._shown(name) for name in self._names]
        page = {"has_more": False, "first_id": models[0]["id"], "last_id": models[-1]["id"]}
        await exchange.reply(200, {"object": "list", "data": models, **page})

    async def _model(self, exchange: Exchange) -> None:
        await self._customer_of(exchange, OF_MODELS)
        name = unquote(exchange.path.removeprefix(MODELS + "/"))  # a name may have slashes, escaped or not
        if name not in self._names:
            raise ModelNotFound(f"The model {name[:64]!r} is not served here.", param="model")
        await exchange.reply(200, self._shown(name))

    def _shown(self, name: str) -> dict[str, Any]:
        """Return a model with the fields that the clients of OpenAI and of Anthropic read."""
        created = datetime.fromtimestamp(self._started_s, UTC).isoformat().replace("+00:00", "Z")
        openai = {"id": name, "object": "model", "created": self._started_s, "owned_by": "tokencap"}
        return {**openai, "type": "model", "display_name": name, "created_at": created}

    async def _account(self, exchange: Exchange) -> None:
        await exchange.reply(200, await self._accounts.account(await self._customer_of(exchange)))

    async def _choose_tier(self, exchange: Exchange) -> None:
        customer = await self._customer_of(exchange)
        key = await key_of(exchange, self._bucket_of_key)
        confirm = partial(self._accounts.customer, key.bucket, key.digest)
        raw = await self._intake.take(exchange, customer.id, confirm)
        body = await self._intake.read(raw, exchange, customer.id)
        if not self._rules.customers_choose_tier:
            raise TierChangeNotAllowed("The operator sets the tier here.")
        tier = body.get("tier")
        if not isinstance(tier, str):
            raise BadRequest("tier is the name of a tier.", code="invalid_type", param="tier")
        await asyncio.to_thread(self._self_service.choose, customer.id, tier)
        await exchange.reply(200, await self._accounts.account(await self._customer_of(exchange)))

    async def _usage(self, exchange: Exchange) -> None:
        customer = await self._customer_of(exchange, OF_USAGE)
        usage_query = UsageQuery.read(check_head(exchange, OF_USAGE))
        page = await asyncio.to_thread(
            self._self_service.usage,
            customer.id,
            usage_query.since,
            usage_query.until,
            usage_query.limit,
            usage_query.cursor,
            usage_query.end_user,
        )
        await exchange.reply(200, page)

    async def _refusals(self, exchange: Exchange) -> None:
        await exchange.reply(200, {"data": await self._accounts.refusals(await self._customer_of(exchange))})

    async def _proof(self, exchange: Exchange) -> None:
        customer = await self._customer_of(exchange)
        record_id = unquote(exchange.path.removeprefix(USAGE + "/").removesuffix(PROOF))
        await exchange.reply(200, await asyncio.to_thread(self._self_service.proof, customer.id, record_id))

    async def _invoices(self, exchange: Exchange) -> None:
        customer = await self._customer_of(exchange)
        await exchange.reply(200, await asyncio.to_thread(self._self_service.invoices, customer.id))

    async def _invoice(self, exchange: Exchange) -> None:
        customer = await self._customer_of(exchange)
        invoice_id = unquote(exchange.path.removeprefix(INVOICES + "/"))
        await exchange.reply(200, await asyncio.to_thread(self._self_service.invoice, customer.id, invoice_id))

    async def _prepaid(self, exchange: Exchange) -> None:
        customer = await self._customer_of(exchange)
        await exchange.reply(200, await asyncio.to_thread(self._self_service.prepaid, customer.id))

    async def _credit_notes(self, exchange: Exchange) -> None:
        customer = await self._customer_of(exchange, OF_PAGES)
        page = UsageQuery.read(check_head(exchange, OF_PAGES))
        notes = self._self_service.credit_notes
        await exchange.reply(200, await asyncio.to_thread(notes, customer.id, page.limit, page.cursor))

    async def _credit_note(self, exchange: Exchange) -> None:
        customer = await self._customer_of(exchange)
        note_id = unquote(exchange.path.removeprefix(CREDIT_NOTES + "/"))
        await exchange.reply(200, await asyncio.to_thread(self._self_service.credit_note, customer.id, note_id))

    async def _seals(self, exchange: Exchange) -> None:
        await self._customer_of(exchange, OF_PAGES)
        page = UsageQuery.read(check_head(exchange, OF_PAGES))
        await exchange.reply(200, await asyncio.to_thread(self._self_service.seals, page.limit, page.cursor))

    async def _organization(self, exchange: Exchange, *, is_costs: bool) -> None:
        customer = await self._customer_of(exchange, None)
        organization = self._self_service.organization
        await exchange.reply(200, await asyncio.to_thread(organization, customer.id, is_costs, exchange.query))

    async def _own_menu(self, exchange: Exchange) -> None:
        menu = await self._accounts.menu_of(await self._customer_of(exchange))
        if menu is None:
            raise RouteNotFound("No menu has been published yet.")
        await exchange.reply(200, menu.to_json())

    async def _menu(self, exchange: Exchange) -> None:
        check_head(exchange)
        menu = await self._accounts.menu()
        if menu is None:
            raise RouteNotFound("No menu has been published yet.")
        await exchange.reply(200, menu.to_json())

    async def _customer_of(self, exchange: Exchange, known: frozenset[str] | None = NONE) -> Customer:
        """Return the customer of a request's key; refuse repeated headers, and parameters that are not ``known``."""
        key = await key_of(exchange, self._bucket_of_key)
        customer = await self._accounts.customer(key.bucket, key.digest)
        check_head(exchange, known)
        return customer
