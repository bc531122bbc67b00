"""Customers with a period's price of their own are found without reading all."""

from alembic import op
from sqlalchemy import text

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    own = text("overrides LIKE '%\"period_price_nanousd\"%'")
    op.create_index("ix_customers_own_period_price", "customers", ["id"], sqlite_where=own, postgresql_where=own)
