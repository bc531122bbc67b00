"""Calls with an Idempotency-Key: the call runs to its end once, and a repeated request gets the same answer."""

from __future__ import annotations

import json
from dataclasses import dataclass

from gateway.errors import BadRequest
from gateway.holds.hold import Once
from gateway.holds.idempotency_claims import Seal
from gateway.serving.call import Call
from gateway.serving.caller.exchange import Exchange
from gateway.serving.caller.headers import length_header, written

KEPT_MOST = 2**20
"""The most bytes of a kept answer; a longer answer is not kept, and its key is free again."""

NAME_MOST = 255


def name_of(exchange: Exchange) -> str | None:
    """Return a request's Idempotency-Key, or None where the request has none.

    Raises:
        BadRequest: the key is empty, too long or not printable.
    """
    name = exchange.header(b"idempotency-key")
    if name is not None and not (0 < len(name) <= NAME_MOST and name.isprintable()):
        raise BadRequest(f"An Idempotency-Key is 1 to {NAME_MOST} printable characters.", param="Idempotency-Key")
    return name


@dataclass(frozen=True, slots=True)
class IdempotentCall:
    """A claim on an Idempotency-Key, by the first call or by a repeated call, which has the kept answer."""

    digest: str
    seal: Seal
    body: str
    stored_answer: bytes | None

    @property
    def once(self) -> Once:
        return Once(self.digest, self.body)

    def to_keep(self, call: Call, recorded: bytes) -> Once:
        """Return the claim with two sealed answers: with and without the price of the conversation in the charge."""
        charge = call.live.hold.facts.charge(call.final_outcome)
        first, again = (self._sealed(call, recorded, amount) for amount in (charge.first, charge.again))
        return Once(self.digest, self.body, first, again)

    def _sealed(self, call: Call, recorded: bytes, charge_nanousd: int) -> bytes:
        headers, last = call.last(call.foreseen(charge_nanousd))
        body = recorded + last
        if len(body) > KEPT_MOST:
            return b""
        lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers or call.headers]
        head = {"type": call.content_type.decode(), "id": call.live.hold.id, "headers": lines}
        return self.seal.close(json.dumps(head).encode() + b"\n" + body)

    async def replay(self, exchange: Exchange) -> None:
        """Send the kept answer in one piece."""
        assert self.stored_answer is not None
        head, _, body = self.seal.open(self.stored_answer).partition(b"\n")
        envelope = json.loads(head)
        exchange.request_id = envelope["id"]
        headers = [(written(line), written(value)) for line, value in envelope["headers"]]
        headers += [(b"idempotency-replayed", b"true"), length_header(body)]
        await exchange.start(200, headers, written(envelope["type"]))
        await exchange.end(body)
