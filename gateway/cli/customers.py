"""``tokencap customers``: creates many customers, with new keys or with keys made elsewhere."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from gateway.catalog.api_key_rows import OWN
from gateway.cli.admin_api import Token, Url, admin_client, problem, refusal, send_request
from gateway.cli.books import adjusting
from gateway.cli.file_arguments import STANDARD, name_of, parsed
from gateway.cli.progress import timed
from gateway.errors import StartupError
from pricing.menus.menu import LIMIT_FIELDS, OWN_PRICES

AT_ONCE = 500
"""The number of customers in one request, which creates all of them or none."""

OWN_FIELDS = ("name", "tier", "status", "period", "timezone", "external_id")
KEY_FIELDS = {"key_name": "name", "key_expires": "expires", "key_sha256": "sha256", "key_prefix": "prefix"}
OVERRIDES = (*LIMIT_FIELDS, *OWN_PRICES.values())
COLUMNS = (*OWN_FIELDS, *KEY_FIELDS, *OVERRIDES)

app = typer.Typer(
    name="customers", help="Create many customers and their keys, credit and charge.", no_args_is_help=True
)
app.command("credit")(adjusting.credit)
app.command("fee")(adjusting.fee)
app.command("prepaid")(adjusting.prepaid)


@app.callback()
def _customers() -> None:
    """Create many customers and their keys, credit and charge."""


@app.command("add")
def add(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV or JSON lines; - is JSON lines from standard input.")
    ],
    url: Url,
    token: Token,
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="The file to append new keys to, as JSON lines that only you can read.")
    ] = STANDARD,
) -> None:
    """Create the customers in a file, and change existing customers to match it.

    A customer exists if its external_id does; without one, if the same row was in a file before. An existing customer
    is changed in the fields of its row, and gets the keys that it lacks, by their names. The same file again changes
    nothing.

    A CSV has the columns name, tier, status, period, timezone, external_id, limits such as period_tokens_max, and for
    one key each key_name (a new key), key_expires, or key_sha256 and key_prefix (a key that works elsewhere already).
    JSON lines are customers as POST /admin/customers/bulk takes them.
    """
    customers = list(_named(_read(file)))
    with admin_client(url, token) as client, KeptKeys(out) as key_file, timed(f"Creating {len(customers)} customers"):
        for first in range(0, len(customers), AT_ONCE):
            body = {"upsert": True, "customers": customers[first : first + AT_ONCE]}
            answer = send_request(client, "POST", "/admin/customers/bulk", body)
            key_file.add((answer.json() if answer.is_success else problem(answer).get("saved") or {}).get("data", []))
            if not answer.is_success:
                created, keys = key_file.created
                advice = f" {created} customers are created, with {keys} keys." if created else ""
                raise refusal(answer, advice)
    counts = ", ".join(f"{key_file.states[state]} {state}" for state in ("created", "changed", "unchanged"))
    print(f"{key_file.customers} customers, {key_file.keys} keys. {counts}.", file=sys.stderr)
    if key_file.lost:
        print(
            f"{key_file.lost} of these keys were made by an earlier run and are shown once: where its file is lost, "
            "make new ones with POST /admin/customers/{id}/keys.",
            file=sys.stderr,
        )


class KeptKeys:
    """The file of new keys, opened before anything is created and only appended to; a new, empty file is removed.

    Keys are secrets: only its owner may read the file, even if the file existed before. A customer's line is on disk
    before the next request; a customer with a line from an earlier run gets another line only for a new key.

    Raises:
        StartupError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.customers = 0
        self.keys = 0
        self.states: Counter[str] = Counter()
        self.created = (0, 0)
        """New customers, and their keys."""
        self.lost = 0
        """Keys of an earlier run whose texts are in no line of the file."""
        self._path = path
        self._file: TextIO | None = None
        self._known: set[str] = set()
        self._is_new = False

    def __enter__(self) -> KeptKeys:
        if self._path == STANDARD:
            return self
        self._is_new = not self._path.exists()
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            os.fchmod(descriptor, 0o600)
            self._file = os.fdopen(descriptor, "r+", encoding="utf-8")
            self._file.seek(0)
            text = self._file.read()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise StartupError(f"{self._path}: {reason}.", exit_code=2) from error
        self._known = set(_ids_in(text))
        if text and not text.endswith("\n"):
            self._file.write("\n")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            is_empty = os.fstat(self._file.fileno()).st_size == 0
            self._file.close()
            if is_empty and self._is_new:
                self._path.unlink()

    def add(self, entries: list[dict[str, Any]]) -> None:
        """Write a line for each customer."""
        for entry in entries:
            line = _line(entry)
            made_elsewhere = {key["key_id"] for key in entry["keys"] if not key["prefix"].startswith(OWN)}
            without_text = [key for key in line["keys"] if key["key"] is None and key["key_id"] not in made_elsewhere]
            self.customers += 1
            self.keys += len(line["keys"])
            self.states[entry["state"]] += 1
            if entry["state"] == "created":
                self.created = (self.created[0] + 1, self.created[1] + len(line["keys"]))
            if line["id"] in self._known and all(key["key"] is None for key in line["keys"]):
                continue
            self.lost += len(without_text) if line["id"] not in self._known else 0
            self._known.add(line["id"])
            print(json.dumps(line, ensure_ascii=False), file=self._file or sys.stdout)
        output = self._file or sys.stdout
        output.flush()
        if self._file is not None:
            os.fsync(self._file.fileno())


