"""The ledger's tables of billing: what was typed by hand, which periods are closed, what came after, invoices."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, PrimaryKeyConstraint, String, Table, Text, false, text

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

closings = Table(  # the months of customers that are closed: from then on the same bytes for ever
    "closings",
    metadata,
    Column("customer", String(64), nullable=False),
    Column("month", String(7), nullable=False),  # 2026-10, in the customer's zone
    Column("start", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("chain", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),  # of the chain's last record when it was closed
    Column("closed", BigInteger, nullable=False),
    Column("is_invoiced", Boolean, nullable=False, server_default=false()),  # its invoice is final, or there is none
    PrimaryKeyConstraint("customer", "month"),
    Index("ix_closings_month_customer", "month", "customer"),
    Index("ix_closings_end", "end"),
)

late_records = Table(  # records of a closed period that came later: they count in the period in which they were written
    "late_records",
    metadata,
    Column("chain", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("customer", String(64), nullable=False),
    Column("counts", BigInteger, nullable=False),  # the moment that stands for its time
    PrimaryKeyConstraint("chain", "seq"),
    Index("ix_late_records_counts", "counts"),
)

invoices = Table(  # final ones; drafts are made of the book
    "invoices",
    metadata,
    Column("id", String(96), primary_key=True),
    Column("number", BigInteger, nullable=False, unique=True),  # 1, 2, 3, … without a gap
    Column("customer", String(64), nullable=False),
    Column("month", String(7), nullable=False),
    Column("total", Text, nullable=False),  # nano-units in decimal: more than 64 bits hold
    Column("name", String(200), nullable=False),  # of the customer; blank once it was erased
    Column("external_id", String(200)),
    Column("body", Text, nullable=False),  # JSON, as it became final
    Index("ix_invoices_customer_number", "customer", "number"),
    Index("ix_invoices_month_customer", "month", "customer"),
)

credit_notes = Table(  # documents of credits for what a final invoice charges
    "credit_notes",
    metadata,
    Column("id", String(64), primary_key=True),  # the credit's record
    Column("number", BigInteger, nullable=False, unique=True),  # 1, 2, 3, … without a gap
    Column("customer", String(64), nullable=False),
    Column("invoice", String(96), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("name", String(200), nullable=False),  # of the customer; blank once it was erased
    Column("external_id", String(200)),
    Column("body", Text, nullable=False),  # JSON, as it was issued
    Index("ix_credit_notes_customer_number", "customer", "number"),
    Index("ix_credit_notes_invoice", "invoice"),
)
