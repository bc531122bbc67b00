"""Names of all keys in Redis; the hash tag of every key is its bucket, so a script never leaves one slot."""

from __future__ import annotations

import hashlib
from functools import lru_cache

BUCKETS = 256
ALL_BUCKETS = tuple(f"{number:02x}" for number in range(BUCKETS))


@lru_cache(maxsize=100_000)
def bucket_of(customer: str) -> str:
    """Return the bucket of a customer: two hexadecimal digits, part of each of its API keys."""
    return hashlib.sha256(customer.encode()).hexdigest()[:2]


def state(bucket: str) -> str:
    """Hash: the state of a bucket.

    ``generation`` written by the ledger, ``rebuilding`` while a rebuild puts holds back, ``timeline`` the number of the
    latest publication, ``full`` if the server is full, ``tide`` the number of the last record of the bucket's customers
    that the ledger has.
    """
    return f"{{b{bucket}}}:state"


def api_key(bucket: str, digest: str) -> str:
    """Hash: ``customer``, ``key_id``, ``expires`` (ms or empty); gone once revoked."""
    return f"{{b{bucket}}}:key:{digest}"


def place(digest: str) -> str:
    """String: the bucket of an API key that was made elsewhere and so does not name its bucket, by the key's digest."""
    return f"place:{digest}"


def customer(bucket: str, customer_id: str) -> str:
    """Hash: ``rev`` and ``body``, the customer's record as JSON."""
    return f"{{b{bucket}}}:customer:{customer_id}"


def window(bucket: str, customer_id: str, start_ms: int) -> str:
    """Hash: one period of a customer: ``amounts``, see ``packing.WindowState``, and the notified thresholds."""
    return f"{{b{bucket}}}:window:{customer_id}:{start_ms}"


def end_user(bucket: str, customer_id: str, start_ms: int, name: str | None) -> str:
    """Hash: tokens of one end user in one period, ``used`` and ``held``; calls that name no end user share a hash."""
    digest = hashlib.blake2b((name or "").encode(), digest_size=16).hexdigest()
    return f"{{b{bucket}}}:end_user:{customer_id}:{start_ms}:{digest}"


def conversation(bucket: str, customer_id: str, name: str) -> str:
    """String: one conversation, see ``packing.ConversationState``."""
    return f"{{b{bucket}}}:conversation:{customer_id}:{name}"


def pace(bucket: str, customer_id: str) -> str:
    """Hash: ``live`` calls; the theoretical arrival times of requests, ``tat_us``, and of counts, ``count_tat_us``."""
    return f"{{b{bucket}}}:pace:{customer_id}"


def inflight(bucket: str) -> str:
    """Hash: the holds of in-flight calls by id, each a packed string, and their progress at their last renewal."""
    return f"{{b{bucket}}}:inflight"


def rescued(bucket: str) -> str:
    """Hash: what ``inflight`` had before a rebuild, until ``inflight`` has it again."""
    return f"{{b{bucket}}}:rescued"


def settled(bucket: str) -> str:
    """Hash: the marks of settled holds by id, packed. A mark outlives any repetition of a command."""
    return f"{{b{bucket}}}:settled"


def older_hold(bucket: str, hold_id: str) -> str:
    """Hash: one hold, as the previous version writes it."""
    return f"{{b{bucket}}}:hold:{hold_id}"


def older_holds(bucket: str) -> str:
    """Sorted set: open holds of the previous version by the end of their lease, ms."""
    return f"{{b{bucket}}}:holds"


def thread(bucket: str, customer_id: str, digest: str) -> str:
    """String: a conversation, by the digest of a part of an answer that its caller may send back."""
    return f"{{b{bucket}}}:thread:{customer_id}:{digest}"


def once(bucket: str, customer_id: str, digest: str) -> str:
    """Hash of an Idempotency-Key: ``body`` (a digest), ``call`` and, once it exists, the sealed ``answer``."""
    return f"{{b{bucket}}}:once:{customer_id}:{digest}"


def answers(bucket: str, customer_id: str) -> str:
    """Hash: bytes of the answers kept for a customer's Idempotency-Keys, by the hour in which they were kept."""
    return f"{{b{bucket}}}:answers:{customer_id}"


def refusals(bucket: str, customer_id: str) -> str:
    """List: the last refusals of a customer, newest first, each the values of ``refusal_log.FIELDS`` as JSON."""
    return f"{{b{bucket}}}:refusals:{customer_id}"


def refusal_counts(bucket: str) -> str:
    """Hash: how many refusals are kept of each customer of a bucket; the field without a name is their sum."""
    return f"{{b{bucket}}}:refusal-counts"


def refusal_order(bucket: str) -> str:
    """Sorted set: when each customer of a bucket whose refusals are kept was last refused, ms."""
    return f"{{b{bucket}}}:refusal-order"


def locked_out(bucket: str, customer_id: str) -> str:
    """Hash: by limit, the period and amount for which a lock-out of the customer was notified."""
    return f"{{b{bucket}}}:locked_out:{customer_id}"


def usage(bucket: str) -> str:
    """Stream: settled records not yet in SQL; fields ``record`` (JSON), ``charge`` (nano-units), ``settled`` (ms)."""
    return f"{{b{bucket}}}:usage"


def notices(bucket: str) -> str:
    """Stream: notices for the webhook.

    They are about limits of which customers have used a share (``limit``, ``percent``, ``facts``) or that refuse their
    calls (``locked_out``, ``facts``), and in the first bucket about menus put in force (``publication``, JSON).
    """
    return f"{{b{bucket}}}:notices"


def of_call(bucket: str, customer_id: str, start_ms: int, name: str) -> list[str]:
    """Return the keys of every verb of a call: state, inflight, settled, window, conversation, pace, usage."""
    return [
        state(bucket),
        inflight(bucket),
        settled(bucket),
        window(bucket, customer_id, start_ms),
        conversation(bucket, customer_id, name),
        pace(bucket, customer_id),
        usage(bucket),
    ]


def menu(version: str) -> str:
    """String: one immutable menu, its public part as JSON."""
    return f"menu:{version}"


TIMELINE = "menus"
"""Hash: ``rev`` and ``body``, the publications as JSON, oldest first."""

WATERMARK = "tide"
"""Hash: ``seq``, the ledger's last record when Redis was last notified; ``booked``, the last record that the ledger
certainly had; ``counted``, the generation whose counts are being booked."""

CLOCK = "clock"
"""String: Redis' time at the bookkeeper's last turn, ms; a clock that shows less was set back."""

BREACHES = "breaches"
"""Hash: windows that do not add up, by kind of breach and name; the value is a sentence that names the fault."""

DEAD_NOTICES = "notices-aside"
"""Stream: notices that the webhook did not take within a day; the last thousand."""

COURIER_LOCK = "courier"
"""String: held by the one process that delivers notices."""

RECLAIMER = "reclaimer"
"""String: written in each turn of a reclaimer, which thereby learns whether renewals can be written."""

REBUILD_LOCK = "rebuild"
"""String: held by the one gateway that rebuilds the hot state."""


def worker(worker_id: str) -> str:
    """String: a worker's heartbeat; expires a lease after the last beat."""
    return f"worker:{worker_id}"


def ended_worker(worker_id: str) -> str:
    """String: proof that a worker has ended, written by the process that observed its end; its holds need not wait."""
    return f"gone:{worker_id}"
