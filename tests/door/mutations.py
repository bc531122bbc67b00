"""Makes new requests from the corpus: bytes flipped, headers doubled, sizes changed, requests spliced."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from random import Random

from tests.door.corpus import Case, Names, cases, themes

SIZE_MOST = 3_000
"""The most bytes of a case that is mutated: the point of a larger case is its size."""

PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b":",
        b" ",
        b"\t",
        b",",
        b";",
        b"\r\n\r\n",
        b"\n\n",
        b"\xff",
        b"%2f",
        b"#",
        b"?",
        b"/",
    ),
    *(b"0\r\n\r\n", b"\r\n0\r\n\r\n", b"chunked", b"ffffffff", b"-1", b"99999999999999999999", b"{", b"[", b'"'),
    *(b"Content-Length: 0\r\n", b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"Transfer-Encoding: identity\r\n"),
    *(b"X-Conversation-Id: stolen\r\n", b"Idempotency-Key: k\r\n", b" folded\r\n", b"Host: y\r\n", b"HTTP/1.0\r\n"),
    *(b"GET /v1/account HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"),
)
"""Bytes that are inserted somewhere."""

Change = Callable[[Random, bytes], bytes]


def mutated(chance: Random, names: Names) -> bytes:
    """Return one or several requests with a few changes; the same for the same chance and names."""
    raw = _base(chance, names)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
        raw = chance.choice(CHANGES)(chance, raw)
    if chance.random() < 0.15:
        raw = _spliced(chance, raw, _base(chance, names))
    if chance.random() < 0.15:
        raw += _base(chance, names)
    return raw


def cut(chance: Random, raw: bytes) -> list[bytes]:
    """Return the same bytes in one to four pieces."""
    places = sorted(chance.randrange(len(raw) + 1) for _ in range(chance.choice((0, 0, 1, 1, 2, 3))))
    return [raw[start:end] for start, end in zip((0, *places), (*places, len(raw)), strict=True)]


@cache
def _bases() -> tuple[Case, ...]:
    names = Names("k" * 46, "k" * 46, "a" * 43, "m" * 40, "m" * 33)
    return tuple(case for theme in themes() for case in cases(theme) if 0 < len(case.raw(names)) <= SIZE_MOST)


def _base(chance: Random, names: Names) -> bytes:
    return chance.choice(_bases()).raw(names)


def _flipped(chance: Random, raw: bytes) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 4))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _replaced(chance: Random, raw: bytes) -> bytes:
    place = chance.randrange(len(raw) + 1)
    return raw[:place] + chance.randbytes(1) + raw[place + 1 :]


def _inserted(chance: Random, raw: bytes) -> bytes:
    place = chance.randrange(len(raw) + 1)
    return raw[:place] + chance.choice(PIECES) + raw[place:]


def _inserted_line(chance: Random, raw: bytes) -> bytes:
    ends = [found.end() for found in re.finditer(rb"\r\n", raw)] or [0]
    place = chance.choice(ends)
    return raw[:place] + chance.choice(PIECES) + raw[place:]


def _without(chance: Random, raw: bytes) -> bytes:
    start = chance.randrange(len(raw) + 1)
    return raw[:start] + raw[start + chance.choice((1, 1, 2, 5, 30)) :]


def _doubled_line(chance: Random, raw: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    place = chance.randrange(len(lines))
    lines.insert(chance.randrange(len(lines) + 1), lines[place])
    return b"\r\n".join(lines)


def _reordered(chance: Random, raw: bytes) -> bytes:
    head, end, body = raw.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    chance.shuffle(headers)
    return b"\r\n".join([line, *headers]) + end + body


def _other_size(chance: Random, raw: bytes) -> bytes:
    """Change a number, such as a length, the size of a chunk, or a version."""
    numbers = list(re.finditer(rb"(?<=[: \n])[0-9a-fA-F]{1,8}(?=[\r;])", raw))
    if not numbers:
        return raw
    found = chance.choice(numbers)
    value = chance.choice((0, 1, 5, int(found[0], 16) + 1, max(0, int(found[0], 16) - 1), 10**6, 2**32, 2**64))
    return raw[: found.start()] + (b"%x" if chance.random() < 0.5 else b"%d") % value + raw[found.end() :]


def _other_ends(chance: Random, raw: bytes) -> bytes:
    """Replace the end of a line."""
    ends = [found.start() for found in re.finditer(rb"\r\n", raw)]
    if not ends:
        return raw
    place = chance.choice(ends)
    return raw[:place] + chance.choice((b"\n", b"\r", b"\r\r\n", b"\r\n ", b" \r\n", b"")) + raw[place + 2 :]


def _short(chance: Random, raw: bytes) -> bytes:
    return raw[: chance.randrange(len(raw) + 1)]


def _in_other_letters(chance: Random, raw: bytes) -> bytes:
    start = chance.randrange(len(raw) + 1)
    return raw[:start] + raw[start : start + 12].swapcase() + raw[start + 12 :]


def _spliced(chance: Random, first: bytes, second: bytes) -> bytes:
    return first[: chance.randrange(len(first) + 1)] + second[chance.randrange(len(second) + 1) :]


CHANGES: tuple[Change, ...] = (
    *(_flipped, _flipped, _replaced, _inserted, _inserted, _inserted_line, _inserted_line, _without),
    *(_doubled_line, _reordered, _other_size, _other_size, _other_ends, _short, _in_other_letters),
)
