"""Plays cases of the corpus: sends their bytes in pieces, then makes calls on the same and on another connection."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import cycle, pairwise
from types import TracebackType
from typing import Self

from tests.door.answers import Answer, Answers, BrokenAnswer, ConnectionEnded
from tests.door.corpus import Case, Expected, GoesOn, Names, without_interim
from tests.door.front_ends import DIRECT
from tests.door.house import CALLERS, METRICS_TOKEN, Found, House, Pair, Sent

PATIENCE_S = 20.0
SINGLE_MOST = 600
"""How many bytes of a case are sent one by one; the rest follows in pieces, since single bytes would take too long."""
PIECE = 8_192
EDGE = 300
"""How many places at each end of a case are all cut; between them the case is cut at about as many even places."""

GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"

Way = Callable[[str, str], tuple[bytes, int]]
"""Makes an ordinary request from a key and a mark, and says how many calls it is."""

Places = Callable[[int], Iterable[Sequence[int]]]
"""Maps a length to the ways to cut it: each item is one way to deliver the bytes."""


def whole(_: int) -> Iterable[Sequence[int]]:
    """In one piece."""
    yield ()


def in_bytes(length: int) -> Iterable[Sequence[int]]:
    """Byte by byte."""
    yield (*range(1, min(length, SINGLE_MOST)), *range(SINGLE_MOST, length, PIECE))


def everywhere(length: int) -> Iterable[Sequence[int]]:
    """In two pieces, at each place (in the middle of a long case, at evenly spaced places)."""
    inner = range(EDGE, max(EDGE, length - EDGE), max(1, (length - 2 * EDGE) // EDGE))
    places = {*range(1, min(EDGE, length)), *range(max(1, length - EDGE + 1), length), *inner}
    yield from ((place,) for place in sorted(places))


def sampled(count: int, seed: int) -> Places:
    """In two pieces, at ``count`` random places."""

    def places(length: int) -> Iterable[Sequence[int]]:
        chance = random.Random(f"{seed} {length}")
        ways = list(everywhere(length))
        yield from chance.sample(ways, min(count, len(ways)))

    return places


def play(house: House, route: str, cases: Sequence[Case], places: Places) -> Found:
    """Play ``cases`` through ``route``, with ``CALLERS`` callers at a time, and compare."""
    found = Found()
    with house.compared(found), ThreadPoolExecutor(CALLERS) as threads:
        shares = [cases[number::CALLERS] for number in range(CALLERS)]
        for part in threads.map(
            lambda it: _share(house, route, it[0], it[1], places), zip(house.pairs, shares, strict=True)
        ):
            found.add(part)
    return found


def _share(house: House, route: str, pair: Pair, cases: Sequence[Case], places: Places) -> Found:
    with Player(house, route, pair) as player:
        for case in cases:
            for cuts in places(len(case.raw(player.names("m" + "0" * 32)))):
                player.play(case, cuts)
    return player.found


class Player:
    """One caller on one route, with a neighbour on a separate kept connection."""

    def __init__(self, house: House, route: str, pair: Pair) -> None:
        self.found = Found()
        self._house = house
        self._kind = route.partition("-")[0]
        self._route = route
        self._pair = pair
        self._stack = ExitStack()
        self._ways = cycle((_account, call_of, _account, _stream))
        self._beside: tuple[socket.socket, Answers] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def names(self, mark: str) -> Names:
        """Return the values of a case's macros."""
        return Names(
            key=self._pair.caller.key,
            other=self._pair.victim.key,
            admin=self._house.admin_token,
            metrics=METRICS_TOKEN,
            mark=mark,
        )

    def play(self, case: Case, cuts: Sequence[int]) -> None:
        """Send a case, compare its answers with the expected ones, then make the neighbour's call."""
        expected = case.expected(self._kind)
        if self._kind != DIRECT:
            expected = without_interim(expected)
        mark = self._house.new_mark(self._pair)
        what = f"{case.theme}: {case.name} ({self._route}, cut at {_said(cuts)})"
        self.found.plays += 1
        self.found.sent[mark] = Sent(frozenset({self._pair.caller.id}), what, expected.calls, expected.records)
        raw = case.raw(self.names(mark))
        is_refused = not case.direct.goes_on or any(answer >= "4" for answer in expected.answers)
        may_end = self._kind != DIRECT and is_refused
        with self._connected() as connection:
            answers = Answers(connection)
            try:
                self._send(
                    connection, [raw[start:end] for start, end in pairwise((0, *cuts, len(raw)))], ends=case.ends
                )
                self._read(answers, expected, mark, what)
                self._then(connection, answers, expected.goes_on, what, may_end=may_end)
            except (ConnectionEnded, TimeoutError, BrokenAnswer) as error:
                self._breach(what, f"{type(error).__name__} {error}, after {bytes(answers.raw[-400:])!r}")
        self.beside(what)

    def _read(self, answers: Answers, expected: Expected, mark: str, what: str) -> None:
        waiting: Answer | None = None
        for place, wanted in enumerate(expected.answers):
            status, *rest = wanted.split()
            answer = waiting or answers.next(is_to_head="head" in rest)
            while self._kind != DIRECT and answer.status == 100:
                answer = answers.next(is_to_head="head" in rest)
            if status == "100" != str(answer.status) and place + 1 < len(expected.answers):
                waiting = answer  # no 100 is needed once some of the body was sent
                continue
            waiting = None
            self.found.requests += answer.status >= 200
            self.found.statuses[answer.status] += 1
            if wrong := self._judged(answer, status, [word for word in rest if word != "head"], mark):
                self._breach(what, f"{wanted!r} was to come, and {wrong}: {bytes(answers.raw[-400:])!r}")

    def _judged(self, answer: Answer, status: str, rest: list[str], mark: str) -> str | None:
        """Return what is wrong with an answer to the caller."""
        if str(answer.status) != status:
            return f"{answer.status} came"
        for whose in rest:
            if re.fullmatch(r"c\d+", whose):
                if answer.headers.get("x-tokencap-conversation") != f"{mark}-{whose}":
                    return "it is of another call"
                self.found.answered[answer.headers["x-request-id"]] = mark
            elif whose == "call":
                self.found.answered[answer.headers["x-request-id"]] = mark
            elif whose == "account":
                if (answer.json or {}).get("customer") != self._pair.caller.id:
                    return "it is not the caller's account"
            elif answer.code != whose:
                return f"its code is {answer.code}"
        return None

    def _then(self, connection: socket.socket, answers: Answers, goes_on: GoesOn, what: str, *, may_end: bool) -> None:
        """Check the state of the connection after the answers.

        A front end may close a connection if it received the answer before it had read the whole body.
        """
        if goes_on == "waits":
            self._barrier()
            early = answers.waiting()
            if early and not (self._kind != DIRECT and early == GO_ON):
                self._breach(what, f"it was to wait, and {early[:300]!r} came")
        elif goes_on == "unread":
            return
        elif goes_on and may_end:
            try:
                self._innocent(connection, answers, what + ", the next request on the connection", _account)
            except ConnectionEnded as end:
                if str(end):
                    raise
        elif goes_on:
            self._innocent(connection, answers, what + ", the next call on the connection", next(self._ways))
        elif rest := answers.rest():
            self._breach(what, f"the connection was to end, and {rest[:300]!r} came")

    def beside(self, what: str) -> None:
        """Make the neighbour's call on its own kept connection."""
        try:
            self._innocent(*self._neighbour(), what + ", a call on another connection", next(self._ways))
        except (ConnectionEnded, TimeoutError, BrokenAnswer) as error:
            self._breach(what, f"a neighbour's call came to {type(error).__name__} {error}")
            self._beside = None

    def _neighbour(self) -> tuple[socket.socket, Answers]:
        """Return the neighbour's connection, which is kept between cases."""
        if self._beside is None:
            connection = self._stack.enter_context(self._connected())
            self._beside = connection, Answers(connection)
        return self._beside

    def _innocent(self, connection: socket.socket, answers: Answers, what: str, way: Way) -> None:
        """Send an ordinary request and judge its answer."""
        mark, neighbour = self._house.new_mark(self._pair), self._pair.neighbour
        raw, calls = way(neighbour.key, mark)
        self.found.sent[mark] = Sent(frozenset({neighbour.id}), what, calls, calls)
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(raw)
        answer = answers.next()
        self.found.requests += 1
        if answer.status != 200:
            self._breach(what, f"{answer.status} came: {answer.body[:300]!r}")
        elif calls:
            if answer.headers.get("x-tokencap-conversation") != mark:
                self._breach(what, f"the answer of another call came: {answer.headers}")
            else:
                self.found.answered[answer.headers["x-request-id"]] = mark
        elif (answer.json or {}).get("customer") != neighbour.id:
            self._breach(what, f"another account came: {answer.body[:300]!r}")

    def _send(self, connection: socket.socket, pieces: Sequence[bytes], *, ends: bool) -> None:
        """Send the pieces; where there are two, the server has read the first before the second is sent."""
        try:
            for number, piece in enumerate(pieces):
                if number and len(pieces) == 2:
                    self._barrier()
                connection.sendall(piece)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server has closed already; its answer is read next

    def _barrier(self) -> None:
        """Return once the server's event loop has read the bytes sent so far: it has answered a later request."""
        connection, answers = self._neighbour()
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        if (status := answers.next().status) != 200:
            self._breach("a neighbour's GET /livez", f"{status} came")

    def _connected(self) -> socket.socket:
        host, _, port = self._house.addresses[self._route].partition(":")
        connection = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _breach(self, what: str, wrong: str) -> None:
        self.found.breaches.append(f"{what}: {wrong}")


def _account(key: str, mark: str) -> tuple[bytes, int]:
    return f"GET /v1/account HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode(), 0


def call_of(key: str, mark: str, more: str = "") -> tuple[bytes, int]:
    """Return an ordinary call in the conversation ``mark``, and the number of calls, 1."""
    body = f'{{"model":"aligned-1","messages":[{{"role":"user","content":"{mark}"}}],"max_tokens":3{more}}}'
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"X-Conversation-Id: {mark}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode(), 1


def _stream(key: str, mark: str) -> tuple[bytes, int]:
    return call_of(key, mark, ',"stream":true')


def _said(cuts: Sequence[int]) -> str:
    return ", ".join(map(str, cuts[:3])) + (", …" if len(cuts) > 3 else "") if cuts else "no place"
