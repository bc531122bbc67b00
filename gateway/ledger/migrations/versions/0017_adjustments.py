"""Credits and fees typed by hand: why, and by whom."""

from alembic import op
from sqlalchemy import BigInteger, Column, String, Text, text

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "adjustments",
        Column("id", String(64), primary_key=True),
        Column("customer", String(64), nullable=False),
        Column("record", String(64)),
        Column("reason", Text()),
        Column("actor", String(64), nullable=False),
        Column("at", BigInteger(), nullable=False),
    )
    op.create_index("ix_adjustments_customer_at_id", "adjustments", ["customer", "at", "id"])
    said = text("record IS NOT NULL")
    op.create_index("ix_adjustments_record", "adjustments", ["record"], sqlite_where=said, postgresql_where=said)
