"""Reads the head of a request in the only way that all servers read it; a head with two readings is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from gateway.errors import HeadersTooLarge, NotHttp, UrlTooLong
from gateway.runtime.http.limits import FIELD_NAME_MAX, FIELDS_MAX, REQUEST_LINE_MAX

REQUEST_LINE = re.compile(
    rb"([A-Z][A-Z-]{0,23}) (/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*+)(?:\?([!\"$-~]*+))? HTTP/1\.([01])"
)
WHOLE_URL = re.compile(rb"([A-Z][A-Z-]{0,23}) [Hh][Tt][Tt][Pp]://([^/?#@ ]+)(/[^ ]* HTTP/1\.[01])")
"""A request line as clients send it to a proxy; a server has to accept it as well (RFC 9112, 3.2.2)."""

FIELD = re.compile(rb"([!#$%%&'*+.^_`|~0-9A-Za-z-]{1,%d}+):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)" % FIELD_NAME_MAX)
"""A header: a name, a colon with no space before it, and a value without control characters."""

OF_A_CLIENT = frozenset(
    {b"host", b"connection", b"accept", b"accept-encoding", b"accept-language", b"content-type", b"user-agent"}
)
"""Headers that describe a program, not its user: they are the same on every call, and remembered as parsed."""

REMEMBERED_MAX, REMEMBERED_BYTES_MAX = 1_000, 128

BEGINNING = re.compile(rb"[A-Z][A-Z-]{0,23}(?: |\Z)")
"""The beginning of an unfinished request line."""

HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
LENGTH = re.compile(rb"[0-9]{1,15}")
NEEDLESS = re.compile(rb"%(?:[01][0-9A-Fa-f]|2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEeFf])")
"""Needless escapes, and escapes of control characters."""

KEPT = re.compile(r"(%2[Ff]|%5[Cc])")
"""Escapes of slashes: a path with an escaped slash is another path than with the slash itself."""

ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
"""Headers that a request may have only once."""


Fields = list[tuple[bytes, bytes]]

_remembered: dict[bytes, tuple[bytes, bytes]] = {}


@dataclass(slots=True)
class Head:
    """A request without its body."""

    method: str
    path: str
    """The path without escapes, except those of slashes."""

    raw_path: bytes
    query: bytes
    version: str
    headers: Fields
    length: int | None
    """The length of the body in bytes; None where it is chunked."""

    keeps_alive: bool
    waits_to_go_on: bool
    """Whether the caller waits for ``100 Continue`` before the body."""


def read_head(raw: bytes, head_max: int) -> Head:
    """Return a parsed head; the empty line that ends it is left out.

    Raises:
        UrlTooLong, HeadersTooLarge: the head is over a limit.
        NotHttp: the bytes are no head, or another server may read them differently.
    """
    lines = raw.split(b"\r\n")
    if len(raw) > head_max or len(lines[0]) > REQUEST_LINE_MAX:
        raise _too_large(lines[0], head_max)
    if len(lines) > FIELDS_MAX + 1:
        raise HeadersTooLarge(f"A request has at most {FIELDS_MAX} headers.")
    line, authority = lines[0], None
    match = REQUEST_LINE.fullmatch(line)
    if match is None and (absolute := WHOLE_URL.fullmatch(line)) is not None:
        authority = absolute[2]
        match = REQUEST_LINE.fullmatch(b"%b %b" % (absolute[1], absolute[3]))
    if match is None:
        raise NotHttp(_wrong_request_line(line))
    headers = [_remembered.get(line) or _field(line) for line in lines[1:]]
    method, raw_path, query, minor = match.groups()
    head = Head(
        method.decode("ascii"),
        raw_path.decode("ascii") if b"%" not in raw_path else _decoded(raw_path),
        raw_path,
        query or b"",
        "1.1" if minor == b"1" else "1.0",
        headers,
        0,
        minor == b"1",
        False,
    )
    _frame(head)
    if authority is not None and authority.lower() != dict(headers).get(b"host", b"").lower():
        raise NotHttp("The host of the URL is the one that the header Host names.")
    return head


def check_beginning(raw: bytes | bytearray, checked: int, head_max: int) -> None:
    """Refuse an unfinished head, of which ``checked`` bytes were checked before, as soon as it cannot become valid.

    Raises:
        UrlTooLong, HeadersTooLarge, NotHttp: see ``read_head``.
    """
    new = raw[checked - 1 if checked and raw[checked - 1 : checked] == b"\r" else checked :]
    ends = new.count(b"\r\n")
    if new.count(b"\n") != ends or new.count(b"\r") != ends + new.endswith(b"\r"):
        raise NotHttp("A line of the head ends otherwise than by CR LF.")
    if checked < 25 and not BEGINNING.match(raw):
        raise NotHttp("A request begins with its method in capitals.")
    if len(raw) > head_max or checked <= REQUEST_LINE_MAX < len(raw):
        line = bytes(raw[: REQUEST_LINE_MAX + 2]).partition(b"\r\n")[0]
        if len(line) > REQUEST_LINE_MAX or len(raw) > head_max:
            raise _too_large(line, head_max)


def is_field(line: bytes) -> bool:
    """Return whether a line is a header, or a trailer."""
    return FIELD.fullmatch(line) is not None


def _too_large(request_line: bytes, head_max: int) -> UrlTooLong | HeadersTooLarge:
    if len(request_line) > REQUEST_LINE_MAX:
        return UrlTooLong(f"A request line has at most {REQUEST_LINE_MAX} bytes.")
    return HeadersTooLarge(f"The head of a request has at most {head_max} bytes.")


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Return the name of a header, in lower case, and its value."""
    match = FIELD.fullmatch(line)
    if match is None:
        name, colon, _ = line.partition(b":")
        if colon and len(name) > FIELD_NAME_MAX:
            raise HeadersTooLarge(f"The name of a header has at most {FIELD_NAME_MAX} bytes.")
        raise NotHttp("A header is a name, a colon with no space before it, and a value, on one line ended by CR LF.")
    field = match[1].lower(), match[2].rstrip(b" \t")
    if len(line) <= REMEMBERED_BYTES_MAX and (field[0] in OF_A_CLIENT or field[0].startswith(b"x-stainless-")):
        if len(_remembered) >= REMEMBERED_MAX:
            _remembered.clear()
        _remembered[line] = field
    return field


