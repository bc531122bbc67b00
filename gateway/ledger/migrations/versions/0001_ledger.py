"""The first tables: customers, keys, menus, the usage records with their chain, audit."""

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    String,
    Text,
    UniqueConstraint,
    text,
)

revision = "0001"
down_revision = None

COUNTED = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up only in a column that is INTEGER


def upgrade() -> None:
    _create_customers()
    _create_menus()
    _create_book()
    _create_admin()


def _create_customers() -> None:
    op.create_table(
        "installation",
        Column("id", Integer(), nullable=False),
        Column("generation", BigInteger(), nullable=False),
        Column("created", BigInteger(), nullable=False),
        PrimaryKeyConstraint("id", name="pk_installation"),
    )
    op.create_table(
        "customers",
        Column("id", String(length=64), nullable=False),
        Column("name", String(length=200), nullable=False),
        Column("tier", String(length=64), nullable=True),
        Column("tier_since", BigInteger(), nullable=False),
        Column("next_tier", String(length=64), nullable=True),
        Column("next_tier_at", BigInteger(), nullable=True),
        Column("status", String(length=16), nullable=False),
        Column("period", String(length=8), nullable=False),
        Column("timezone", String(length=64), nullable=False),
        Column("external_id", String(length=200), nullable=True),
        Column("overrides", Text(), nullable=False),
        Column("created", BigInteger(), nullable=False),
        Column("rev", BigInteger(), nullable=False),
        Column("projected", Boolean(), nullable=False),
        PrimaryKeyConstraint("id", name="pk_customers"),
    )
    op.create_index("ix_customers_created_id", "customers", ["created", "id"], unique=False)
    living, waiting = text("status <> 'deleted'"), text("NOT projected")
    op.create_index(
        *("uq_customers_external_id", "customers", ["external_id"]),
        unique=True,
        sqlite_where=living,
        postgresql_where=living,
    )
    op.create_index(*("ix_customers_unprojected", "customers", ["id"]), sqlite_where=waiting, postgresql_where=waiting)
    op.create_table(
        "api_keys",
        Column("key_id", String(length=64), nullable=False),
        Column("customer", String(length=64), nullable=False),
        Column("digest", String(length=64), nullable=False),
        Column("prefix", String(length=32), nullable=False),
        Column("name", String(length=200), nullable=True),
        Column("created", BigInteger(), nullable=False),
        Column("expires", BigInteger(), nullable=True),
        Column("revoked", BigInteger(), nullable=True),
        Column("projected", Boolean(), nullable=False),
        ForeignKeyConstraint(["customer"], ["customers.id"], name="fk_api_keys_customer"),
        PrimaryKeyConstraint("key_id", name="pk_api_keys"),
        UniqueConstraint("digest", name="uq_api_keys_digest"),
    )
    op.create_index("ix_api_keys_customer", "api_keys", ["customer"], unique=False)
    op.create_index(
        *("ix_api_keys_unprojected", "api_keys", ["key_id"]), sqlite_where=waiting, postgresql_where=waiting
    )


def _create_menus() -> None:
    op.create_table(
        "menus",
        Column("version", String(length=128), nullable=False),
        Column("source", String(length=16), nullable=False),
        Column("created", BigInteger(), nullable=False),
        Column("body", Text(), nullable=False),
        PrimaryKeyConstraint("version", name="pk_menus"),
    )
    op.create_table(
        "publications",
        Column("seq", COUNTED, autoincrement=True, nullable=False),
        Column("version", String(length=128), nullable=False),
        Column("at", BigInteger(), nullable=False),
        Column("effective", String(length=16), nullable=False),
        Column("moves", Text(), nullable=False),
        Column("projected", Boolean(), nullable=False),
        ForeignKeyConstraint(["version"], ["menus.version"], name="fk_publications_version"),
        PrimaryKeyConstraint("seq", name="pk_publications"),
    )


