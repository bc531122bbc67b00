"""Subscriptions: the period that a customer has paid for, and the tier and menu that hold until it ends."""

from alembic import op
from sqlalchemy import BigInteger, Column, String

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("customers") as customers:
        customers.add_column(Column("subscription_tier", String(64)))
        customers.add_column(Column("subscription_version", String(128)))
        customers.add_column(Column("subscription_start", BigInteger()))
        customers.add_column(Column("subscription_until", BigInteger()))
