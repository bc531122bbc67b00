"""What a customer paid in advance, on each record of kind prepaid."""

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    op.add_column("usage_records", Column("prepaid_nanousd", BigInteger(), nullable=True))
