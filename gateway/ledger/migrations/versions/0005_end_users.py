"""The end user whom a call names, on its record. Records from before have none, and keep their hashes."""

from alembic import op
from sqlalchemy import Column, String, text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("usage_records", Column("end_user", String(length=256), nullable=True))
    op.create_index(
        "ix_usage_records_end_user_time_id",
        "usage_records",
        ["customer", "end_user", "time", "id"],
        unique=False,
        sqlite_where=text("end_user IS NOT NULL"),
        postgresql_where=text("end_user IS NOT NULL"),
    )
