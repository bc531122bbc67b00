"""Credit notes: numbered documents that name the final invoice which a credit is for."""

from alembic import op
from sqlalchemy import BigInteger, Column, String, Text

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.create_table(
        "credit_notes",
        Column("id", String(64), primary_key=True),
        Column("number", BigInteger(), nullable=False, unique=True),
        Column("customer", String(64), nullable=False),
        Column("invoice", String(96), nullable=False),
        Column("amount", BigInteger(), nullable=False),
        Column("name", String(200), nullable=False),
        Column("external_id", String(200)),
        Column("body", Text(), nullable=False),
    )
    op.create_index("ix_credit_notes_customer_number", "credit_notes", ["customer", "number"])
    op.create_index("ix_credit_notes_invoice", "credit_notes", ["invoice"])
