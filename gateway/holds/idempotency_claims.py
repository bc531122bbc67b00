"""Claims on Idempotency-Keys: one call at a time may use a key, and its answer is kept for a day.

A kept answer is sealed with a key derived from the caller's API key, which the gateway forgets once the call is over.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import IdempotencyInProgress, IdempotencyKeyReused
from gateway.holds.hold import Facts, Once
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import text, translated
from gateway.holds.store.connection import RedisConnection
from gateway.holds.store.scripts import Script

NONCE = 12


@dataclass(frozen=True, slots=True)
class Seal:
    """Seals and opens the answers of a key, and distinguishes its request bodies."""

    secret: bytes

    @classmethod
    def of(cls, api_key: str, digest: str) -> Seal:
        """Return the seal of one Idempotency-Key under one API key."""
        return cls(hmac.digest(api_key.encode(), b"tokencap kept answer " + digest.encode(), "sha256"))

    def body(self, raw: bytes) -> str:
        """Return a digest of a body; the digest means nothing without the API key."""
        return hmac.new(self.secret, raw, hashlib.sha256).hexdigest()

    def close(self, answer: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + AESGCM(self.secret).encrypt(nonce, answer, None)

    def open(self, sealed: bytes) -> bytes:
        """Return the answer that was sealed.

        Raises:
            IdempotencyKeyReused: the answer was sealed under another API key.
        """
        try:
            return AESGCM(self.secret).decrypt(sealed[:NONCE], sealed[NONCE:], None)
        except InvalidTag as error:
            raise IdempotencyKeyReused("This Idempotency-Key was used with another API key.") from error


def key_digest(endpoint: str, idempotency_key: str) -> str:
    """Return the digest by which Redis knows an Idempotency-Key of a route."""
    return hashlib.sha256(f"{endpoint}\n{idempotency_key}".encode()).hexdigest()[:32]


class IdempotencyClaims:
    """Claims, renews and frees Idempotency-Keys for calls.

    Raises:
        MeteringUnavailable: Redis is unavailable, from every method.
    """

    def __init__(self, connection: RedisConnection, lease_ms: int) -> None:
        self._connection = connection
        self._lease_ms = lease_ms
        self._claim = Script("claim")
        self._unclaim = Script("unclaim")
        self._keep = Script("keep_claim")

    async def claim(self, bucket: str, customer: str, digest: str, body: str, call: str) -> bytes | None:
        """Claim a key for a call, or return the sealed answer that was kept for it.

        A claim lasts two leases unless it is renewed: the claim of a dead worker lapses with its holds.

        Raises:
            IdempotencyKeyReused: the key was used with another body, or with another API key.
            IdempotencyInProgress: another call with the key is still running.
        """
        with translated():
            reply = await self._claim.run(
                self._connection, [redis_keys.once(bucket, customer, digest)], [body, call, 2 * self._lease_ms]
            )
        match text(reply[0]):
            case "kept":
                answer: bytes = reply[1]
                return answer
            case "other":
                raise IdempotencyKeyReused(
                    "This Idempotency-Key was used for another request.", param="Idempotency-Key"
                )
            case "running":
                raise IdempotencyInProgress("The same request is still running.", headers={"retry-after": "1"})
        return None

    async def free(self, bucket: str, customer: str, digest: str, call: str) -> None:
        """Free a key whose call was not admitted."""
        with translated():
            await self._unclaim.run(self._connection, [redis_keys.once(bucket, customer, digest)], [call])

    async def renew(self, live: Iterable[tuple[Facts, Once]]) -> None:
        """Extend the claims of live calls, and claim again where Redis' clock let a claim expire."""
        with translated():
            await asyncio.gather(*(self._renew(facts, once) for facts, once in live))

    async def _renew(self, facts: Facts, once: Once) -> None:
        names = [redis_keys.once(facts.bucket, facts.customer, once.digest), redis_keys.inflight(facts.bucket)]
        await self._keep.run(self._connection, names, [once.body, facts.id, 2 * self._lease_ms])
