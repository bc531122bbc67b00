"""The tables of the sums that a market is estimated from; when emptied, they are rebuilt from the book."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, MetaData, PrimaryKeyConstraint, String, Table

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

sums_read = Table(  # the last record of each chain that is in the sums
    "sums_read", metadata, Column("chain", String(32), primary_key=True), Column("seq", BigInteger, nullable=False)
)

sums_going = Table(  # conversations that may continue: not in the sums yet
    "sums_going",
    metadata,
    Column("customer", String(64), nullable=False),
    Column("conversation", String(128), nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("tier", String(64), nullable=False),
    Column("menu_version", String(128), nullable=False),
    Column("chosen", Boolean, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("waited_ms", BigInteger, nullable=False),
    Column("early_ms", BigInteger, nullable=False),
    Column("untimed_ms", BigInteger, nullable=False, server_default="0"),
    Column("at", BigInteger, nullable=False),
    Column("record", String(64), nullable=False),
    Column("finish", String(16), nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    Column("fault", String(64), nullable=False),
    PrimaryKeyConstraint("customer", "conversation"),
)

sums_lengths = Table(
    "sums_lengths",
    metadata,
    Column("week", BigInteger, nullable=False),
    Column("menu_version", String(128), nullable=False),
    Column("tier", String(64), nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("observed", BigInteger, nullable=False),
    Column("censored", BigInteger, nullable=False),
    PrimaryKeyConstraint("week", "menu_version", "tier", "tokens"),
)

sums_own_lengths = Table(
    "sums_own_lengths",
    metadata,
    Column("week", BigInteger, nullable=False),
    Column("customer", String(64), nullable=False),
    Column("menu_version", String(128), nullable=False),
    Column("tier", String(64), nullable=False),
    Column("even", Integer, nullable=False),  # whether the number of the conversation's day since 1970 is even
    Column("bin", Integer, nullable=False),  # of the length: four bins for each doubling
    Column("observed", BigInteger, nullable=False),
    Column("censored", BigInteger, nullable=False),
    PrimaryKeyConstraint("customer", "week", "menu_version", "tier", "even", "bin"),
)

sums_customers = Table(
    "sums_customers",
    metadata,
    Column("week", BigInteger, nullable=False),
    Column("customer", String(64), nullable=False),
    Column("conversations", BigInteger, nullable=False),
    Column("disconnects", BigInteger, nullable=False),
    Column("waited_ms", BigInteger, nullable=False),
    Column("early_disconnects", BigInteger, nullable=False),
    Column("early_waited_ms", BigInteger, nullable=False),
    Column("even_disconnects", BigInteger, nullable=False),
    Column("even_waited_ms", BigInteger, nullable=False),
    Column("untimed_disconnects", BigInteger, nullable=False, server_default="0"),
    Column("untimed_waited_ms", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("customer", "week"),
)

sums_tiers = Table(
    "sums_tiers",
    metadata,
    Column("week", BigInteger, nullable=False),
    Column("customer", String(64), nullable=False),
    Column("menu_version", String(128), nullable=False),
    Column("tier", String(64), nullable=False),
    Column("chosen", Boolean, nullable=False),  # whether the tier was named for the conversation itself
    Column("conversations", BigInteger, nullable=False),
    PrimaryKeyConstraint("customer", "week", "menu_version", "tier", "chosen"),
)

sums_ages = Table(
    "sums_ages",
    metadata,
    Column("week", BigInteger, nullable=False),
    Column("age", BigInteger, nullable=False),  # seconds after the call
    Column("waits", BigInteger, nullable=False),
    Column("disconnects", BigInteger, nullable=False),
    Column("within_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("week", "age"),
)

sums_pace = Table(
    "sums_pace",
    metadata,
    Column("week", BigInteger, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("ttft_ms", BigInteger, nullable=False),
    Column("ttft_squared", Double, nullable=False),  # squares of a busy week exceed 64 bits
    Column("tokens", BigInteger, nullable=False),
    Column("tokens_squared", Double, nullable=False),
    Column("ms", BigInteger, nullable=False),
    Column("ms_squared", Double, nullable=False),
    Column("tokens_ms", Double, nullable=False),
    PrimaryKeyConstraint("week"),
)

sums_paced = Table(  # how many streamed calls of a customer are in the week's pace
    "sums_paced",
    metadata,
    Column("week", BigInteger, nullable=False),
    Column("customer", String(64), nullable=False),
    Column("calls", BigInteger, nullable=False),
    PrimaryKeyConstraint("customer", "week"),
)

sums_excluded = Table(
    "sums_aside",
    metadata,
    Column("week", BigInteger, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("records", BigInteger, nullable=False),
    PrimaryKeyConstraint("week", "reason"),
)
