"""Writes a closed month to a folder: each invoice as JSON and as a page, the totals by customer, and a manifest.

The bytes are the same each time.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.billing.invoice_book import InvoiceBook
from gateway.billing.invoice_page import page
from gateway.billing.totals import COUNTED, totals_by
from gateway.ledger.billing.counted import Month
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span

AT_ONCE = 100


def write_month(folder: Path, database: Database, book: InvoiceBook, period: str) -> dict[str, Any]:
    """Write a closed month; return its manifest, which is written last.

    A file that has the right bytes is left unchanged; any other file is replaced atomically by a complete file. So the
    call may be repeated after a kill at any point.
    """
    files, total, count = [], 0, 0
    (folder / "invoices").mkdir(parents=True, exist_ok=True)
    for invoice in _invoices(book, period):
        name = f"invoices/{invoice['id']}"
        files.append(_put(folder, f"{name}.json", json.dumps(invoice, indent=2, ensure_ascii=False) + "\n"))
        files.append(_put(folder, f"{name}.html", page(invoice)))
        total, count = total + invoice["total_nanousd"], count + 1
    files.append(_put(folder, "totals.csv", _totals(database, period)))
    manifest = {"period": period, "closed": True, "invoices": count, "total_nanousd": total, "files": files}
    _put(folder, "manifest.json", json.dumps(manifest, indent=2) + "\n")
    return manifest


def _invoices(book: InvoiceBook, period: str) -> Iterator[dict[str, Any]]:
    after: str | None = ""
    while after is not None:
        batch = book.of_month(period, customer=None, status="final", after=after, limit=AT_ONCE)
        yield from batch.data
        after = batch.after


def _totals(database: Database, period: str) -> str:
    """Return what each customer used and owes, as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ("customer", *COUNTED), lineterminator="\n")
    writer.writeheader()
    writer.writerows(totals_by(database, "customer", Span(), Month(database, period)))
    return text.getvalue()


def _put(folder: Path, name: str, text: str) -> dict[str, Any]:
    """Write a file that only its owner can read, unless it has these bytes already; return its manifest entry."""
    path, content = folder / name, text.encode()
    if not path.is_file() or path.read_bytes() != content:
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    return {"file": name, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
