"""Finds the conversation that a call continues, by the tool call or cut answer that its caller sends back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from gateway.holds.store import redis_keys
from gateway.holds.store.cache import LookupCache
from gateway.holds.store.clients import text, translated
from gateway.holds.store.connection import RedisConnection
from gateway.holds.store.packing import ConversationState

KEPT_MS = 3_600_000
"""How long a thread is remembered after it was written or named again: as long as an idle conversation."""


class Threads:
    """Looks up threads, which the settlement of an answered call writes for an hour, and a rebuild writes again.

    Args:
        in_force: makes sure that a bucket is in force and returns whether it already was; if not, look up again.
    """

    def __init__(
        self, connection: RedisConnection, cache: LookupCache, in_force: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._connection = connection
        self._cache = cache
        self._in_force = in_force

    async def conversation(self, bucket: str, key_digest: str, threads: Sequence[str]) -> str | None:
        """Return the conversation of the key's customer to which ``threads`` lead.

        The answer is None where no thread is known, and ``""`` where the threads lead to several conversations.
        """
        if not threads:
            return None
        conversations = await self._led_to(bucket, key_digest, threads, self._read)
        return _agreed(
            [(thread, name) for thread, name in zip(threads, conversations, strict=True) if name is not None]
        )

    async def conversation_of_each(self, bucket: str, key_digest: str, threads: Sequence[str]) -> list[str | None]:
        """Return the conversation of each of ``threads``, None for a thread that is unknown or another customer's.

        Known threads are remembered for another hour.
        """
        return await self._led_to(bucket, key_digest, threads, self._read_and_keep)

    async def _led_to(
        self, bucket: str, key_digest: str, threads: Sequence[str], read: Callable[[list[str]], Awaitable[list[Any]]]
    ) -> list[str | None]:
        """Return the conversation of each thread. If no thread is known, Redis may be empty: restore it, read again."""
        with translated():
            conversations = await self._of_customer(bucket, key_digest, threads, read)
            if not any(name is not None for name in conversations) and not await self._in_force(bucket):
                conversations = await self._of_customer(bucket, key_digest, threads, read)
        return conversations

    async def _of_customer(
        self, bucket: str, key_digest: str, threads: Sequence[str], read: Callable[[list[str]], Awaitable[list[Any]]]
    ) -> list[str | None]:
        holder = await self._cache.holder(bucket, key_digest)
        if holder is None:
            return [None] * len(threads)
        values = await read([redis_keys.thread(bucket, holder[0], thread) for thread in threads])
        return [None if name is None else text(name) for name in values]

    async def _read(self, names: list[str]) -> list[Any]:
        values: list[Any] = await self._connection.execute("MGET", *names)
        return values

    async def _read_and_keep(self, names: list[str]) -> list[Any]:
        return await asyncio.gather(*(self._connection.execute("GETEX", name, "PX", KEPT_MS) for name in names))

    async def tokens_so_far(self, bucket: str, key_digest: str, conversation: str) -> int | None:
        """Return how many tokens were read and written in a customer's conversation, None where it is unknown.

        Each of its calls may have read the entire conversation again, so the number exceeds its length.
        """
        with translated():
            holder = await self._cache.holder(bucket, key_digest)
            if holder is None:
                return None
            name = redis_keys.conversation(bucket, holder[0], conversation)
            try:
                packed = await self._connection.execute("GET", name)
            except ResponseError:  # a hash, as the previous version writes it
                return sum(
                    int(tokens or 0) for tokens in await self._connection.execute("HMGET", name, "used", "input_used")
                )
        if packed is None:
            return None
        state = ConversationState.from_bytes(packed)
        return state.used + state.input_used


def _agreed(known: list[tuple[str, str]]) -> str | None:
    """Return the conversation that the tool calls agree on, else the conversation that the other threads agree on."""
    for is_tool in (True, False):
        named = {name for thread, name in known if name and thread.startswith("tool-") is is_tool}
        if len(named) == 1:
            return named.pop()
    return "" if known else None
