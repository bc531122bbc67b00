"""The tests that an upstream client must pass: the same for the gateway's own pool and for httpx."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.deadlines import Deadlines
from gateway.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from gateway.serving.upstream.endpoint import Endpoint
from gateway.serving.upstream.httpx_transport import Proxied
from gateway.serving.upstream.pool import Pool
from gateway.serving.upstream.transport import Transport
from tests.certificates import certified
from tests.gateway.serving.clients import BODY, HEAD, PATIENCE_S, SHORT_S, WHOLE, Make, Read, all_of, client, pool, post
from tests.gateway.serving.endpoint import Far, Peer, endpoint, says
from tests.servers import free_ports


@pytest.fixture(params=["pool", "httpx"])
def each(request: pytest.FixtureRequest) -> Callable[[Endpoint], Transport]:
    """Each client of an endpoint in turn."""
    if request.param == "pool":
        return lambda far: Pool(far, ssl.create_default_context(), Deadlines(0.05))
    return lambda far: Proxied(far, None)


async def test_a_request_is_what_it_has_to_be_and_one_connection_carries_many(make: Make) -> None:
    seen = []

    async def talk(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.say(WHOLE)

    async with endpoint(talk) as far, client(make, far) as transport:
        for _ in range(3):
            reply = await post(transport)
            assert (reply.status, reply.header("content-type"), await all_of(reply)) == (200, "application/json", b"{}")
            assert reply.header("retry-after") is None

        head, body = seen[-1]
        lines = head.decode().lower().splitlines()
        assert lines[0] == "post /v1/chat/completions http/1.1"
        assert {
            "content-type: application/json",
            "authorization: bearer secret",
            "x-request-id: req_1",
            "x-own: yes",
        } <= set(lines)
        assert f"host: {far.url.split('/')[2]}" in lines
        assert (body, len(seen), far.connections) == (BODY, 3, 1)


@pytest.mark.parametrize(
    "raw",
    [
        WHOLE,
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD
        + b"Transfer-Encoding: Chunked\r\n\r\n1;name=value\r\n{\r\n01\r\n}\r\n0\r\nx-checksum: 1\r\nx-more: 2\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE,
        b"HTTP/1.1 102 Processing\r\nx: y\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + WHOLE,
        HEAD + b"content-length: 2\r\nx-folded: a\r\nx-folded: b\r\nSet-Cookie: a=b\r\n\r\n{}",
    ],
    ids=["length", "chunked", "trailers", "continue", "hints", "repeated header"],
)
@pytest.mark.parametrize("is_torn", [False, True], ids=["in one piece", "in bytes"])
async def test_every_framing_is_read_and_leaves_the_connection_good(
    make: Make, read: Read, raw: bytes, is_torn: bool
) -> None:
    parts = [raw[place : place + 1] for place in range(len(raw))] if is_torn else [raw]
    async with endpoint(says(*parts)) as far, client(make, far) as transport:
        for _ in range(2):
            reply = await post(transport)
            assert (reply.status, await read(reply)) == (200, b"{}")

        assert far.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"\r\n{}",
        HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\n\r\n{}",
        HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["until the end", "close", "1.0", "close, chunked"],
)
async def test_an_answer_that_ends_with_its_connection_is_whole(make: Make, read: Read, raw: bytes) -> None:
    async with endpoint(says(raw, closes=True)) as far, client(make, far) as transport:
        for _ in range(2):
            assert await read(await post(transport)) == b"{}"

        assert far.connections == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        HEAD + b"content-length: two\r\n\r\n{}",
    ],
    ids=["nothing", "half a head", "no http", "only a continue", "a length that is none"],
)
async def test_what_is_no_answer_is_the_upstreams_failure(make: Make, raw: bytes) -> None:
    async with endpoint(says(raw, closes=True)) as far, client(make, far) as transport:
        with pytest.raises(UpstreamUnavailable):
            await post(transport)


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"content-length: 3\r\n\r\n{}",
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["too short", "no last chunk", "half an end", "a size that is none"],
)
async def test_an_answer_that_is_not_whole_is_not_taken_for_one(make: Make, read: Read, raw: bytes) -> None:
    async with endpoint(says(raw, closes=True)) as far, client(make, far) as transport:
        with pytest.raises(UpstreamUnavailable):
            await read(await post(transport))


async def test_a_reset_in_the_middle_gives_what_came_and_then_the_failure(make: Make) -> None:
    arrived = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n")
        await arrived.wait()
        peer.reset()

    async with endpoint(talk) as far, client(make, far) as transport:
        reply = await post(transport)
        assert await reply.chunk(PATIENCE_S) == b"{}"
        arrived.set()

        with pytest.raises(UpstreamUnavailable):
            await reply.chunk(PATIENCE_S)


async def test_a_request_is_never_sent_twice(make: Make) -> None:
    """A kept connection breaks after the request was sent and read: nobody knows whether the server acted on it."""
    seen = []

    async def talk(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.say(WHOLE)
        seen.append(await peer.request())

    async with endpoint(talk) as far, client(make, far) as transport:
        await all_of(await post(transport))
        with pytest.raises(UpstreamUnavailable):
            await post(transport)

        assert (len(seen), far.connections) == (2, 1)


async def test_a_kept_connection_that_the_server_closed_is_replaced_before_anything_is_sent(make: Make) -> None:
    closed = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(WHOLE)
        peer.writer.close()
        await peer.writer.wait_closed()
        closed.set()

    async with endpoint(talk) as far, client(make, far) as transport:
        for number in range(1, 4):
            assert await all_of(await post(transport)) == b"{}"
            await closed.wait()
            closed.clear()
            await asyncio.sleep(0.03)
            assert far.connections == number


async def test_what_is_said_unasked_is_nobodys_answer() -> None:
    """Only the pool promises this: httpx takes such bytes for the answer to the next request."""
    answered = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(WHOLE)
        if peer.number == 1:
            await peer.say(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 3\r\n\r\nlie")
            answered.set()
            await peer.reader.read(1)

    async with endpoint(talk) as far, client(pool, far) as transport:
        assert await all_of(await post(transport)) == b"{}"
        await answered.wait()
        await asyncio.sleep(0.05)
        reply = await post(transport)

        assert (reply.status, await all_of(reply), far.connections) == (200, b"{}", 2)


async def test_an_answer_that_comes_before_the_request_was_read_is_heard(make: Make) -> None:
    async def talk(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\n{}")
        await peer.reader.read(-1)

    async with endpoint(talk) as far, client(make, far) as transport:
        reply = await post(transport, b"x" * 2**24)

        assert (reply.status, await all_of(reply)) == (413, b"{}")


async def test_a_server_that_closes_its_half_after_the_answer_is_answered_from(make: Make) -> None:
    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(WHOLE)
        peer.writer.write_eof()
        await peer.reader.read(-1)

    async with endpoint(talk) as far, client(make, far) as transport:
        for number in range(1, 3):
            assert await all_of(await post(transport)) == b"{}"
            await asyncio.sleep(0.05)
            assert far.connections == number


async def test_leaving_an_answer_closes_its_connection(make: Make) -> None:
    closed = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n")
        await peer.reader.read(1)
        closed.set()

    async with endpoint(talk) as far, client(make, far) as transport:
        reply = await post(transport)
        assert await reply.chunk(PATIENCE_S) == b"{}"
        await reply.aclose()

        await asyncio.wait_for(closed.wait(), PATIENCE_S)


async def test_giving_up_on_a_head_closes_its_connection(make: Make) -> None:
    requested, closed = asyncio.Event(), asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        requested.set()
        await peer.reader.read(1)
        closed.set()

    async with endpoint(talk) as far, client(make, far) as transport:
        asking = asyncio.create_task(post(transport))
        await requested.wait()
        asking.cancel()

        await asyncio.wait_for(closed.wait(), PATIENCE_S)


async def test_each_phase_has_its_patience(make: Make) -> None:
    async def talk(peer: Peer) -> None:
        await peer.request()
        if peer.number == 2:
            await peer.say(HEAD + b"content-length: 2\r\n\r\n{")
        await peer.reader.read(1)

    async with endpoint(talk) as far, client(make, far) as transport:
        with pytest.raises(UpstreamTimeout):
            await post(transport, patience_s=SHORT_S)
        reply = await post(transport)
        assert await reply.chunk(PATIENCE_S) == b"{"
        with pytest.raises(UpstreamTimeout):
            await reply.chunk(SHORT_S)
        await reply.aclose()


async def test_nobody_there_is_told_at_once(make: Make) -> None:
    [port] = free_ports(1)
    far = Far()
    far.url = f"http://127.0.0.1:{port}/v1"
    async with client(make, far) as transport:
        with pytest.raises(UpstreamUnavailable):
            await post(transport)


async def test_a_certificate_is_verified(make: Make, tmp_path: Path) -> None:
    certificates = certified(tmp_path)
    async with endpoint(says(WHOLE), certificates.context()) as far, client(make, far) as transport:
        with pytest.raises(UpstreamUnavailable):
            await post(transport)


async def test_tls_carries_what_is_verified(tmp_path: Path) -> None:
    certificates = certified(tmp_path)
    trusting = ssl.create_default_context(cafile=certificates.authority)
    async with endpoint(says(WHOLE), certificates.context()) as far:
        transport = Pool(Endpoint(far.url), trusting, Deadlines())
        for _ in range(2):
            assert await all_of(await post(transport, b"x" * 100_000)) == b"{}"
        assert far.connections == 1
        await transport.aclose()


async def test_calls_at_once_have_a_connection_each_and_later_ones_use_them_again(make: Make) -> None:
    everyone = asyncio.Barrier(20)

    async def talk(peer: Peer) -> None:
        while True:
            await peer.request()
            await everyone.wait()
            await peer.say(WHOLE)

    async with endpoint(talk) as far, client(make, far) as transport:
        for _ in range(3):
            replies = await asyncio.gather(*(post(transport) for _ in range(20)))
            assert [await all_of(reply) for reply in replies] == [b"{}"] * 20

        assert far.connections == 20


async def test_a_reader_who_is_slow_slows_the_upstream_and_takes_in_only_so_much(make: Make, read: Read) -> None:
    size, sent = 64 * 2**20, 0

    async def talk(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        peer.writer.write(HEAD + b"content-length: %d\r\n\r\n" % size)
        while sent < size:
            peer.writer.write(b"x" * 2**16)
            sent += 2**16
            await peer.writer.drain()

    async with endpoint(talk) as far, client(make, far) as transport:
        reply = await post(transport)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < size / 2

        assert len(await read(reply)) == size


@pytest.mark.parametrize(
    "raw", [b"\x00" * 100, b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"]
)
async def test_a_failure_is_one_of_ours(raw: bytes) -> None:
    """The pool turns any bytes into one of the gateway's errors. (httpx takes the last example for an answer.)"""
    async with endpoint(says(raw, closes=True)) as far, client(pool, far) as transport:
        with pytest.raises(UpstreamError):
            await all_of(await post(transport))


