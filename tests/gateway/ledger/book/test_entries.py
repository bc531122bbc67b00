"""Claims about reading the usage streams: what is a record, what is not, and that nothing in between exists."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.book.entries import CARRIED, Entry, Malformed, _fault_in, record_in
from pricing.usage import FIELDS
from tests.gateway.ledger.records import NOON, settled_call


def entry(call: Any, charge: bytes = b"5000") -> Entry:
    return Entry("{b00}:usage", f"{NOON}-3", {b"record": json.dumps(call).encode(), b"charge": charge})


def test_a_record_gains_its_charge_and_the_time_of_its_entry() -> None:
    found = record_in(entry(settled_call()))

    nothing_of_the_conversation = {"conversation_cap_tokens": None, "conversation_is_included": None}
    assert found == {**settled_call(), "charge_nanousd": 5000, "settled": NOON, **nothing_of_the_conversation}


def test_a_record_gains_what_the_script_knows_of_its_conversation() -> None:
    fields = {b"record": json.dumps(settled_call()).encode(), b"charge": b"0", b"settled": b"7", b"cap": b"50"}

    found = record_in(Entry("{b00}:usage", f"{NOON}-3", {**fields, b"included": b"1"}))

    assert not isinstance(found, Malformed)
    assert (found["conversation_cap_tokens"], found["conversation_is_included"]) == (50, True)


def test_a_field_that_only_a_later_version_knows_is_left_out() -> None:
    """Its call is in the book all the same: a bookkeeper may be older than a worker."""
    assert record_in(entry({**settled_call(), "mood": "sunny"})) == record_in(entry(settled_call()))


@pytest.mark.parametrize("cap", [b"", b"-1", b"many", b"99999999999999999"])
def test_a_cap_that_is_none_is_no_record(cap: bytes) -> None:
    found = record_in(Entry("{b00}:usage", f"{NOON}-3", {**entry(settled_call()).fields, b"cap": cap}))

    assert isinstance(found, Malformed)
    assert found.reason == "cap is not a number of tokens"


def test_a_charge_beyond_floating_point_is_read_to_the_last_digit() -> None:
    found = record_in(entry(settled_call(), charge=b"9007199254740991"))

    assert not isinstance(found, Malformed)
    assert found["charge_nanousd"] == 9_007_199_254_740_991


def test_a_field_that_may_be_null_may_be_left_out() -> None:
    call = settled_call()
    del call["ttft_ms"]

    found = record_in(entry(call))

    assert not isinstance(found, Malformed)
    assert found["ttft_ms"] is None
    assert found.keys() | {"chain", "seq", "prev_hash", "hash", "prepaid_nanousd"} == set(FIELDS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": None}, "id is missing"),
        ({"customer": 7}, "customer is not text"),
        ({"customer": "c" * 65}, "customer is longer than 64 characters"),
        ({"model": "a\0b"}, "model has a character that no database keeps"),
        ({"model": "\ud800"}, "record is not JSON"),
        ({"kind": "gift"}, "kind is not one of usage, fee, credit, correction, prepaid"),
        ({"stream": 1}, "stream is not true or false"),
        ({"output_tokens": 1.0}, "output_tokens is not a whole number below 2^53"),
        ({"output_tokens": True}, "output_tokens is not a whole number below 2^53"),
        ({"output_tokens": 2**53}, "output_tokens is not a whole number below 2^53"),
        ({"output_tokens": "5"}, "output_tokens is not a whole number below 2^53"),
        ({"hash": "0" * 64}, "record has a field that is not its own: 'hash'"),
        ({"prepaid_nanousd": 5}, "record has a field that is not its own: 'prepaid_nanousd'"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(changes: dict[str, Any], reason: str) -> None:
    found = record_in(entry({**settled_call(), **changes}))

    assert isinstance(found, Malformed)
    assert found.reason == reason


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**54), 2**54), st.floats(allow_nan=False), st.text(), st.lists(st.none())
)


@given(st.dictionaries(st.sampled_from(CARRIED), ODD, max_size=3), st.sets(st.sampled_from(CARRIED), max_size=3))
def test_a_record_that_fits_at_a_glance_has_no_fault(changes: dict[str, Any], left_out: set[str]) -> None:
    """Most records are alike and are looked at once; field by field only what is not like them."""
    call = {field: value for field, value in {**settled_call(), **changes}.items() if field not in left_out}
    whole = {field: call.get(field) for field in CARRIED}

    found = record_in(entry(call))

    assert isinstance(found, Malformed) == (_fault_in(whole) is not None or _is_no_json(call))


def _is_no_json(call: dict[str, Any]) -> bool:
    try:
        orjson.loads(json.dumps(call))
    except ValueError:
        return True
    return False


def test_letters_that_only_look_like_a_forbidden_character_are_booked() -> None:
    found = record_in(entry({**settled_call(), "model": r"a\u0000b"}))

    assert not isinstance(found, Malformed)
    assert found["model"] == r"a\u0000b"


@pytest.mark.parametrize("charge", [b"", b"5.0", b"1e3", b" 5", b"0x5", "٥".encode(), b"9007199254740992", b"nan"])
def test_a_charge_that_is_no_whole_number_is_refused(charge: bytes) -> None:
    found = record_in(entry(settled_call(), charge))

    assert isinstance(found, Malformed)
    assert found.reason == "charge is not a whole number of nano-units"


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"null", b"9" * 5_000])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    found = record_in(Entry("{b00}:usage", f"{NOON}-0", {b"record": raw, b"charge": b"0"}))

    assert isinstance(found, Malformed)


@given(st.dictionaries(st.binary(max_size=8), st.binary(max_size=8)))
def test_an_entry_kept_aside_can_be_read_back_to_the_byte(fields: dict[bytes, bytes]) -> None:
    written = Entry("{b00}:usage", "1-0", fields).written()

    assert written.isascii()
    assert "\0" not in written
    read = {
        name.encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape")
        for name, value in json.loads(written).items()
    }
    assert read == fields


def test_entries_of_one_moment_are_in_the_order_of_their_stream() -> None:
    moment = [Entry("{b00}:usage", f"{NOON}-{count}", {}) for count in (10, 9, 2)]
    later = Entry("{a00}:usage", f"{NOON + 1}-0", {})

    assert sorted([later, *moment], key=Entry.order) == [*reversed(moment), later]
