"""The scripts in a real Valkey do what the model does, operation by operation, over 50,000 random ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from struct import pack
from typing import Any

import redis
from redis.commands.core import Script

from gateway.clock import now_ms
from gateway.holds.store import packing, redis_keys
from gateway.holds.store.clients import connect, fields, text
from gateway.holds.store.inflight import calls_in_flight
from gateway.holds.store.scripts import source
from tests.gateway.holds.harness import end_lease
from tests.gateway.holds.model import PERCENTS, Model, Request

OPERATIONS = 50_000
AT_ONCE = 500
CUSTOMERS = 12
BUCKET = "07"
GENERATION = "3"
FOREVER = 2**52
PERIOD = 1
LEASE_MS = 60_000
BOBS = 2_000
TIERS = {"small": (60, 7, 0), "large": (400, 20, 0), "free": (900, 0, 0), "subscribed": (200, 9, 2)}
"""Cap, price, included conversations."""

Check = Callable[[Any], None]


@dataclass
class Scripts:
    """The verbs, called in pipelines: each call comes with the check of its reply."""

    client: redis.Redis
    reserve: Script
    settle: Script
    renew: Script


class Operations:
    """Makes random operations, plays each on the model, and queues it for the scripts with what must come of it."""

    def __init__(self, random: Random, scripts: Scripts) -> None:
        self.random = random
        self.scripts = scripts
        self.model = Model()
        self.requests: list[Request] = []
        self.lapsed = 0
        self.refused: Counter[str] = Counter()
        self.queue: list[tuple[Script, list[str], list[Any], Check]] = []

    def one(self) -> None:
        """Queue one operation of a kind picked at random."""
        verb = self.random.choices((self.reserve, self.repeat, self.settle, self.renew, self.lapse), (45, 5, 35, 8, 7))
        verb[0]()

    def reserve(self) -> None:
        pick = self.random
        tier = pick.choice(list(TIERS))
        cap, price, included = TIERS[tier]
        again = pick.choice((0, 3))
        number = pick.randrange(CUSTOMERS)
        # One customer keeps its quota and uses it up to the last token; the quotas of others change in mid-period.
        quota = 5_000 if number == 0 else pick.choice((None, 5_000, 5_000_000))
        request = Request(
            id=f"c{len(self.requests)}",
            customer=f"cus_{number}",
            conversation=f"talk{pick.randrange(len(self.requests) // 20 + 3)}",
            tier=tier,
            cap=cap,
            price=price,
            want=pick.choice((1, 5, 40, 500)),
            choices=pick.choice((1, 1, 2, 3)),
            grant_min=16,
            input=pick.choice((0, 10)),
            period_max=quota,
            input_max=pick.choice((None, 500)),
            spend_max=pick.choice((None, 200, 1_000, 2**53 - 1)),
            concurrency_max=pick.choice((None, 8)),
            included=included,
            money_first=price + again,
            money_again=again,
            end_user=pick.choice(("", "ann", "ann", "ann", "ann", "ann", "bob")),
            # Bob's limit is never lifted, and is used up to the last token; the others' comes and goes.
            end_user_max=None,
        )
        limit = BOBS if request.end_user == "bob" else pick.choice((None, None, 500_000))
        request = replace(request, end_user_max=limit)
        self.requests.append(request)
        self._reserve(request)

    def repeat(self) -> None:
        """The same reservation again, as after a lost connection."""
        if self.requests:
            self._reserve(self.random.choice(self.requests[-50:]))

    def _reserve(self, request: Request) -> None:
        expected = self.model.reserve(request)
        if expected[0] == "refused":
            self.refused[expected[1]] += 1

        def check(reply: Any) -> None:
            assert _reserved(reply) == expected, request

        names = [
            *redis_keys.of_call(BUCKET, request.customer, PERIOD, request.conversation),
            redis_keys.api_key(BUCKET, request.customer),
            redis_keys.customer(BUCKET, request.customer),
            *_end_user(request),
        ]
        limits = (request.period_max, request.spend_max)
        rest = (request.concurrency_max, request.end_user_max)
        packed = b"".join(
            [
                pack("<4d", 0, LEASE_MS, request.want, request.choices),
                pack("<7d", request.input, request.money_first, request.money_again, FOREVER, now_ms(), False, 0),
                packing.texts(GENERATION, request.customer, "1", request.id, "tat_us"),
                pack("<5d", PERIOD, FOREVER, request.cap, request.price, request.grant_min),
                pack("<6d", *map(_reached, limits), _most(request.input_max), -1, *map(_most, rest)),
                packing.texts(request.tier, "v1"),
            ]
        )
        arguments = [packed, packing.texts("w_1", names[3]) + request.id.encode()]
        self.queue.append((self.scripts.reserve, names, arguments, check))

    def _some_hold(self) -> str | None:
        known = list(self.model.holds) or [request.id for request in self.requests[-20:]]
        return self.random.choice(known) if known else None

    def settle(self) -> None:
        """A settlement by its worker: late ones bring only what is beyond the checkpoint, repeated ones nothing."""
        hold_id = self._some_hold()
        held = self.model.holds.get(hold_id or "")
        if hold_id is None or (held is None and hold_id not in self.model.done):
            return
        if self.random.random() < 0.1 and self.model.done:
            hold_id = self.random.choice(list(self.model.done)[-20:])
            held = None
        tokens = 0 if held is None else self.random.randint(0, held.tokens)
        self._settle(hold_id, held.state if held else "live", True, tokens, only_if_lapsed=False)

    def lapse(self) -> None:
        """A reclaimer bills a checkpoint, or frees what it billed before."""
        live = [name for name, held in self.model.holds.items() if held.sofar <= held.tokens]
        if not live:
            return
        hold_id = self.random.choice(live)
        held = self.model.holds[hold_id]
        closes = held.state == "suspect" or self.random.random() < 0.5
        tokens = 0 if held.state == "suspect" else held.sofar
        self.lapsed += 1
        self._lease_is_over(hold_id)
        self._settle(hold_id, held.state, closes, tokens, only_if_lapsed=True)

    def _lease_is_over(self, hold_id: str) -> None:
        self.flush()
        end_lease(self.scripts.client, BUCKET, hold_id)

    def renew(self) -> None:
        hold_id = self._some_hold()
        if hold_id is None:
            return
        held = self.model.holds.get(hold_id)
        sofar = self.random.randint(held.sofar, max(held.tokens, held.sofar)) if held else 1
        expected = self.model.renew(hold_id, sofar)

        def check(reply: Any) -> None:
            assert [text(part) for part in reply] == [expected], hold_id

        names = [redis_keys.state(BUCKET), redis_keys.inflight(BUCKET)]
        self.queue.append((self.scripts.renew, names, [GENERATION, now_ms(), hold_id, sofar, ""], check))

    def _settle(self, hold_id: str, expects: str, closes: bool, tokens: int, *, only_if_lapsed: bool) -> None:
        request = next(one for one in reversed(self.requests) if one.id == hold_id)
        again = 1 if tokens and request.money_again else 0
        first = request.price + again if tokens else 0
        expected = self.model.settle(hold_id, expects, closes, tokens, first, again)

        def check(reply: Any) -> None:
            assert _settled(reply) == expected, (hold_id, expects, closes, tokens)

        names = [
            *redis_keys.of_call(BUCKET, request.customer, PERIOD, request.conversation),
            redis_keys.notices(BUCKET),
            *_end_user(request),
        ]
        places = (0, 0, 9) if request.end_user_max is None else (9, 0, 10)
        progress = (
            self.scripts.client.hget(redis_keys.inflight(BUCKET), f"progress:{hold_id}") if only_if_lapsed else None
        )
        packed = b"".join(
            [
                pack("<3d", closes, only_if_lapsed, now_ms()),
                pack("<5d", tokens, 0, first, again, request.included),
                packing.texts(GENERATION, hold_id, expects),
                pack("<4d", 0, *places),
                packing.texts(text(progress or b"")) + request.conversation.encode(),
            ]
        )
        arguments = [packed, hold_id, _thresholds(request.period_max, request.spend_max)]
        self.queue.append((self.scripts.settle, names, arguments, check))

    def flush(self) -> None:
        """Send what is queued in one pipeline, compare each reply, and the whole state after it."""
        with self.scripts.client.pipeline(transaction=False) as batch:
            for script, names, arguments, _ in self.queue:
                script(keys=names, args=arguments, client=batch)
            for (*_, check), reply in zip(self.queue, batch.execute(), strict=True):
                check(reply)
        self.queue.clear()

    def compare_state(self) -> None:
        """Assert that every window, conversation and record is the same in both, and that both add up."""
        assert self.model.is_conserved()
        client = self.scripts.client
        for customer, window in self.model.windows.items():
            counted = packing.window_state(client, redis_keys.window(BUCKET, customer, PERIOD))
            for name in ("used", "held", "spend_used", "spend_held", "included"):
                assert getattr(counted, name) == getattr(window, name), (customer, name)
        for (customer, name), window in self.model.end_users.items():
            found = fields(client.hgetall(redis_keys.end_user(BUCKET, customer, PERIOD, name)))
            assert [int(found.get(part, 0)) for part in ("used", "held")] == [window.used, window.held], name
        for (customer, name), talk in self.model.conversations.items():
            state = packing.conversation_in(client, redis_keys.conversation(BUCKET, customer, name))
            tokens = (0, 0, 0) if state is None else (state.used, state.held, state.live)
            assert tokens == (talk.used, talk.held, talk.live)
        records = [fields(entry) for _, entry in client.xrange(redis_keys.usage(BUCKET))]
        assert [(one["record"], int(one["charge"])) for one in records] == self.model.records
        notices = [fields(entry) for _, entry in client.xrange(redis_keys.notices(BUCKET))]
        assert [_noticed(notice) for notice in notices] == self.model.notices
        assert {call.id for call in calls_in_flight(client, [BUCKET]).get(BUCKET, [])} == set(self.model.holds)


def _end_user(request: Request) -> list[str]:
    if request.end_user_max is None:
        return []
    return [redis_keys.end_user(BUCKET, request.customer, PERIOD, request.end_user)]


def _most(most: int | None) -> float:
    return packing.MOST if most is None else most


def _reached(most: int | None) -> float:
    return math.inf if most is None else most


def _thresholds(*limits: int | None) -> bytes:
    shares = [
        (percent, *(math.inf if most is None else -(-most * percent // 100) for most in limits)) for percent in PERCENTS
    ]
    header = pack("<4d", *map(_reached, limits), *shares[0][1:])
    return header + b"".join(pack("<3d", *share) for share in shares)


def _noticed(notice: dict[str, str]) -> tuple[str, str, int, int, int]:
    return notice["facts"], notice["limit"], int(notice["percent"]), int(notice["max"]), int(notice["used"])


def _reserved(reply: bytes | list[bytes]) -> list[Any]:
    if isinstance(reply, bytes):
        _, grant, allowed, conversation_left, period_left, _, charged = packing.GRANTED.unpack(reply)
        return ["granted", grant, allowed, conversation_left, _number(period_left), charged == 1]
    parts = [text(part) for part in reply]
    return parts[:2] if parts[0] == "begun" else [*parts[:2], *(int(part) for part in parts[2:])]


def _number(packed: int) -> int | None:
    return None if packed == packing.NONE else packed


def _settled(reply: bytes | list[bytes]) -> list[Any]:
    if isinstance(reply, bytes):
        charge, left, _ = packing.DONE.unpack(reply)
        return ["done", charge, _number(left)]
    parts = [text(part) for part in reply]
    return [parts[0], *(int(part) for part in parts[1:2])]


def play(client: redis.Redis, random: Random, operations: int) -> Operations:
    """Play random operations on both, comparing as it goes."""
    scripts = Scripts(client, *(client.register_script(source(verb)) for verb in ("reserve", "settle", "renew")))
    client.hset(redis_keys.state(BUCKET), "generation", GENERATION)
    for number in range(CUSTOMERS):
        client.hset(redis_keys.api_key(BUCKET, f"cus_{number}"), items=["customer", f"cus_{number}", "expires", ""])
        client.hset(redis_keys.customer(BUCKET, f"cus_{number}"), "rev", "1")
    played = Operations(random, scripts)
    for count in range(1, operations + 1):
        played.one()
        if count % AT_ONCE == 0:
            played.flush()
    played.flush()
    played.compare_state()
    return played


def test_the_scripts_agree_with_the_model_on_random_operations(valkey_url: str) -> None:
    with connect(valkey_url) as client:
        played = play(client, Random(20), OPERATIONS)

        assert len(played.model.done) > 5_000
        assert played.lapsed > 1_000
        assert played.refused["end user"] > 100 < played.refused["period"]
        assert all(user.used + user.held <= BOBS for (_, name), user in played.model.end_users.items() if name == "bob")
        assert {percent for _, _, percent, *_ in played.model.notices} == set(PERCENTS)
