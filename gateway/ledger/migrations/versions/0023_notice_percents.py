"""Adds the percents of its limits at which the webhook gets a notice of a customer."""

from alembic import op
from sqlalchemy import Column, Text

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.add_column("customers", Column("notice_percents", Text()))
