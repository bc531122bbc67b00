"""The ledger's tables. Append-only where money is; a correction is a new row."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from gateway.ledger import sums_tables
from pricing.usage import END_USER_MOST

metadata = sums_tables.metadata
"""All tables of the ledger. Times are milliseconds since 1970, UTC; money is nano-units; JSON is stored as text."""

installation = Table(
    "installation",
    metadata,
    Column("id", Integer, primary_key=True),  # one row, id 1
    Column("generation", BigInteger, nullable=False),  # of the hot state; every rebuild raises it
    Column("created", BigInteger, nullable=False),
    Column("identity", String(40)),  # shared with Redis and the data directory; fixed by the first start
    Column("currency", String(3)),  # of every amount; fixed by the first start
)

OWN_PERIOD_PRICE = text("overrides LIKE '%\"period_price_nanousd\"%'")
"""The condition of the partial index: customers who pay a price of their own for each period."""

customers = Table(
    "customers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("tier", String(64)),
    Column("tier_since", BigInteger, nullable=False),
    Column("next_tier", String(64)),
    Column("next_tier_at", BigInteger),
    Column("status", String(16), nullable=False),  # active, blocked, deleted
    Column("period", String(8), nullable=False),  # day, week, month
    Column("timezone", String(64), nullable=False),
    Column("external_id", String(200)),
    Column("overrides", Text, nullable=False),  # JSON object of limit fields
    Column("created", BigInteger, nullable=False),
    Column("rev", BigInteger, nullable=False),  # raised by every change
    Column("projected", Boolean, nullable=False),  # whether Redis has this rev
    Column("subscription_tier", String(64)),  # of the last period whose fee is charged
    Column("subscription_version", String(128)),
    Column("subscription_start", BigInteger),
    Column("subscription_until", BigInteger),
    Column("erased", BigInteger),  # when the customer was erased: since then nothing stored names it
    Column("increase", Text),  # JSON of limits that are raised for a time, and why
    Column("increase_until", BigInteger),
    Column("notice_percents", Text),  # JSON list of percents; null stands for the installation's list
    Column("ended", Text),  # JSON of a paid period that ended early and is not settled yet
    Index("ix_customers_created_id", "created", "id"),
    Index(
        "uq_customers_external_id",  # the operator's own id names one customer; a deleted customer frees it
        "external_id",
        unique=True,
        sqlite_where=text("status <> 'deleted'"),
        postgresql_where=text("status <> 'deleted'"),
    ),
    Index(
        "ix_customers_increase_until",
        "increase_until",
        sqlite_where=text("increase_until IS NOT NULL"),
        postgresql_where=text("increase_until IS NOT NULL"),
    ),
    Index(
        "ix_customers_ended", "id", sqlite_where=text("ended IS NOT NULL"), postgresql_where=text("ended IS NOT NULL")
    ),
    Index("ix_customers_own_period_price", "id", sqlite_where=OWN_PERIOD_PRICE, postgresql_where=OWN_PERIOD_PRICE),
    Index("ix_customers_unprojected", "id", sqlite_where=text("NOT projected"), postgresql_where=text("NOT projected")),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(64), primary_key=True),
    Column("customer", String(64), ForeignKey("customers.id"), nullable=False, index=True),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of the key, hexadecimal
    Column("prefix", String(32), nullable=False),
    Column("name", String(200)),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("revoked", BigInteger),
    Column("projected", Boolean, nullable=False),
    Index(
        "ix_api_keys_unprojected", "key_id", sqlite_where=text("NOT projected"), postgresql_where=text("NOT projected")
    ),
)

menus = Table(
    "menus",
    metadata,
    Column("version", String(128), primary_key=True),
    Column("source", String(16), nullable=False),  # mechanism, manual
    Column("created", BigInteger, nullable=False),
    Column("body", Text, nullable=False),  # menu.json, whole
)

publications = Table(
    "publications",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("version", String(128), ForeignKey("menus.version"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("effective", String(16), nullable=False),  # now, next_period
    Column("moves", Text, nullable=False),  # JSON object, old tier name to new
    Column("projected", Boolean, nullable=False, default=False),
    Column("arms", Text, nullable=False, server_default="{}"),  # JSON object, menu version to share of new customers
)

usage_records = Table(
    "usage_records",
    metadata,
    Column("chain", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("id", String(64), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("corrects", String(64)),
    Column("time", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
    Column("customer", String(64), nullable=False),
    Column("key_id", String(64)),
    Column("conversation", String(128)),
    Column("tier", String(64)),
    Column("tier_chosen", String(64)),
    Column("menu_version", String(128)),
    Column("endpoint", String(64)),
    Column("model", String(200)),
    Column("stream", Boolean, nullable=False),
    Column("choices", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("billed_output_tokens", BigInteger, nullable=False),
    Column("cap_tokens", BigInteger),
    Column("requested_tokens", BigInteger),
    Column("finish", String(16)),
    Column("usage_source", String(16)),
    Column("ttft_ms", BigInteger),
    Column("duration_ms", BigInteger),
    Column("charge_nanousd", BigInteger, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("client_request_id", String(200)),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("end_user", String(END_USER_MOST)),
    Column("input_source", String(16)),
    Column("usage_dispute", String(16)),
    Column("conversation_cap_tokens", BigInteger),
    Column("conversation_is_included", Boolean),
    Column("prepaid_nanousd", BigInteger),  # what a customer paid in advance; such a record charges nothing
    PrimaryKeyConstraint("chain", "seq"),
    Index("ix_usage_records_time", "time"),  # without the id: records of one millisecond are sorted where they are read
    Index("ix_usage_records_customer_time", "customer", "time"),
    Index(
        "ix_usage_records_end_user_time",
        *("customer", "end_user", "time"),
        sqlite_where=text("end_user IS NOT NULL"),
        postgresql_where=text("end_user IS NOT NULL"),
    ),
)

chains = Table(
    "chains",
    metadata,
    Column("chain", String(32), primary_key=True),
    Column("seq", BigInteger, nullable=False),  # of the last record; 0 before the first
    Column("hash", String(64), nullable=False),
)

watermarks = Table(  # the last record of each bucket of the hot state
    "watermarks", metadata, Column("bucket", String(2), primary_key=True), Column("seq", BigInteger, nullable=False)
)

erasures = Table(  # rows whose words were removed: the hash covers the former row, the digest the present row
    "erasures",
    metadata,
    Column("chain", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("leaf", String(64)),  # of the former row; null for rows that were erased before there were seals
    PrimaryKeyConstraint("chain", "seq"),
)

seals = Table(  # each covers the rows of a chain that follow those of the seal before it
    "seals",
    metadata,
    Column("chain", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("root", String(64), nullable=False),
    Column("prev", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("leaves", LargeBinary, nullable=False),  # 32 bytes a row
    PrimaryKeyConstraint("chain", "seq"),
    UniqueConstraint("chain", "last_seq"),
)

usage_dead_letters = Table(
    "usage_aside",
    metadata,
    Column("stream", String(64), nullable=False),
    Column("entry", String(64), nullable=False),
    Column("reason", Text, nullable=False),  # why the entry is not in the book, one sentence
    Column("body", Text, nullable=False),  # the fields of the entry, unchanged, as JSON in ASCII
    PrimaryKeyConstraint("stream", "entry"),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("time", BigInteger, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(64), nullable=False),  # customer.create, key.rotate, …
    Column("target", String(128), nullable=False),
    Column("before", Text),
    Column("after", Text),
)

admin_tokens = Table(
    "admin_tokens",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("created", BigInteger, nullable=False),
    Column("retired", BigInteger),
)

admin_replies = Table(
    "admin_replies",
    metadata,
    Column("key", String(255), primary_key=True),  # route and Idempotency-Key
    Column("request", String(64), nullable=False),  # SHA-256 of the body
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),  # without any secret
    Column("time", BigInteger, nullable=False),
)

rollup_read = Table(  # the last record of each chain that is in the running sums
    "rollup_read", metadata, Column("chain", String(32), primary_key=True), Column("seq", BigInteger, nullable=False)
)

rollup_windows = Table(  # the latest periods of each customer; sums are high * 2^27 + low
    "rollup_windows",
    metadata,
    Column("customer", String(64), nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
    Column("tokens_high", BigInteger, nullable=False),
    Column("tokens_low", BigInteger, nullable=False),
    Column("charge_high", BigInteger, nullable=False),
    Column("charge_low", BigInteger, nullable=False),
    Column("included", BigInteger, nullable=False),  # conversations that a subscription included
    PrimaryKeyConstraint("customer", "start", "end"),
)

rollup_conversations = Table(  # the conversations that may continue
    "rollup_conversations",
    metadata,
    Column("customer", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("tier", String(64)),
    Column("menu_version", String(128)),
    Column("tokens", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("was_charged", Boolean, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("cap", BigInteger),
    Column("ended_first", BigInteger),  # of the ended conversation that had the name before
    Column("ended_last", BigInteger),
    PrimaryKeyConstraint("customer", "name"),
    Index("ix_rollup_conversations_last", "last"),
)

conversation_threads = Table(  # threads of the last hour: parts of answers that a caller may bring back
    "conversation_threads",
    metadata,
    Column("customer", String(64), nullable=False),
    Column("thread", String(64), nullable=False),
    Column("conversation", String(128), nullable=False),  # empty where the thread leads to several
    Column("settled", BigInteger, nullable=False),
    PrimaryKeyConstraint("customer", "thread"),
    Index("ix_conversation_threads_settled", "settled"),
)

pricing_runs = Table(
    "pricing_runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("state", String(16), nullable=False),  # queued, running, done, refused, failed, cancelled
    Column("created", BigInteger, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("asked", Text, nullable=False),  # JSON
    Column("attempt", Integer, nullable=False),  # raised by every process that takes the run up: the run's fence
    Column("started", BigInteger),
    Column("beat", BigInteger),  # the last sign of life of the process that works on it
    Column("finished", BigInteger),
    Column("doing", String(64)),
    Column("percent", Integer, nullable=False),
    Column("reason", Text),  # why there is no draft, or why the draft was not put in force; one sentence
    Column("result", Text),  # JSON: estimates, comparison, replay, notes
    Column("draft", Text),  # menu.json, whole
    Column("published", BigInteger),
    Index("ix_pricing_runs_created_id", "created", "id"),
)
