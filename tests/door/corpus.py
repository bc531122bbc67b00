"""Reads the corpus: raw requests as text, and the expected result of each.

Each file of ``corpus/`` is a theme, and each ``[[case]]`` in it is a connection:

* ``name`` says what is special about the case.
* ``send`` is the text to send. By default it is built from ``line`` (a chat completion), ``head`` (the host and
  ``${me c1}``), ``with`` (more headers), and ``body`` (``${chat}``). A ``Content-Length`` is added unless ``with``
  frames the body. A ``line`` without ``body`` has no body unless it is a ``POST``. ``then`` is sent after the request.
* Line breaks of the text are sent as CR LF; ``\\n``, ``\\r``, ``\\t``, ``\\0``, ``\\xff`` and ``\\\\`` are
  the bytes that they name. ``${key}`` is the caller's API key and ``${other}`` another customer's; ``${admin}`` and
  ``${metrics}`` are the operator's tokens; ``${me c1}`` is the caller's ``Authorization`` and an ``X-Conversation-Id``
  that is known as ``c1``, ``${c1}`` that conversation's name alone; ``${mark}`` is a word that the model must receive.
  ``${chat}`` is the body of that name in ``bodies.toml``, ``${size chat}`` its length, ``${hex chat}`` its length as a
  chunk's size is written; ``${length}`` is the length of the body that follows, to the end or to ``${end}``;
  ``${many 3 a}`` is ``aaa``.
* ``answers`` are the answers in their order, each a status and, where known, what it belongs to: ``200 c1`` is the call
  of that conversation, ``200 account`` the caller's account, ``400 invalid_json`` a refusal with that code. An interim
  answer (``100``) may be missing if another answer follows.
* ``goes_on`` (true) says whether another request may follow on the connection: ``false`` means that it is closed,
  ``"waits"`` that the server waits for the rest of a request, ``"unread"`` that a front end switches protocols.
* ``calls`` is how many calls reach the model (by default the answers of conversations), ``records`` how many are on
  record (by default as many as calls).
* ``nginx`` and ``haproxy`` say what differs behind that front end, which refuses or changes some requests on its own.
* ``ends`` (false) says that the caller sends nothing more afterwards, as ``shutdown`` of a socket does.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

CORPUS = Path(__file__).parent / "corpus"
BODIES = "bodies"

KEYS = frozenset(
    {
        *("name", "send", "line", "head", "with", "body", "then", "ends"),
        *("answers", "goes_on", "calls", "records", "nginx", "haproxy"),
    }
)

GoesOn = bool | Literal["waits", "unread"]

LINE = "POST /v1/chat/completions HTTP/1.1"
HEAD = ["Host: x", "${me c1}"]
_FRAMED = ("content-length", "transfer-encoding")

_MACRO = re.compile(r"\$\{([^}]+)\}")
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}
_LENGTH, _END = "\ue000".encode(), "\ue001".encode()
_CONVERSATION = re.compile(r"c\d+")


@dataclass(frozen=True)
class Expected:
    """The expected result of a case."""

    answers: tuple[str, ...]
    goes_on: GoesOn
    calls: int
    records: int


@dataclass(frozen=True)
class Names:
    """The values of a case's macros when it is played."""

    key: str
    other: str
    admin: str
    metrics: str
    mark: str

    def conversation(self, name: str) -> str:
        """Return the id of the conversation ``name``."""
        return f"{self.mark}-{name}"


@dataclass(frozen=True)
class Case:
    """A connection: what is sent, and the expected result, directly and behind each kind of front end."""

    theme: str
    name: str
    send: str
    direct: Expected
    behind: Mapping[str, Expected]
    ends: bool

    def expected(self, kind: str) -> Expected:
        """Return the expected result behind a front end of this kind."""
        return self.behind.get(kind, self.direct)

    def raw(self, names: Names) -> bytes:
        """Return the bytes that are sent."""
        text = _MACRO.sub(lambda found: _meant(found[1], names), self.send.replace("\n", "\r\n"))
        return _measured(_ESCAPE.sub(lambda found: _escaped(found[1]), text.encode()))


