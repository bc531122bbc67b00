"""Claims about the hash chain, with hashes computed by hand as witness."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.book.chain import GENESIS, BadRow, Head, canonical, link, verify
from pricing.usage import UsageRecord


def chained(count: int) -> list[UsageRecord]:
    records: list[UsageRecord] = []
    for seq in range(1, count + 1):
        before = records[-1]["hash"] if records else GENESIS
        records.append(link(before, {"id": f"call-{seq}", "seq": seq, "output_tokens": seq * 10}))
    return records


def test_a_hash_is_the_one_anyone_can_compute_from_the_contract() -> None:
    linked = link(GENESIS, {"seq": 1, "id": "é", "stream": True, "corrects": None})

    spelled = '{"corrects":null,"id":"é","prev_hash":"' + "0" * 64 + '","seq":1,"stream":true}'
    assert linked["hash"] == hashlib.sha256(("0" * 64 + "\n" + spelled).encode("utf-8")).hexdigest()


WHOLE = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", max_size=5)


@given(st.dictionaries(NAMES, st.none() | st.booleans() | WHOLE | st.text()))
def test_canonical_json_is_the_one_that_any_library_writes_whatever_the_order_of_keys(record: dict[str, Any]) -> None:
    spelled = canonical(record)

    assert canonical(dict(reversed(record.items()))) == spelled
    assert spelled == json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_a_chain_that_was_left_alone_is_followed_to_its_head() -> None:
    records = chained(5)

    verdict = verify(records)

    assert verdict.bad is None
    assert verdict.head == Head(5, records[-1]["hash"])


def test_a_chain_is_followed_in_parts_as_in_one_go() -> None:
    records = chained(5)

    part = verify(records[:2])

    assert verify(records[2:], part.head) == verify(records)


@pytest.mark.parametrize("seq", [1, 3, 5])
def test_an_edit_is_found_at_its_row(seq: int) -> None:
    records = chained(5)
    records[seq - 1]["output_tokens"] += 1

    verdict = verify(records)

    assert verdict.bad == BadRow(seq, f"call-{seq}", "its content does not have the hash it carries")
    assert verdict.head.seq == seq - 1


def test_an_edit_with_its_own_hash_made_good_is_found_at_the_next_row() -> None:
    records = chained(5)
    records[2] = link(records[1]["hash"], {**records[2], "output_tokens": 1})

    verdict = verify(records)

    assert verdict.bad == BadRow(4, "call-4", "it does not name the hash of the row before it")


def test_a_deleted_row_is_found_at_its_place() -> None:
    records = chained(5)
    del records[2]

    verdict = verify(records)

    assert verdict.bad == BadRow(3, "call-4", "row 3 is missing, row 4 stands in its place")


def test_two_rows_that_changed_places_are_found_at_the_first() -> None:
    records = chained(5)
    records[1]["seq"], records[2]["seq"] = 3, 2
    records[1], records[2] = records[2], records[1]

    verdict = verify(records)

    assert verdict.bad == BadRow(2, "call-3", "it does not name the hash of the row before it")


def test_a_value_that_json_does_not_know_is_a_bad_row_and_no_crash() -> None:
    records = chained(2)
    records[1]["output_tokens"] = b"\xff"

    assert verify(records).bad == BadRow(2, "call-2", "it has a value that no usage record has")
