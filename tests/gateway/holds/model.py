"""The hold book as a page of plain Python: what every script must do, without Redis, time or strings.

It is written from the contract, not from the scripts. Nothing expires in it: the tests it is for are over in less than
a lease.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

PERCENTS = (33, 80, 100)
"""At which shares of a limit a notice is due."""


@dataclass
class Window:
    used: int = 0
    held: int = 0
    spend_used: int = 0
    spend_held: int = 0
    included: int = 0
    notices: set[tuple[str, int, int]] = field(default_factory=set)


@dataclass
class Conversation:
    tier: str
    cap: int
    used: int = 0
    held: int = 0
    input_used: int = 0
    input_held: int = 0
    is_charged: bool = False
    live: int = 0


@dataclass(frozen=True)
class Request:
    """A call as the reserve script is told of it."""

    id: str
    customer: str
    conversation: str
    tier: str
    cap: int
    price: int
    want: int
    choices: int
    grant_min: int
    input: int
    period_max: int | None
    input_max: int | None
    spend_max: int | None
    concurrency_max: int | None
    included: int
    money_first: int
    money_again: int
    end_user: str
    end_user_max: int | None


@dataclass
class Held:
    request: Request
    state: str
    grant: int
    tokens: int
    money: int
    input: int
    sofar: int = 0
    billed: int = 0


@dataclass
class Model:
    """The state of one bucket, and what each verb makes of it."""

    windows: dict[str, Window] = field(default_factory=lambda: defaultdict(Window))
    end_users: dict[tuple[str, str], Window] = field(default_factory=lambda: defaultdict(Window))
    conversations: dict[tuple[str, str], Conversation] = field(default_factory=dict)
    holds: dict[str, Held] = field(default_factory=dict)
    done: dict[str, list[Any]] = field(default_factory=dict)
    granted: dict[str, list[Any]] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    records: list[tuple[str, int]] = field(default_factory=list)
    notices: list[tuple[str, str, int, int, int]] = field(default_factory=list)
    """Whose settlement reached a threshold, which limit, percent, limit, used."""

    def reserve(self, request: Request) -> list[Any]:
        """Return ``granted`` with grant, allowed, what is left, whether charged; or ``refused``, why, and what is left, used, held."""
        if request.id in self.done:
            return ["refused", "settled"]
        if request.id in self.holds:
            return self.granted[request.id]
        place = request.customer, request.conversation
        talk = self.conversations.get(place)
        if talk is not None and talk.tier != request.tier:
            return ["begun", talk.tier]
        talk = replace(talk) if talk else Conversation(request.tier, request.cap)
        left = talk.cap - talk.used - talk.held
        allowed = min(request.want, left // request.choices)
        if allowed < 1:
            return ["refused", "conversation", max(left, 0), talk.used, talk.held]
        if request.input_max is not None and talk.input_used + talk.input_held + request.input > request.input_max:
            return ["refused", "conversation input", request.input_max, talk.input_used, talk.input_held]
        window = self.windows[request.customer]
        grant = allowed
        period_left = None
        if request.period_max is not None:
            period_left = request.period_max - window.used - window.held
            grant = min(allowed, period_left // request.choices)
        user = self.end_users[request.customer, request.end_user]
        if request.end_user_max is not None:
            user_left = request.end_user_max - user.used - user.held
            grant = min(grant, user_left // request.choices)
        if grant < allowed and (request.price or grant < min(request.grant_min, allowed)):
            if request.end_user_max is not None and (period_left is None or user_left < period_left):
                return ["refused", "end user", max(user_left, 0), user.used, user.held, allowed]
            return ["refused", "period", max(period_left or 0, 0), window.used, window.held, allowed]
        money = request.money_again if talk.is_charged else request.money_first
        if request.spend_max is not None and money > request.spend_max - window.spend_used - window.spend_held:
            left = max(request.spend_max - window.spend_used - window.spend_held, 0)
            return ["refused", "spend", left, window.spend_used, window.spend_held, allowed, money]
        if request.concurrency_max is not None and self.live[request.customer] >= request.concurrency_max:
            return ["refused", "concurrency", 0, 0, self.live[request.customer]]
        tokens = grant * request.choices
        self.holds[request.id] = Held(request, "live", grant, tokens, money, request.input)
        window.held += tokens
        window.spend_held += money
        if request.end_user_max is not None:
            user.held += tokens
        talk.held += tokens
        talk.input_held += request.input
        talk.live += 1
        self.conversations[place] = talk
        self.live[request.customer] += 1
        after = None if period_left is None else period_left - tokens
        self.granted[request.id] = ["granted", grant, allowed, left - tokens, after, talk.is_charged]
        return self.granted[request.id]

    def renew(self, hold_id: str, sofar: int) -> str:
        """Return what became of a hold."""
        held = self.holds.get(hold_id)
        if held is None:
            return "unknown"
        if held.state == "live":
            held.sofar = sofar
        return held.state

    def settle(self, hold_id: str, expects: str, closes: bool, tokens: int, first: int, again: int) -> list[Any]:
        """Book ``tokens`` of a hold; return ``done`` with the charge, or why not."""
        if hold_id in self.done:
            return self.done[hold_id]
        held = self.holds.get(hold_id)
        if held is None:
            return ["unknown"]
        if held.state != expects:
            return [held.state, held.billed]
        request = held.request
        window = self.windows[request.customer]
        talk = self.conversations[request.customer, request.conversation]
        charge = again
        if tokens and not talk.is_charged:
            talk.is_charged = True
            if window.included < request.included:
                window.included += 1
            else:
                charge = first
        for percent in PERCENTS:
            reached = (percent, window.used, window.used + tokens)
            self._notice(hold_id, window, "period_tokens", request.period_max, *reached)
            spent = (percent, window.spend_used, window.spend_used + charge)
            self._notice(hold_id, window, "spend", request.spend_max, *spent)
        window.used += tokens
        talk.used += tokens
        window.spend_used += charge
        freed = (held.tokens, held.money) if closes else (tokens, charge)
        window.held -= freed[0]
        talk.held -= freed[0]
        window.spend_held -= freed[1]
        if request.end_user_max is not None:
            user = self.end_users[request.customer, request.end_user]
            user.used += tokens
            user.held -= freed[0]
        self.records.append((hold_id, charge))
        reply = ["done", charge, talk.cap - talk.used - talk.held]
        if closes:
            talk.input_held -= held.input
            talk.live -= 1
            self.live[request.customer] -= 1
            del self.holds[hold_id]
            self.done[hold_id] = reply
        else:
            held.tokens -= tokens
            held.money -= charge
            held.state, held.billed = "suspect", tokens
        return reply

    def _notice(
        self, hold_id: str, window: Window, limit: str, most: int | None, percent: int, before: int, after: int
    ) -> None:
        """Note a threshold that lies between ``before`` and ``after`` and was not told yet."""
        is_reached = most is not None and 100 * before < percent * most <= 100 * after
        if most is not None and is_reached and (limit, percent, most) not in window.notices:
            window.notices.add((limit, percent, most))
            self.notices.append((hold_id, limit, percent, most, after))

    def is_conserved(self) -> bool:
        """Return whether what is held in each window is what its holds hold, and nothing is below zero."""
        for customer, window in self.windows.items():
            holds = [held for held in self.holds.values() if held.request.customer == customer]
            if window.held != sum(held.tokens for held in holds):
                return False
            if min(window.used, window.held, window.spend_used, window.spend_held) < 0:
                return False
        return True