def _decoded(raw_path: bytes) -> str:
    """Return a path without its escapes, except those of slashes."""
    if (needless := NEEDLESS.search(raw_path)) is not None:
        raise NotHttp(f"A path is written without {needless[0].decode('ascii')}.")
    try:
        parts = KEPT.split(raw_path.decode("ascii"))
        return "".join(part if number % 2 else unquote(part, errors="strict") for number, part in enumerate(parts))
    except UnicodeDecodeError as error:
        raise NotHttp("What is escaped in a path is UTF-8.") from error


def _frame(head: Head) -> None:
    """Set the connection's and the body's fields of a head from its headers; contradictions are refused."""
    headers = dict(head.headers)
    if len(headers) != len(head.headers):
        names = [name for name, _ in head.headers]
        if repeated := [name for name in ONCE if names.count(name) > 1]:
            raise NotHttp(f"{repeated[0].decode('ascii')} stands in a request once.")
        headers[b"connection"] = b",".join(value for name, value in head.headers if name == b"connection")
    if (connection := headers.get(b"connection", b"").lower()) not in (b"", b"keep-alive"):
        head.keeps_alive = head.keeps_alive and b"close" not in [
            token.strip(b" \t") for token in connection.split(b",")
        ]
    if head.version == "1.1" and b"host" not in headers:
        raise NotHttp("A request of HTTP/1.1 has a Host.")
    if not HOST.fullmatch(headers.get(b"host", b"")):
        raise NotHttp("The Host of a request is a name or an address, and may have a port.")
    length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
    if coding is not None:
        if length is not None or head.version == "1.0" or coding.lower() != b"chunked":
            raise NotHttp("Transfer-Encoding is chunked, in HTTP/1.1, and without Content-Length.")
        head.length = None
    elif length is not None:
        if not LENGTH.fullmatch(length):
            raise NotHttp("Content-Length is a number of bytes.")
        head.length = int(length)
    expected = headers.get(b"expect", b"").lower()
    head.waits_to_go_on = expected == b"100-continue" and head.length != 0 and head.version == "1.1"


def _wrong_request_line(line: bytes) -> str:
    method, _, rest = line.partition(b" ")
    target, _, version = rest.rpartition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        return "A request is of HTTP/1.1 or HTTP/1.0."
    if method == b"CONNECT" or not target.startswith(b"/"):
        return "The target of a request is a path, or http://, the host that Host names, and a path."
    return "A request line is a method in capitals, a path as RFC 3986 allows it, and a version, with single spaces."
