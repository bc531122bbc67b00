"""Usage records as CSV (RFC 4180 with ``\\n``): a header, then a row for each record, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Any

from gateway.exports.jsonl import chunked
from pricing.usage import FIELDS, UsageRecord

FROM_CALLERS = ("conversation", "client_request_id", "end_user")
"""The fields whose text a customer chooses. All others are the gateway's or the operator's."""

FORMULA = "=+\\-@＝＋－＠"
"""Characters that a spreadsheet takes for the beginning of a formula, full-width forms included."""

ENDS_CELL = ";\t\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029"
"""Characters that end a cell or a line for a reader with another separator. For such a reader our quotes are in the
middle of a cell and quote nothing."""

CELL_BEGINS = rf"(?:\A|(?<=[{ENDS_CELL}]))"
HARMFUL = re.compile(rf"\A(?=[\t\r\n])|{CELL_BEGINS}(?='|[\s\"]*[{FORMULA}])")
"""The places where an apostrophe is inserted; also before an existing apostrophe, so that removal restores the text."""

PLACES_FROM_CALLERS = tuple(FIELDS.index(field) for field in FROM_CALLERS)
PLACE_OF_STREAM = FIELDS.index("stream")


def encode(records: Iterable[UsageRecord]) -> Iterator[bytes]:
    """Yield the file in chunks: UTF-8, ``\\n`` after each row, an empty cell where a field is null or absent.

    An apostrophe is inserted where text that a customer chose would begin a formula for a reader whose separator is the
    comma, the semicolon or the tab. A reader that needs the exact text removes one apostrophe at its beginning and
    after each semicolon, tab and line end, or reads the JSON Lines.
    """
    return chunked(_rows(records))


def _rows(records: Iterable[UsageRecord]) -> Iterator[str]:
    row = _Row()
    # The csv module quotes a carriage return only if its line end has a carriage return, so this line end has one.
    writer = csv.writer(row, lineterminator="\r\n")
    writer.writerow(FIELDS)
    yield row.text
    for record in records:
        writer.writerow(_cells(record))
        yield row.text


def _cells(record: UsageRecord) -> list[Any]:
    cells = [record.get(field) for field in FIELDS]
    cells[PLACE_OF_STREAM] = "true" if record["stream"] else "false"
    for place in PLACES_FROM_CALLERS:
        cells[place] = _harmless(cells[place])
    return cells


def _harmless(text: str | None) -> str | None:
    return HARMFUL.sub("'", text) if text else text


class _Row:
    """The file that csv.writer writes to; keeps the last row, which ends with a line feed alone."""

    text = ""

    def write(self, row: str) -> None:
        self.text = row.removesuffix("\r\n") + "\n"
