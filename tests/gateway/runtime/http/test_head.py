"""A head is read in one way or refused, and whatever is taken is what two other parsers read."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import h11
import httptools
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.errors import HeadersTooLarge, NotHttp, TokencapError, UrlTooLong
from gateway.runtime.http import head as http_head
from gateway.runtime.http.head import Head, check_beginning, read_head

MOST = 32_768


def head(*lines: bytes, line: bytes = b"POST /v1/x HTTP/1.1", host: bytes = b"Host: here") -> bytes:
    return b"\r\n".join([line, *([host] if host else []), *lines])


def read(raw: bytes) -> Head:
    return read_head(raw, MOST)


REFUSED = {
    "a method in small letters": head(line=b"post / HTTP/1.1"),
    "no version": head(line=b"GET /"),
    "another version": head(line=b"GET / HTTP/1.2"),
    "a later version": head(line=b"GET / HTTP/2.0"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0",
    "two spaces": head(line=b"GET  / HTTP/1.1"),
    "a space at the end": head(line=b"GET / HTTP/1.1 "),
    "a tab": head(line=b"GET\t/ HTTP/1.1"),
    "a space in the path": head(line=b"GET /a b HTTP/1.1"),
    "a URL with another host": head(line=b"GET http://there/v1/x HTTP/1.1"),
    "a URL with another port": head(line=b"GET http://here:81/v1/x HTTP/1.1"),
    "a URL with a user": head(line=b"GET http://a@here/v1/x HTTP/1.1"),
    "a URL of another scheme": head(line=b"GET https://here/v1/x HTTP/1.1"),
    "a URL without a path": head(line=b"GET http://here HTTP/1.1"),
    "a URL with a needless escape": head(line=b"GET http://here/v1/%63hat HTTP/1.1"),
    "a URL in HTTP/1.0 without a host": head(line=b"GET http://here/v1/x HTTP/1.0", host=b""),
    "an asterisk": head(line=b"OPTIONS * HTTP/1.1"),
    "CONNECT": head(line=b"CONNECT here:80 HTTP/1.1"),
    "a fragment": head(line=b"GET /v1/x#y HTTP/1.1"),
    "a fragment in the query": head(line=b"GET /v1/x?y#z HTTP/1.1"),
    "a backslash": head(line=b"GET /v1\\x HTTP/1.1"),
    "a byte that is no ASCII": head(line=b"GET /v1/\xe4 HTTP/1.1"),
    "a needless escape": head(line=b"GET /v1/%63hat HTTP/1.1"),
    "escaped dots": head(line=b"GET /v1/%2e%2E/x HTTP/1.1"),
    "an escaped control character": head(line=b"GET /v1/x%00 HTTP/1.1"),
    "half an escape": head(line=b"GET /v1/x%2 HTTP/1.1"),
    "an escape that is not UTF-8": head(line=b"GET /v1/%ff HTTP/1.1"),
    "no host": head(host=b""),
    "two hosts": head(b"host: there"),
    "a host that is a path": head(host=b"Host: a/b"),
    "two hosts in one": head(host=b"Host: a, b c"),
    "a line end without CR": head(b"a: b\nc: d"),
    "a CR alone": head(b"a: b\rc: d"),
    "NUL": head(b"a: b\x00"),
    "DEL": head(b"a: b\x7f"),
    "a space before the colon": head(b"Content-Length : 5"),
    "a space before the name": head(b" Content-Length: 5"),
    "a folded header": head(b"a: b", b" c"),
    "no colon": head(b"abc"),
    "no name": head(b": b"),
    "a name that is no ASCII": head("ä: b".encode()),
    "two lengths": head(b"Content-Length: 5", b"Content-Length: 6"),
    "the same length twice": head(b"Content-Length: 5", b"content-length: 5"),
    "a list of lengths": head(b"Content-Length: 5, 5"),
    "a length with a sign": head(b"Content-Length: +5"),
    "a negative length": head(b"Content-Length: -5"),
    "a length with a space in it": head(b"Content-Length: 5 5"),
    "a length in hexadecimal": head(b"Content-Length: 0x5"),
    "an empty length": head(b"Content-Length:"),
    "an absurd length": head(b"Content-Length: " + b"9" * 30),
    "length and chunks": head(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "chunks in HTTP/1.0": head(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"),
    "another coding": head(b"Transfer-Encoding: gzip, chunked"),
    "a coding after chunks": head(b"Transfer-Encoding: chunked, identity"),
    "chunks twice": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "chunks with a control character": head(b"Transfer-Encoding: \x0bchunked"),
    "chunks in quotes": head(b'Transfer-Encoding: "chunked"'),
    "no coding": head(b"Transfer-Encoding:"),
    "identity": head(b"Transfer-Encoding: identity"),
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_what_may_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(NotHttp):
        read(raw)


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        (b"/", "/", b""),
        (b"/v1/models/org%2Fname", "/v1/models/org%2Fname", b""),
        (b"/a%5Cb", "/a%5Cb", b""),
        (b"/a%20b/%C3%A4%3A", "/a b/ä:", b""),
        (b'/a%2520b?c=%63&d="{|}"', "/a%20b", b'c=%63&d="{|}"'),
        (b"//v1/./x;y", "//v1/./x;y", b""),
    ],
)
def test_a_path_is_taken_as_it_is_written(raw: bytes, path: str, query: bytes) -> None:
    found = read(head(line=b"GET " + raw + b" HTTP/1.1"))

    assert (found.path, found.raw_path, found.query) == (path, raw.partition(b"?")[0], query)


def test_too_much_is_told_apart() -> None:
    """What is too long is 414 or 431, also where the end has not come."""
    with pytest.raises(UrlTooLong):
        read(head(line=b"GET /" + b"x" * 9_000 + b" HTTP/1.1"))
    with pytest.raises(UrlTooLong):
        check_beginning(b"GET /" + b"x" * 9_000, 0, MOST)
    with pytest.raises(HeadersTooLarge):
        read(head(b"a: " + b"x" * MOST))
    with pytest.raises(HeadersTooLarge):
        check_beginning(head(b"a: " + b"x" * MOST), 0, MOST)
    with pytest.raises(HeadersTooLarge):
        read(head(*[b"a: b"] * 100))
    with pytest.raises(HeadersTooLarge):
        read(head(b"x" * 257 + b": y"))
    assert len(read(head(*[b"a: b"] * 99)).headers) == 100


@pytest.mark.parametrize("raw", [b"get /", b"\x16\x03\x01", b"GET / HTTP/1.1\n", b"GET /\rHTTP", b"{}"])
def test_what_cannot_become_a_request_is_refused_before_its_end(raw: bytes) -> None:
    with pytest.raises(NotHttp):
        check_beginning(raw, 0, MOST)


def may_become_a_request(raw: bytes, seen: int) -> bool:
    try:
        check_beginning(raw, seen, MOST)
    except NotHttp:
        return False
    return True


@pytest.mark.parametrize("place", range(1, 60))
def test_a_beginning_is_never_refused_for_where_it_is_cut(place: int) -> None:
    raw = head(b"Content-Length: 5", b"a: b") + b"\r\n\r"

    assert may_become_a_request(raw[:place], 0)
    assert may_become_a_request(raw, place)


@pytest.mark.parametrize("secret", [b"authorization: Bearer tc-ab-secret", b"x-api-key: secret", b"Cookie: secret"])
def test_nothing_of_who_calls_is_remembered(secret: bytes) -> None:
    read(head(secret, b"user-agent: curl/8"))

    assert b"user-agent: curl/8" in http_head._remembered
    assert secret not in http_head._remembered


class _Llhttp:
    """What llhttp, in its strict mode, reads of a head."""

    def __init__(self, raw: bytes) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.version = ""
        self._parser: Any = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(raw + b"\r\n\r\n")
        except httptools.HttpParserUpgrade:
            pass

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.version = self._parser.get_http_version()


def _h11(raw: bytes) -> h11.Request:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    connection.receive_data(raw + b"\r\n\r\n")
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return event


NAMES = (b"Content-Length", b"Transfer-Encoding", b"Host", b"Upgrade", b"Connection", b"Expect", b"x")
VALUES = (b"chunked", b"h2c", b"5", b"+5", b"0", b",", b";", b"/", b"\xff")
BETWEEN = (b": ", b":", b" ", b"\t", b"\r\n", b"\n", b"\r", b"\x00", b"\x0b")
PIECES = st.sampled_from(NAMES + VALUES + BETWEEN)


@given(st.lists(PIECES, max_size=14).map(b"".join), st.sampled_from([b"1.1", b"1.0"]))
def test_what_is_taken_is_what_others_read(mutated: bytes, version: bytes) -> None:
    """Of heads that are nearly right: ours refuses, or llhttp and h11 read the same."""
    raw = b"POST /v1/x?y HTTP/" + version + b"\r\nhost: here\r\n" + mutated
    assume(b"\r\n\r\n" not in raw and not raw.endswith(b"\r\n"))
    found = None
    with suppress(TokencapError):
        found = read(raw)

    if found is not None:
        other, another = _Llhttp(raw), _h11(raw)
        assert other.headers == found.headers
        assert [(bytes(name), bytes(value)) for name, value in another.headers] == found.headers
        assert (other.url, other.version) == (b"/v1/x?y", found.version)
        assert (another.target, another.http_version.decode()) == (b"/v1/x?y", found.version)


@pytest.mark.parametrize(
    ("lines", "line", "keeps"),
    [
        ([], b"GET / HTTP/1.1", True),
        ([b"Connection: Keep-Alive"], b"GET / HTTP/1.1", True),
        ([b"Connection: x , Close"], b"GET / HTTP/1.1", False),
        ([b"Connection: close", b"Connection: keep-alive"], b"GET / HTTP/1.1", False),
        ([b"Connection: keep-alive"], b"GET / HTTP/1.0", False),
    ],
)
def test_a_connection_goes_on_unless_one_header_says_otherwise(lines: list[bytes], line: bytes, keeps: bool) -> None:
    assert read(head(*lines, line=line)).keeps_alive is keeps


def test_a_whole_url_is_the_same_request_as_its_path() -> None:
    """As a caller of a proxy sends it; a server takes it too (RFC 9112, 3.2.2)."""
    for host in (b"here", b"HERE", b"here:8080", b"[::1]:8080"):
        whole = read(head(line=b"GET http://%b/v1/x?y=1 HTTP/1.1" % host, host=b"Host: " + host.swapcase()))
        plain = read(head(line=b"GET /v1/x?y=1 HTTP/1.1", host=b"Host: " + host.swapcase()))

        assert whole == plain