def test_an_endpoint_with_https_is_verified_by_the_authorities_that_are_known() -> None:
    """The authorities are read once for all calls of an endpoint; an endpoint with ``http`` trusts none."""
    known, nobody = Endpoint("https://model/v1"), Endpoint("http://model/v1")

    assert known.tls is known.tls
    assert known.tls.cert_store_stats()["x509_ca"] > 0
    assert nobody.tls.cert_store_stats()["x509_ca"] == 0
    for tls in (known.tls, nobody.tls):
        assert tls.check_hostname
        assert tls.verify_mode is ssl.CERT_REQUIRED


async def test_the_operators_query_and_headers_reach_the_endpoint(each: Callable[[Endpoint], Transport]) -> None:
    """Azure needs its version in the query and its key in another header; operators' headers override callers'."""
    seen = []

    async def talk(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.say(WHOLE)

    async with endpoint(talk) as far:
        more = {"x-team": "blue", "anthropic-beta": "ours"}
        transport = each(Endpoint.of(far.url + "/?api-version=2024-10-21", "secret", "api-key", more))
        reply = await transport.post("/chat/completions", BODY, "1", {"anthropic-beta": "theirs"}, PATIENCE_S)
        assert await all_of(reply) == b"{}"
        await transport.aclose()

    lines = seen[0][0].decode().lower().splitlines()
    assert lines[0] == "post /v1/chat/completions?api-version=2024-10-21 http/1.1"
    assert {"api-key: secret", "x-team: blue", "anthropic-beta: ours"} <= set(lines)
    assert not [line for line in lines if line.startswith("authorization") or "theirs" in line]