def _create_book() -> None:
    op.create_table(
        "usage_records",
        Column("chain", String(length=32), nullable=False),
        Column("seq", BigInteger(), nullable=False),
        Column("id", String(length=64), nullable=False),
        Column("kind", String(length=16), nullable=False),
        Column("corrects", String(length=64), nullable=True),
        Column("time", BigInteger(), nullable=False),
        Column("settled", BigInteger(), nullable=False),
        Column("customer", String(length=64), nullable=False),
        Column("key_id", String(length=64), nullable=True),
        Column("conversation", String(length=128), nullable=True),
        Column("tier", String(length=64), nullable=True),
        Column("tier_chosen", String(length=64), nullable=True),
        Column("menu_version", String(length=128), nullable=True),
        Column("endpoint", String(length=64), nullable=True),
        Column("model", String(length=200), nullable=True),
        Column("stream", Boolean(), nullable=False),
        Column("choices", BigInteger(), nullable=False),
        Column("input_tokens", BigInteger(), nullable=False),
        Column("cached_tokens", BigInteger(), nullable=False),
        Column("output_tokens", BigInteger(), nullable=False),
        Column("reasoning_tokens", BigInteger(), nullable=False),
        Column("billed_output_tokens", BigInteger(), nullable=False),
        Column("cap_tokens", BigInteger(), nullable=True),
        Column("requested_tokens", BigInteger(), nullable=True),
        Column("finish", String(length=16), nullable=True),
        Column("usage_source", String(length=16), nullable=True),
        Column("ttft_ms", BigInteger(), nullable=True),
        Column("duration_ms", BigInteger(), nullable=True),
        Column("charge_nanousd", BigInteger(), nullable=False),
        Column("currency", String(length=3), nullable=False),
        Column("client_request_id", String(length=200), nullable=True),
        Column("prev_hash", String(length=64), nullable=False),
        Column("hash", String(length=64), nullable=False),
        PrimaryKeyConstraint("chain", "seq", name="pk_usage_records"),
        UniqueConstraint("id", name="uq_usage_records_id"),
    )
    op.create_index("ix_usage_records_customer_time_id", "usage_records", ["customer", "time", "id"], unique=False)
    op.create_index("ix_usage_records_time_id", "usage_records", ["time", "id"], unique=False)
    op.create_table(
        "chains",
        Column("chain", String(length=32), nullable=False),
        Column("seq", BigInteger(), nullable=False),
        Column("hash", String(length=64), nullable=False),
        PrimaryKeyConstraint("chain", name="pk_chains"),
    )
    op.create_table(
        "usage_aside",
        Column("stream", String(length=64), nullable=False),
        Column("entry", String(length=64), nullable=False),
        Column("reason", Text(), nullable=False),
        Column("body", Text(), nullable=False),
        PrimaryKeyConstraint("stream", "entry", name="pk_usage_aside"),
    )


def _create_admin() -> None:
    op.create_table(
        "audit",
        Column("seq", COUNTED, autoincrement=True, nullable=False),
        Column("time", BigInteger(), nullable=False),
        Column("actor", String(length=64), nullable=False),
        Column("action", String(length=64), nullable=False),
        Column("target", String(length=128), nullable=False),
        Column("before", Text(), nullable=True),
        Column("after", Text(), nullable=True),
        PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_table(
        "admin_tokens",
        Column("digest", String(length=64), nullable=False),
        Column("created", BigInteger(), nullable=False),
        Column("retired", BigInteger(), nullable=True),
        PrimaryKeyConstraint("digest", name="pk_admin_tokens"),
    )
    op.create_table(
        "admin_replies",
        Column("key", String(length=255), nullable=False),
        Column("request", String(length=64), nullable=False),
        Column("status", Integer(), nullable=False),
        Column("body", Text(), nullable=False),
        Column("time", BigInteger(), nullable=False),
        PrimaryKeyConstraint("key", name="pk_admin_replies"),
    )
