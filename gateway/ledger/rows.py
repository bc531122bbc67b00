"""How a usage record stands in SQL: its columns in the contract's order, and back from a row."""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import Row

from gateway.ledger.tables import usage_records
from pricing.usage import FIELDS, UsageRecord

AnyRow: TypeAlias = "Row[*tuple[Any, ...]]"

COLUMNS = tuple(usage_records.c[field] for field in FIELDS)
"""Select these, in this order, and ``record_of`` reads the rows."""


def record_of(row: AnyRow) -> UsageRecord:
    """Return the record in a row that was selected by COLUMNS."""
    return dict(zip(FIELDS, row, strict=True))
