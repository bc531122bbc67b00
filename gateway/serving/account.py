"""The account as its customer sees it: tier, period, spend, and the next change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from gateway.clock import written
from gateway.errors import CustomerBlocked, InvalidKey
from gateway.holds.offer import HouseLimits, Offer, offer, raised
from gateway.holds.store import redis_keys
from gateway.holds.store.cache import LookupCache
from gateway.holds.store.clients import text, translated
from gateway.holds.store.connection import RedisConnection
from gateway.holds.store.packing import WINDOW, WindowState
from gateway.holds.store.refusal_log import refusals_of
from gateway.holds.terms import Customer, Standing, period_of, standing
from pricing.menus.menu import Menu, own_prices, own_version


class SelfService(Protocol):
    """A customer's reads of the ledger, and its choice of tier. The methods block, so they run in a thread."""

    def choose(self, customer_id: str, tier: str) -> None:
        """Give the customer a tier, or raise TierNotFound."""

    def usage(
        self,
        customer_id: str,
        since: int | None,
        until: int | None,
        limit: int,
        cursor: str | None,
        end_user: str | None,
    ) -> Any:
        """Return a page of the usage records of the customer, or of one of its end users."""

    def invoices(self, customer_id: str) -> Any:
        """Return the customer's invoices: final ones, and drafts of its open months."""

    def invoice(self, customer_id: str, invoice_id: str) -> Any:
        """Return an invoice of the customer, or raise RouteNotFound."""

    def prepaid(self, customer_id: str) -> Any:
        """Return the remaining prepaid credit of the customer."""

    def credit_notes(self, customer_id: str, limit: int, cursor: str | None) -> Any:
        """Return a page of the customer's credit notes, by number."""

    def credit_note(self, customer_id: str, note_id: str) -> Any:
        """Return a credit note of the customer, or raise RouteNotFound."""

    def proof(self, customer_id: str, record_id: str) -> Any:
        """Return the proof of a record of the customer, or raise RouteNotFound or NotSealedYet."""

    def seals(self, limit: int, cursor: str | None) -> Any:
        """Return a page of the ledger's seals, newest first."""

    def organization(self, customer_id: str, is_costs: bool, query: str) -> Any:
        """Return the customer's usage or costs by buckets of time, by the query string of the request."""


class Accounts:
    """Reads accounts and the published menu, each time from Redis.

    Args:
        in_force: checks a bucket, and returns whether the bucket was in force all the time.
    """

    def __init__(
        self,
        connection: RedisConnection,
        cache: LookupCache,
        house: HouseLimits,
        now_ms: Callable[[], int],
        in_force: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._in_force = in_force
        self._connection = connection
        self._cache = cache
        self._house = house
        self._now_ms = now_ms

    async def customer(self, bucket: str, digest: str) -> Customer:
        """Return the customer of a key.

        Raises:
            InvalidKey: the key is unknown, revoked or expired.
            CustomerBlocked: the operator has blocked the customer.
            MeteringUnavailable: Redis is unavailable.
        """
        with translated():
            customer = await self._whose(bucket, digest)
            if customer is None:  # the bucket may be in a rebuild from the ledger
                await self._in_force(bucket)
                customer = await self._whose(bucket, digest)
        if customer is None:
            raise InvalidKey
        if customer.status != "active":
            raise CustomerBlocked("This customer is blocked.")
        return customer

    async def _whose(self, bucket: str, digest: str) -> Customer | None:
        customer_id, expires = await self._connection.execute(
            "HMGET", redis_keys.api_key(bucket, digest), "customer", "expires"
        )
        if not customer_id or (expires and int(expires) <= self._now_ms()):
            return None
        return await self._cache.customer(text(customer_id), fresh=True)

    async def account(self, customer: Customer) -> dict[str, Any]:
        """Return the account as ``GET /v1/account`` shows it; for each limit, used + held + remaining = max.

        Raises:
            MeteringUnavailable: Redis is unavailable, or the customer's bucket is being rebuilt.
        """
        with translated():
            account = await self._account(customer)
            if not await self._in_force(redis_keys.bucket_of(customer.id)):
                account = await self._account(customer)  # the bucket may have been partly rebuilt
        return account

    async def _account(self, customer: Customer) -> dict[str, Any]:
        now = self._now_ms()
        current = standing(customer, await self._cache.read_timeline(), now)
        menu = await self._cache.menu(current.version) if current.version else None
        tier = menu.tier(current.tier) if menu and current.tier else None
        terms = raised(offer(tier, current.version, customer.overrides, self._house), customer.raised(now))
        own = own_prices(customer.overrides)
        start, end = period_of(customer, now)
        name = redis_keys.window(redis_keys.bucket_of(customer.id), customer.id, start)
        window = WindowState.read(await self._connection.execute("HMGET", name, *WINDOW))
        return {
            "customer": customer.id,
            "tier": current.tier,
            "menu_version": current.version and own_version(current.version, own),
            "bill": menu.bill if menu else None,
            "conversation_tokens_max": _cap(tier, terms),
            "period": {
                "start": written(start),
                "end": written(end),
                "tokens_max": terms.period_tokens_max,
                "tokens_used": window.used,
                "tokens_held": window.held,
                "tokens_remaining": _remaining(terms.period_tokens_max, window.used, window.held),
            },
            "spend": {
                "max_nanousd": terms.spend_nanousd_max,
                "used_nanousd": window.spend_used,
                "held_nanousd": window.spend_held,
                "remaining_nanousd": _remaining(terms.spend_nanousd_max, window.spend_used, window.spend_held),
            },
            "own_prices": own or None,
            "increase": _increase(customer, now),
            "next": _next(current),
        }

    async def refusals(self, customer: Customer) -> list[dict[str, Any]]:
        """Return the customer's last refusals, newest first."""
        return await refusals_of(self._connection, customer.id)

    async def menu_of(self, customer: Customer) -> Menu | None:
        """Return the menu that a customer chooses from, with the customer's own prices; None before any publication."""
        with translated():
            current = standing(customer, await self._cache.read_timeline(), self._now_ms())
            menu = await self._cache.menu(current.version) if current.version else None
        return None if menu is None else menu.with_prices(own_prices(customer.overrides))

    async def menu(self) -> Menu | None:
        """Return the menu that is in force for new customers, or None before the first publication.

        Customers in an arm of an experiment have another menu: ``menu_of``.
        """
        with translated():
            timeline = await self._cache.read_timeline()
            if not timeline.publications:
                return None
            return await self._cache.menu(timeline.publications[-1].version)


def _cap(tier: object, terms: Offer) -> int | None:
    return None if tier is None else terms.conversation_tokens_max


def _remaining(most: int | None, used: int, held: int) -> int | None:
    return None if most is None else most - used - held


def _increase(customer: Customer, now: int) -> dict[str, Any] | None:
    increase = customer.increase
    if increase is None or now >= increase.until:
        return None
    return {"limits": increase.limits, "until": written(increase.until)}


def _next(current: Standing) -> dict[str, Any] | None:
    if current.next is None:
        return None
    change = current.next
    return {"tier": change.tier, "menu_version": change.version, "effective": written(change.effective)}