def _ids_in(lines: str) -> Iterator[str]:
    for line in lines.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("id"), str):
            yield value["id"]


LONGEST = 19
"""The number of digits of the longest limit."""


def _named(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield customers; without an ``external_id``, a row's content and the count of equal rows so far identify them."""
    occurrences: Counter[str] = Counter()
    for row in rows:
        if row.get("external_id") is not None or "row" in row:
            yield row
            continue
        content = json.dumps(row, sort_keys=True)
        occurrences[content] += 1
        yield {**row, "row": hashlib.sha256(f"{occurrences[content]} {content}".encode()).hexdigest()}


def _read(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the customers of a file.

    Raises:
        StartupError: a line is no customer, or a column is unknown.
    """
    try:
        text = sys.stdin.read() if file == STANDARD else file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StartupError(f"{name_of(file)} is not UTF-8.", exit_code=2) from error
    except OSError as error:
        raise StartupError(f"{name_of(file)}: {error.strerror}.", exit_code=2) from error
    if file.suffix.lower() == ".csv":
        yield from _rows(text)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            customer = parsed(line)
        except (ValueError, RecursionError) as error:
            raise StartupError(f"Line {number} is not JSON that can be read: {error}.", exit_code=2) from error
        if not isinstance(customer, dict):
            raise StartupError(f"Line {number} is no JSON object.", exit_code=2)
        yield customer


def _rows(text: str) -> Iterator[dict[str, Any]]:
    rows = csv.DictReader(io.StringIO(text), strict=True)
    try:
        unknown = [name for name in rows.fieldnames or () if name not in COLUMNS]
        if unknown:
            raise StartupError(f"There is no column {unknown[0]!r:.60}; there are {', '.join(COLUMNS)}.", exit_code=2)
        for row in rows:
            if None in row:
                raise StartupError(f"Line {rows.line_num} has more cells than columns.", exit_code=2)
            yield _customer({name: cell for name, cell in row.items() if cell}, rows.line_num)
    except csv.Error as error:
        raise StartupError(f"Line {rows.line_num}: {error}.", exit_code=2) from error


def _customer(cells: dict[str, str], line: int) -> dict[str, Any]:
    customer: dict[str, Any] = {name: cells[name] for name in OWN_FIELDS if name in cells}
    limits = {name: cells[name] for name in OVERRIDES if name in cells}
    for name, cell in limits.items():
        if not (cell.isascii() and cell.isdecimal() and len(cell) <= LONGEST):
            raise StartupError(f"Line {line}: {name} is a whole number.", exit_code=2)
    key = {field: cells[name] for name, field in KEY_FIELDS.items() if name in cells}
    customer |= {"overrides": {name: int(cell) for name, cell in limits.items()}} if limits else {}
    return customer | ({"keys": [key]} if key else {})


def _line(entry: dict[str, Any]) -> dict[str, Any]:
    customer = {name: entry["customer"][name] for name in ("id", "name", "external_id")}
    return {**customer, "keys": [{name: key[name] for name in ("key_id", "prefix", "key")} for key in entry["keys"]]}