def _measured(raw: bytes) -> bytes:
    """Replace each placeholder of a length by the length of the body that follows it."""
    while _LENGTH in raw:
        before, _, after = raw.partition(_LENGTH)
        body = after.partition(b"\r\n\r\n")[2].partition(_END)[0]
        raw = b"%b%d%b" % (before, len(body), after)
    return raw.replace(_END, b"")


@cache
def themes() -> tuple[str, ...]:
    """Return the names of the corpus' files."""
    return tuple(sorted(path.stem for path in CORPUS.glob("*.toml") if path.stem != BODIES))


@cache
def cases(theme: str) -> tuple[Case, ...]:
    """Return the cases of one file, in its order."""
    return tuple(_case(theme, entry) for entry in _read(theme)["case"])


def _case(theme: str, entry: Mapping[str, Any]) -> Case:
    direct = _expected(entry, {"goes_on": True})
    plain = {"answers": list(direct.answers), "goes_on": direct.goes_on, "calls": direct.calls}
    behind = {}
    for kind in ("nginx", "haproxy"):
        if kind in entry:
            other = entry[kind]
            behind[kind] = _expected(other, plain if "answers" not in other else {"goes_on": direct.goes_on})
    unknown = entry.keys() - KEYS
    assert not unknown, f"{theme}: {entry['name']}: {unknown}"
    send = entry["send"] if "send" in entry else _put_together(entry)
    return Case(theme, entry["name"], send, direct, behind, entry.get("ends", False))


def _put_together(entry: Mapping[str, Any]) -> str:
    line = entry.get("line", LINE)
    more = entry.get("with", [])
    body = entry.get("body", "${chat}" if line.startswith("POST") else None)
    if body is not None and not any(header.lower().startswith(_FRAMED) for header in more):
        more = [*more, "Content-Length: ${length}"]
    lines = [line, *entry.get("head", HEAD), *more]
    return "\n".join(lines) + "\n\n" + (body or "") + "${end}" + entry.get("then", "")


def _expected(entry: Mapping[str, Any], otherwise: Mapping[str, Any]) -> Expected:
    fields = {**otherwise, **entry}
    answers = tuple(fields["answers"])
    calls = fields.get("calls", sum(bool(_CONVERSATION.search(answer)) for answer in answers))
    return Expected(answers, fields["goes_on"], calls, fields.get("records", calls))


def _meant(macro: str, names: Names) -> str:
    word, _, rest = macro.partition(" ")
    if word == "me":
        return f"Authorization: Bearer {names.key}\r\nX-Conversation-Id: {names.conversation(rest)}"
    if word in ("length", "end"):
        return (_LENGTH if word == "length" else _END).decode()
    if word == "size":
        return str(len(_sent(_body(rest), names)))
    if word == "hex":
        return f"{len(_sent(_body(rest), names)):x}"
    if word == "many":
        count, _, unit = rest.partition(" ")
        return unit * int(count)
    if _CONVERSATION.fullmatch(word):
        return names.conversation(word)
    if word in ("key", "other", "admin", "metrics", "mark"):
        return str(getattr(names, word))
    return _MACRO.sub(lambda found: _meant(found[1], names), _body(word))


def _sent(body: str, names: Names) -> bytes:
    text = _MACRO.sub(lambda found: _meant(found[1], names), body)
    return _ESCAPE.sub(lambda found: _escaped(found[1]), text.encode())


def _escaped(escape: bytes) -> bytes:
    if escape[:1] == b"x" and len(escape) == 3:
        return bytes([int(escape[1:], 16)])
    return _ESCAPES[escape]


def _body(name: str) -> str:
    text: str = _read(BODIES)[name]
    return text.replace("\n", "\r\n")


@cache
def _read(name: str) -> dict[str, Any]:
    read: dict[str, Any] = tomllib.loads((CORPUS / f"{name}.toml").read_text("utf-8"))
    return read


def without_interim(expected: Expected) -> Expected:
    """Return the same without ``100``, which a front end may send or hold back."""
    return replace(expected, answers=tuple(answer for answer in expected.answers if answer != "100"))
