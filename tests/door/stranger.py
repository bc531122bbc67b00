"""Sends mutated requests over kept connections and judges the answers, without knowing what the requests mean."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

from tests.door.answers import Answer, Answers, BrokenAnswer, ConnectionEnded
from tests.door.front_ends import DIRECT, ROUTES
from tests.door.house import MARK, Found, House, Pair, Sent
from tests.door.mutations import cut, mutated
from tests.door.player import Player, call_of

SILENCE_S = 0.3
"""How long a connection may be silent before it is given up, as it waits for more bytes. No verdict depends on it."""

CONVERSATIONS = re.compile(rb"(?i:\r\nx-tokencap-conversation: [^\r]*)")

FRONT_END_SAYS = re.compile(rb"<center>nginx|<html><body><h1>[45]\d\d")
"""Matches the error pages that nginx and HAProxy write themselves."""


def storm(house: House, numbers: Iterable[int], seed: int, routes: Sequence[str] = ROUTES) -> Found:
    """Send the mutated requests with these numbers over kept connections of each route, and compare."""
    found = Found()
    strangers = [(route, pair) for pair in house.pairs for route in routes]
    shares: list[list[int]] = [[] for _ in strangers]
    for place, number in enumerate(numbers):
        shares[place % len(shares)].append(number)
    with house.compared(found), ThreadPoolExecutor(len(house.pairs)) as threads:
        for part in threads.map(
            lambda it: _share(house, it[0][0], it[0][1], it[1], seed), zip(strangers, shares, strict=True)
        ):
            found.add(part)
    return found


def _share(house: House, route: str, pair: Pair, numbers: Sequence[int], seed: int) -> Found:
    with Stranger(house, route, pair) as stranger:
        for number in numbers:
            stranger.send(number, seed)
    return stranger.found


class Stranger(Player):
    """A caller whose requests may be anything, on a connection that is kept as long as the server keeps it."""

    def __init__(self, house: House, route: str, pair: Pair) -> None:
        super().__init__(house, route, pair)
        self._here: tuple[socket.socket, Answers] | None = None
        self._marks: set[str] = set()
        """The marks sent on the current connection."""

    def send(self, number: int, seed: int) -> None:
        """Send the request with this number, an ordinary call behind it, and the neighbour's call beside it."""
        chance, mark = Random(f"{seed} {number}"), self._house.new_mark(self._pair)
        pieces = cut(chance, mutated(chance, self.names(mark)))
        what = f"mutation {number} of seed {seed} ({self._route})"
        self.found.plays += 1
        self.found.sent[mark] = Sent(self._pair.customers, what, None, None)
        if self._here is None:
            connection = self._stack.enter_context(self._connected())
            connection.settimeout(SILENCE_S)
            self._here, self._marks = (connection, Answers(connection)), set()
        self._marks.add(mark)
        connection, answers = self._here
        goes_on = False
        try:
            goes_on = self._exchange(connection, answers, pieces, what)
        except TimeoutError:  # the server waits for more
            self.found.hung_up |= self._marks
        except ConnectionEnded:
            pass
        except BrokenAnswer as error:
            self._breach(what, f"what came is no answer: {error}")
        if not goes_on:
            connection.close()
            self._here = None
        self.beside(what)

    def _exchange(self, connection: socket.socket, answers: Answers, pieces: Sequence[bytes], what: str) -> bool:
        """Send a mutated request and a call behind it, and judge the answers; return whether the connection goes on."""
        mark = self._house.new_mark(self._pair)
        self._marks.add(mark)
        behind, _ = call_of(self._pair.neighbour.key, mark)
        self.found.sent[mark] = Sent(frozenset({self._pair.neighbour.id}), f"{what}, a call behind it", None, None)
        self._send(connection, [*pieces, behind], ends=False)
        if b"HEAD" in b"".join(pieces):  # then it is unknown which of the answers have a body
            self._judge_bytes(answers, what)
            return False
        while True:
            answer = answers.next()
            self.found.requests += answer.status >= 200
            self.found.statuses[answer.status] += 1
            if wrong := self._suspicion(answer):
                self._breach(what, f"{wrong}: {answer.status} {answer.headers} {answer.body[:200]!r}")
            if answer.headers.get("x-tokencap-conversation") == mark:
                return not answer.closes

    def _judge_bytes(self, answers: Answers, what: str) -> None:
        try:
            answers.rest()
        except TimeoutError:
            self.found.hung_up |= self._marks
        if self._strange(b"".join(CONVERSATIONS.findall(answers.raw))):
            self._breach(what, f"another connection's answer: {bytes(answers.raw[:400])!r}")

    def _suspicion(self, answer: Answer) -> str | None:
        """Return what is wrong with an answer to any request, or None."""
        is_front_ends = self._route != DIRECT and FRONT_END_SAYS.search(answer.body) is not None
        if answer.status >= 500 and answer.status != 503 and not is_front_ends:
            return "a fault of the house"
        if self._strange(answer.headers.get("x-tokencap-conversation", "").encode()):
            return "another connection's answer"
        if "x-request-id" in answer.headers and self._of_others(answer.body):  # the admin API shows all customers
            return "another customer's records"
        customer = answer.json.get("customer") if isinstance(answer.json, dict) else None
        return None if customer is None or customer in self._pair.customers else "another customer's account"

    def _strange(self, answer: bytes) -> set[str]:
        """Return the marks in the received bytes that were sent on other connections."""
        return ({found.decode() for found in MARK.findall(answer)} - self._marks) & self._house.marks.keys()

    def _of_others(self, answer: bytes) -> bool:
        """Return whether the received bytes contain marks that other customers sent."""
        return any(
            self._house.marks.get(found.decode(), self._pair) is not self._pair for found in MARK.findall(answer)
        )
