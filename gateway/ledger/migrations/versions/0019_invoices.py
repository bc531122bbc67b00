"""Final invoices, and for which closed months no further invoice is made."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, String, Text, false

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.add_column("closings", Column("is_invoiced", Boolean(), nullable=False, server_default=false()))
    op.create_table(
        "invoices",
        Column("id", String(96), primary_key=True),
        Column("number", BigInteger(), nullable=False, unique=True),
        Column("customer", String(64), nullable=False),
        Column("month", String(7), nullable=False),
        Column("total", Text(), nullable=False),
        Column("name", String(200), nullable=False),
        Column("external_id", String(200)),
        Column("body", Text(), nullable=False),
    )
    op.create_index("ix_invoices_customer_number", "invoices", ["customer", "number"])
    op.create_index("ix_invoices_month_customer", "invoices", ["month", "customer"])
