"""A chunked body is the same however its bytes are cut, and its lines, chunks and trailers are bounded."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import NotHttp
from gateway.runtime.http.chunked import Chunks
from gateway.runtime.http.limits import CHUNK_LINE_MAX, CHUNKS_FREE, TRAILER_BYTES_MAX, TRAILERS_MAX

GOOD = b'5\r\nHello\r\n1;a=b; c="d"\r\n,\r\n006\r\n world\r\n0 ;x\r\nAuthorization: Bearer x\r\nb: c\r\n\r\nGET'


def read(*pieces: bytes) -> tuple[bytes, bytes | None]:
    chunks, body, rest = Chunks(), b"", None
    for piece in pieces:
        if rest is not None:
            rest += piece
        else:
            more, rest = chunks.take(piece)
            body += more
    return body, rest


@given(st.lists(st.integers(0, len(GOOD)), max_size=8))
def test_where_it_is_cut_changes_nothing(places: list[int]) -> None:
    ends = [0, *sorted(places), len(GOOD)]

    assert read(*(GOOD[one:next_] for one, next_ in pairwise(ends))) == (b"Hello, world", b"GET")


def test_byte_by_byte_is_as_good() -> None:
    assert read(*(GOOD[place : place + 1] for place in range(len(GOOD)))) == (b"Hello, world", b"GET")


BAD = {
    "no length": b"\r\n",
    "a sign": b"+5\r\nHello\r\n0\r\n\r\n",
    "hexadecimal by name": b"0x5\r\nHello\r\n0\r\n\r\n",
    "a space first": b" 5\r\nHello\r\n0\r\n\r\n",
    "a space after": b"5 \r\nHello\r\n0\r\n\r\n",
    "no CR": b"5\nHello\r\n0\r\n\r\n",
    "no CR after the data": b"5\r\nHello\n0\r\n\r\n",
    "more than it says": b"5\r\nHello!\r\n0\r\n\r\n",
    "less than it says": b"5\r\nHell\r\n0\r\n\r\n",
    "absurd": b"F" * 17 + b"\r\n",
    "absurd zeros": b"0" * 100 + b"5\r\nHello\r\n",
    "a control character in an extension": b"5;a\x00\r\nHello\r\n0\r\n\r\n",
    "a line end in an extension": b"5;a\nb\r\nHello\r\n0\r\n\r\n",
    "a CR in an extension": b"5;a\rb\r\nHello\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"x" * (CHUNK_LINE_MAX + 1),
    "a trailer without a colon": b"0\r\nx\r\n\r\n",
    "a folded trailer": b"0\r\na: b\r\n c\r\n\r\n",
    "a trailer without CR": b"0\r\na: b\n\r\n",
    "many trailers": b"0\r\n" + b"a: b\r\n" * (TRAILERS_MAX + 1) + b"\r\n",
    "large trailers": b"0\r\n" + b"a: %b\r\n" % (b"x" * 1_000) * 5 + b"\r\n",
    "an endless trailer": b"0\r\na: " + b"x" * (TRAILER_BYTES_MAX + 1),
    "chunks of a byte": b"1\r\nx\r\n" * (CHUNKS_FREE * 2),
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
def test_what_are_no_chunks_is_refused(raw: bytes) -> None:
    with pytest.raises(NotHttp):
        read(raw)
    with pytest.raises(NotHttp):
        read(*(raw[place : place + 1] for place in range(len(raw))))
