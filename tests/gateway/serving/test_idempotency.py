"""An Idempotency-Key keeps answers up to a size, sealed, with each of both possible charges."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.holds.hold import Settled
from gateway.holds.idempotency_claims import Seal, key_digest
from gateway.holds.offer import Charge
from gateway.serving.caller.headers import Headers
from gateway.serving.idempotency import KEPT_MOST, NAME_MOST, IdempotentCall, name_of

DIGEST = key_digest("/v1/chat/completions", "once")
SEAL = Seal.of("tc-ab-secret", DIGEST)


class Ended:
    """A call whose answer has this many bytes."""

    content_type = b"application/json"

    def __init__(self, size: int) -> None:
        self._size = size
        self.final_outcome = None
        self.headers = [(b"x-of-a-stream", b"1")]
        facts = SimpleNamespace(charge=lambda _came_to: Charge(9, 2))
        self.live = SimpleNamespace(hold=SimpleNamespace(id="req_1", facts=facts))

    def foreseen(self, charge_nanousd: int) -> Settled:
        return Settled(charge_nanousd, None)

    def last(self, settled: Settled) -> tuple[Headers, bytes]:
        return [(b"x-charge", b"%d" % settled.charge_nanousd)], b"a" * self._size


def kept(size: int, recorded: bytes = b"") -> tuple[bytes, bytes]:
    once = IdempotentCall(DIGEST, SEAL, "body", None).to_keep(Ended(size), recorded)  # type: ignore[arg-type]
    return once.answer_first, once.answer_again


def test_an_answer_of_a_mebibyte_is_kept_and_one_byte_more_is_not() -> None:
    assert KEPT_MOST == 2**20
    assert all(kept(KEPT_MOST))
    assert kept(KEPT_MOST + 1) == (b"", b"")
    assert all(kept(KEPT_MOST - 7, b"a" * 7)), "what was streamed before counts"
    assert kept(KEPT_MOST - 7, b"a" * 8) == (b"", b"")


def test_both_charges_are_sealed_and_only_the_same_key_opens_them() -> None:
    first, again = (SEAL.open(answer) for answer in kept(3, b"streamed "))

    for opened, charge in ((first, b'"9"'), (again, b'"2"')):
        head, _, body = opened.partition(b"\n")
        assert body == b"streamed aaa"
        assert charge in head
        assert b'"req_1"' in head
    assert b"aaa" not in kept(3)[0]


@pytest.mark.parametrize(
    ("api_key", "digest"), [("tc-ab-other", DIGEST), ("tc-ab-secret", key_digest("/v1/messages", "once"))]
)
def test_another_key_or_another_route_does_not_open_it(api_key: str, digest: str) -> None:
    other = Seal.of(api_key, digest)

    with pytest.raises(Exception, match="another API key"):
        other.open(kept(3)[0])
    assert other.body(b"{}") != SEAL.body(b"{}")
    assert key_digest("/v1/messages", "once") != DIGEST


@pytest.mark.parametrize("name", ["", "x" * (NAME_MOST + 1), "a\x00b", "a\nb"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        name_of(exchange_of(name))


@pytest.mark.parametrize("name", [None, "a", "x" * NAME_MOST])
def test_what_is_a_name_is_taken(name: str | None) -> None:
    assert name_of(exchange_of(name)) == name


def exchange_of(name: str | None) -> Any:
    return SimpleNamespace(header=lambda _name: name)
