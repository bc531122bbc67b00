"""Claims about export files: every format carries the same records, to the token, and nothing a spreadsheet would run."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.exports.files import manifest_path, write_file
from gateway.exports.formats import FORMATS, format_named
from gateway.exports.jsonl import CHUNK_CHARACTERS, chunked
from pricing.usage import FIELDS, FIELDS_IF_SAID, WHOLE_FIELDS, UsageRecord
from tests.gateway.ledger.records import record

whole = st.integers(-(2**53) + 1, 2**53 - 1)
text = st.text(max_size=20)
FLAGS = ("stream", "conversation_is_included")
records = st.lists(
    st.fixed_dictionaries(
        {
            field: whole if field in WHOLE_FIELDS else st.booleans() if field in FLAGS else text | st.none()
            for field in FIELDS
        }
    ),
    max_size=5,
)


def booked(number: int = 1, **changes: Any) -> UsageRecord:
    placed = {"chain": "main", "seq": number, "prev_hash": "0" * 64, "hash": "f" * 64}
    return {**record(number), **placed, "prepaid_nanousd": 0, **changes}


def encoded(name: str, usage: list[UsageRecord]) -> bytes:
    return b"".join(FORMATS[name].encode(usage))


def read_csv(file: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.decode(), newline="")))


def test_jsonl_is_one_object_a_line_in_the_contracts_order() -> None:
    shuffled = dict(reversed(booked(model="modèle").items()))

    file = encoded("jsonl", [shuffled, booked(2)])

    first, second = file.decode().splitlines()
    assert list(json.loads(first)) == list(FIELDS)
    assert first.startswith('{"id":"call-000001","kind":"usage","corrects":null,"time":')
    assert '"model":"modèle"' in first
    assert json.loads(second) == booked(2)
    assert file.endswith(b"}\n")


def test_a_record_without_an_end_user_is_exported_as_it_was_hashed() -> None:
    """In JSON it lacks the field, as every record did before there were any; in CSV the last cell is empty."""
    without = booked()
    for field in FIELDS_IF_SAID:
        del without[field]

    assert json.loads(encoded("jsonl", [without])) == without
    assert encoded("csv", [without]).splitlines()[1].endswith(b"f,,,,,,")


@given(records)
def test_jsonl_gives_back_every_record(usage: list[UsageRecord]) -> None:
    lines = encoded("jsonl", usage).split(b"\n")

    assert [json.loads(line) for line in lines[:-1]] == usage
    assert lines[-1] == b""


def test_csv_has_a_header_and_a_row_for_each_record() -> None:
    file = encoded("csv", [booked(conversation='say "hi", then\nleave', charge_nanousd=-5)])

    header, rest = file.decode().split("\n", 1)
    assert header == ",".join(FIELDS)
    assert rest.endswith("\n")
    assert "\r" not in rest
    assert ',"say ""hi"", then\nleave",' in rest
    assert ",-5,USD," in rest
    assert ",true,1,20,0,100," in rest


@given(records)
def test_csv_gives_back_every_record(usage: list[UsageRecord]) -> None:
    """Numbers to the digit; null and empty text are both an empty cell; what was put into text is taken away."""
    rows = read_csv(encoded("csv", usage))

    for row, call in zip(rows, usage, strict=True):
        for field in FIELDS:
            cell = row[field]
            if field in ("conversation", "client_request_id", "end_user"):
                cell = as_it_was(cell)
            value = call[field]
            assert cell == (str(value).lower() if field == "stream" else "" if value is None else str(value))


@pytest.mark.parametrize("field", ["conversation", "client_request_id", "end_user"])
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＠"])
def test_a_formula_that_a_customer_sends_is_text_in_a_spreadsheet(field: str, start: str) -> None:
    attack = f'{start}HYPERLINK("http://evil.example","total")'

    (row,) = read_csv(encoded("csv", [{**booked(), field: attack}]))

    assert row[field] == "'" + attack


@pytest.mark.parametrize("kept", ["c1", "a=1", "1-2", "9e3b_x", "'quoted", "''"])
def test_taking_one_apostrophe_away_gives_back_what_the_customer_sent(kept: str) -> None:
    (row,) = read_csv(encoded("csv", [booked(conversation=kept)]))

    assert row["conversation"].removeprefix("'") == kept
    assert row["conversation"].startswith("'") == kept.startswith("'")


ATTACKS = (
    "a;=1+1",
    "a;+1",
    "a; =1+1",
    'a;"=1+1',
    'a";"=1+1',
    'a;"" =1',
    "a\t=1+1",
    "a\n=1+1",
    "a\r\n@SUM(1)",
    "a;＝1+1",
    "a;b\t-2+3",
    "a;;=1",
    "';=1",
    ";=1",
    "a\u2028=1",
)


@pytest.mark.parametrize("field", ["conversation", "client_request_id", "end_user"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("quotes", ['"', None])
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_reader_sees_a_formula_whatever_its_separator(
    attack: str, quotes: str | None, separator: str, field: str
) -> None:
    """Nor does one that takes quotes as text or splits lines in them; and what was sent can be had back."""
    file = encoded("csv", [{**booked(), field: attack}]).decode()
    if separator == "," and quotes is None:
        separator = ";"
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    lines = file.splitlines() if separator != "," else io.StringIO(file, newline="")
    cells = [cell for row in csv.reader(lines, delimiter=separator, quotechar=quotes, quoting=quoting) for cell in row]

    assert [cell for cell in cells if cell.lstrip('" ').startswith(tuple("=+-@＝＋－＠"))] == []
    (row,) = read_csv(file.encode())
    assert as_it_was(row[field]) == attack


@given(text)
def test_whatever_is_put_into_text_can_be_taken_away_again(text: str) -> None:
    (row,) = read_csv(encoded("csv", [{**booked(), "end_user": text}]))

    assert as_it_was(row["end_user"]) == text


def as_it_was(cell: str) -> str:
    """Take away what was put in, as the export says: one apostrophe at the beginning and after each end of a cell."""
    return re.sub(r"(\A|[;\t\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029])'", r"\1", cell)


@given(records)
def test_every_format_has_the_same_tokens_and_charges(usage: list[UsageRecord]) -> None:
    lines = [json.loads(line) for line in encoded("jsonl", usage).split(b"\n")[:-1]]
    rows = read_csv(encoded("csv", usage))

    for field in ("input_tokens", "output_tokens", "billed_output_tokens", "charge_nanousd"):
        assert sum(line[field] for line in lines) == sum(int(row[field]) for row in rows)


@pytest.mark.parametrize("name", FORMATS)
def test_a_long_export_comes_in_chunks_and_is_read_no_further_than_asked(name: str) -> None:
    taken = 0

    def endless() -> Iterator[UsageRecord]:
        nonlocal taken
        while True:
            taken += 1
            yield booked(taken)

    chunk = next(FORMATS[name].encode(endless()))

    assert CHUNK_CHARACTERS <= len(chunk) < 2 * CHUNK_CHARACTERS
    assert chunk.endswith(b"\n")
    assert taken < 400


def test_nothing_to_export_is_an_empty_file_or_a_header() -> None:
    assert encoded("jsonl", []) == b""
    assert encoded("csv", []) == ",".join(FIELDS).encode() + b"\n"


def test_a_format_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(BadRequest, match="There is no export format 'xls'; there are jsonl, csv"):
        format_named("xls")

    assert format_named("csv").name == "csv"


def test_a_manifest_says_what_its_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"

    manifest = write_file(
        path, FORMATS["jsonl"], [booked(1), booked(2, output_tokens=1, charge_nanousd=-7)], is_closed=True
    )

    file = path.read_bytes()
    assert json.loads(manifest_path(path).read_bytes()) == {
        "schema": 1,
        "format": "jsonl",
        "file": "usage.jsonl",
        "size_bytes": len(file),
        "sha256": hashlib.sha256(file).hexdigest(),
        "records": 2,
        "input_tokens": 40,
        "cached_tokens": 0,
        "output_tokens": 101,
        "reasoning_tokens": 0,
        "billed_output_tokens": 200,
        "charge_nanousd": 4_993,
        "first_id": "call-000001",
        "last_id": "call-000002",
        "closed": True,
    }
    assert manifest.records == 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["usage.jsonl", "usage.jsonl.manifest.json"]


def test_a_manifest_of_a_long_open_export_counts_all_of_it_and_says_that_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"

    manifest = write_file(path, FORMATS["jsonl"], map(booked, range(300)), is_closed=False)

    assert manifest.size_bytes == path.stat().st_size > 2 * CHUNK_CHARACTERS
    assert (manifest.records, manifest.closed) == (300, False)


def test_the_same_records_are_the_same_bytes_and_the_same_manifest(tmp_path: Path) -> None:
    path = tmp_path / "usage.csv"
    write_file(path, FORMATS["csv"], [booked(1), booked(2)], is_closed=True)
    before = path.read_bytes(), manifest_path(path).read_bytes()

    write_file(path, FORMATS["csv"], iter([booked(1), booked(2)]), is_closed=True)

    assert (path.read_bytes(), manifest_path(path).read_bytes()) == before


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    write_file(path, FORMATS["jsonl"], [booked(1)], is_closed=True)
    before = path.read_bytes(), manifest_path(path).read_bytes()

    def breaking() -> Iterator[UsageRecord]:
        yield booked(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_file(path, FORMATS["jsonl"], breaking(), is_closed=True)

    assert (path.read_bytes(), manifest_path(path).read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_manifest_never_tells_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The file comes first: where it cannot be put in its place, the manifest of before stands."""
    path = tmp_path / "usage.jsonl"
    path.mkdir()
    manifest_path(path).write_text("before")

    with pytest.raises(OSError, match="directory"):
        write_file(path, FORMATS["jsonl"], [booked(1)], is_closed=True)

    assert manifest_path(path).read_text() == "before"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["usage.jsonl", manifest_path(path).name]


def test_an_export_is_its_owners_alone(tmp_path: Path) -> None:
    """Customers' data is in it; also where a file with another mode was there before."""
    path = tmp_path / "usage.jsonl"
    path.touch(0o644)

    write_file(path, FORMATS["jsonl"], [booked(1)], is_closed=True)

    assert {stat.S_IMODE(found.stat().st_mode) for found in tmp_path.iterdir()} == {0o600}


def test_chunks_are_the_lines_once_each() -> None:
    lines = [f"{number:_>30000}\n" for number in range(8)]
    chunks = list(chunked(lines))

    assert b"".join(chunks) == "".join(lines).encode()
    assert len(chunks) == 3
