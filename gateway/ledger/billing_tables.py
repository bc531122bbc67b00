"""The ledger's tables of billing: what was typed by hand, beside the record that it is in the book."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, String, Table, Text, text

from gateway.ledger.tables import metadata

REASON_MOST = 500
"""Characters of a reason."""

adjustments = Table(  # credits and fees typed by hand: why, and by whom; their amounts stand in the book
    "adjustments",
    metadata,
    Column("id", String(64), primary_key=True),  # the record's
    Column("customer", String(64), nullable=False),
    Column("record", String(64)),  # the record that a credit is for
    Column("reason", Text),  # null once its customer was erased
    Column("actor", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("ix_adjustments_customer_at_id", "customer", "at", "id"),
    Index(
        "ix_adjustments_record",
        "record",
        sqlite_where=text("record IS NOT NULL"),
        postgresql_where=text("record IS NOT NULL"),
    ),
)
