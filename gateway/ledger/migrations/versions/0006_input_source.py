"""Who counted the input tokens, on each record. Records from before do not say."""

from alembic import op
from sqlalchemy import Column, String

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("usage_records", Column("input_source", String(length=16), nullable=True))
