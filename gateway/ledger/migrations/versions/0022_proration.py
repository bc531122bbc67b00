"""Paid periods that ended early, until what is left of them is credited."""

from alembic import op
from sqlalchemy import Column, Text, text

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.add_column("customers", Column("ended", Text()))
    ended = text("ended IS NOT NULL")
    op.create_index("ix_customers_ended", "customers", ["id"], sqlite_where=ended, postgresql_where=ended)
