"""An answer that each upstream client hands over in the same turn of the event loop in which it arrives."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import UpstreamTimeout, UpstreamUnavailable
from tests.gateway.serving.clients import HEAD, PATIENCE_S, SHORT_S, WHOLE, Make, client, post
from tests.gateway.serving.endpoint import Peer, endpoint, says


async def test_a_reset_while_an_answer_is_poured_is_told_after_what_came(make: Make) -> None:
    arrived, pieces = asyncio.Event(), []

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n")
        await arrived.wait()
        peer.reset()

    def take(piece: bytes) -> bool:
        pieces.append(piece)
        arrived.set()
        return True

    async with endpoint(talk) as far, client(make, far) as transport:
        reply = await post(transport)
        with pytest.raises(UpstreamUnavailable):
            await reply.pour(take, PATIENCE_S, PATIENCE_S)

        assert pieces == [b"{}"]


async def test_what_goes_wrong_with_a_piece_is_told_to_who_has_it_poured(make: Make) -> None:
    def take(piece: bytes) -> bool:
        raise ZeroDivisionError

    async with endpoint(says(WHOLE)) as far, client(make, far) as transport:
        reply = await post(transport)
        with pytest.raises(ZeroDivisionError):
            await reply.pour(take, PATIENCE_S, PATIENCE_S)
        await reply.aclose()


async def test_what_is_poured_has_its_patience(make: Make) -> None:
    """There is a time limit for the first piece, and another for the following pieces."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(HEAD + b"content-length: 2\r\n\r\n" + (b"{" if peer.number == 2 else b""))
        await peer.reader.read(1)

    def take(piece: bytes) -> bool:
        return True

    async with endpoint(talk) as far, client(make, far) as transport:
        for patience in ((SHORT_S, PATIENCE_S), (PATIENCE_S, SHORT_S)):
            reply = await post(transport)
            with pytest.raises(UpstreamTimeout):
                await reply.pour(take, *patience)
            await reply.aclose()
