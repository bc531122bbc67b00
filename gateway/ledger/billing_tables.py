"""The ledger's tables of billing: manual credits and fees, closed periods, late and dropped records, invoices."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    false,
    text,
)

from gateway.ledger.tables import metadata
from pricing.usage import END_USER_MOST

REASON_MOST = 500
"""The most characters of a reason."""

adjustments = Table(  # credits and fees entered by hand: why, and by whom; their amounts are in the book
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

closings = Table(  # customers' closed months: once closed, a month never changes by a byte
    "closings",
    metadata,
    Column("customer", String(64), nullable=False),
    Column("month", String(7), nullable=False),  # 2026-10, in the customer's zone
    Column("start", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("chain", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),  # of the chain's last record when the month was closed
    Column("closed", BigInteger, nullable=False),
    Column("is_invoiced", Boolean, nullable=False, server_default=false()),  # its invoice is final, or it gets none
    PrimaryKeyConstraint("customer", "month"),
    Index("ix_closings_month_customer", "month", "customer"),
    Index("ix_closings_end", "end"),
)

late_records = Table(  # records booked after the period of their time was closed: they count in a later period
    "late_records",
    metadata,
    Column("chain", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("customer", String(64), nullable=False),
    Column("counts", BigInteger, nullable=False),  # the time at which the record counts, in place of its own
    PrimaryKeyConstraint("chain", "seq"),
    Index("ix_late_records_counts", "counts", "chain", "seq"),
    Index("ix_late_records_customer", "customer", "counts", "chain", "seq"),
)

invoices = Table(  # final invoices; drafts are computed from the book
    "invoices",
    metadata,
    Column("id", String(96), primary_key=True),
    Column("number", BigInteger, nullable=False, unique=True),  # 1, 2, 3, … without a gap
    Column("customer", String(64), nullable=False),
    Column("month", String(7), nullable=False),
    Column("total", Text, nullable=False),  # nano-units in decimal: it may need more than 64 bits
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

dropped_months = Table(  # closed months of customers whose records retention drops, with their totals
    "dropped_months",
    metadata,
    Column("customer", String(64), nullable=False),
    Column("month", String(7), nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),  # from this time on the records no longer count; deletion is a day later
    Column("is_done", Boolean, nullable=False),  # whether no record of the month is left
    PrimaryKeyConstraint("customer", "month"),
    Index("ix_dropped_months_month_customer", "month", "customer"),
)

dropped_totals = Table(  # sums over the records of a dropped month, by every grouping of totals
    "dropped_totals",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("customer", String(64), nullable=False),
    Column("month", String(7), nullable=False),
    Column("day", String(10), nullable=False),  # in the zone of the closed month
    Column("kind", String(16), nullable=False),
    Column("tier", String(64)),
    Column("key_id", String(64)),
    Column("end_user", String(END_USER_MOST)),
    Column("menu_version", String(128)),
    Column("sums", Text, nullable=False),  # JSON list of whole numbers, which may need more than 64 bits
    Index("ix_dropped_totals_customer_month", "customer", "month"),
)

dropped_conversations = Table(  # conversations that were open at the end of a customer's last dropped month
    "dropped_conversations",
    metadata,
    Column("customer", String(64), nullable=False),
    Column("conversation", String(128), nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("is_begun", Boolean, nullable=False),  # its first output token was in the month
    PrimaryKeyConstraint("customer", "conversation"),
)

dropped_rows = Table(  # which rows under a seal are dropped: bit n of the whole number is for row first_seq + n
    "dropped_rows",
    metadata,
    Column("chain", String(32), nullable=False),
    Column("seal", BigInteger, nullable=False),
    Column("rows", LargeBinary, nullable=False),  # little-endian
    PrimaryKeyConstraint("chain", "seal"),
)
