"""Limits of a customer that are raised for a time."""

from alembic import op
from sqlalchemy import BigInteger, Column, Text, text

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("customers", Column("increase", Text()))
    op.add_column("customers", Column("increase_until", BigInteger()))
    raised = text("increase_until IS NOT NULL")
    op.create_index(
        "ix_customers_increase_until",
        "customers",
        ["increase_until"],
        sqlite_where=raised,
        postgresql_where=raised,
    )
