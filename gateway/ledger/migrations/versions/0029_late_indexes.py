"""Late records are read page by page in the order of the moment that they count at, of all customers or of one."""

from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    op.drop_index("ix_late_records_counts", "late_records")
    op.create_index("ix_late_records_counts", "late_records", ["counts", "chain", "seq"])
    op.create_index("ix_late_records_customer", "late_records", ["customer", "counts", "chain", "seq"])
