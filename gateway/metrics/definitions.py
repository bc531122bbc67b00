"""Every metric. None has a label by customer: the number of series does not grow with the business."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The type of a metric, in the words of the Prometheus text format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name, type, help text and labels; a histogram, in seconds, has the upper bounds of its buckets."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds_s: tuple[float, ...] = ()


REQUESTS = Metric(
    "tokencap_requests_total",
    Kind.COUNTER,
    "Admitted calls that ended, by the finish of their usage record, or unanswered where there is none.",
    ("tier", "outcome"),
)
TOKENS = Metric(
    "tokencap_tokens_total",
    Kind.COUNTER,
    "Billed tokens in the ledger, input and output, by the source of their count.",
    ("tier", "kind", "source"),
)
CAP_HITS = Metric("tokencap_cap_hits_total", Kind.COUNTER, "Answers cut at the cap of their tier.", ("tier",))
CHARGED = Metric("tokencap_charged_nanousd_total", Kind.COUNTER, "Charges in the ledger, nano-units of the currency.")
EXCESS = Metric(
    "tokencap_excess_tokens_total",
    Kind.COUNTER,
    "Tokens that the upstream produced beyond what it was granted; no customer pays for them.",
)
FIRST_TOKEN = Metric(
    "tokencap_time_to_first_token_seconds",
    Kind.HISTOGRAM,
    "From the admission of a call to its first token.",
    bounds_s=(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
REFUSALS = Metric(
    "tokencap_refusals_total",
    Kind.COUNTER,
    "Requests that were refused: before admission, or by the HTTP server.",
    ("code",),
)
DROPPED_FIELDS = Metric(
    "tokencap_dropped_fields_total",
    Kind.COUNTER,
    "Fields and tools of admitted calls that did not reach the upstream, by name where the gateway knows it.",
    ("field",),
)
HANGUPS = Metric(
    "tokencap_hangups_total",
    Kind.COUNTER,
    "Admitted calls whose caller left before their end: read to the end for their usage, or closed.",
    ("outcome",),
)
RECOUNTED = Metric(
    "tokencap_recounted_tokens_total",
    Kind.COUNTER,
    "Output tokens of the answers that were counted again: by the upstream, and by the gateway's tokenizer.",
    ("source",),
)
WRONG_TOKENS = Metric("tokencap_wrong_tokens_total", Kind.COUNTER, "Wrong tokens at the admin side and /metrics.")
FAULTS = Metric(
    "tokencap_background_faults_total",
    Kind.COUNTER,
    "Faults in background work, by its part; each part continued after its fault.",
    ("part",),
)
LEDGER_LAG = Metric("tokencap_ledger_lag_records", Kind.GAUGE, "Records that are settled and not yet in the ledger.")
DEAD_LETTERS = Metric(
    "tokencap_ledger_aside_records",
    Kind.GAUGE,
    "Dead letters of the ledger; a number above 0 needs a decision by the operator.",
)
HOLDS = Metric("tokencap_holds", Kind.GAUGE, "Open holds: calls in flight.")
HELD_TOKENS = Metric("tokencap_held_tokens", Kind.GAUGE, "Tokens that open holds have reserved.")
BREACHES = Metric(
    "tokencap_conservation_breaches",
    Kind.GAUGE,
    "Windows that do not add up; the calls of their customers are refused, and the log names them.",
)
CLOCKS_APART = Metric(
    "tokencap_redis_clock_ahead_milliseconds", Kind.GAUGE, "How far Redis' clock is ahead of the bookkeeper's."
)
REDIS_MEMORY = Metric("tokencap_redis_memory_bytes", Kind.GAUGE, "Memory that Redis uses, of the fullest node.")
REDIS_MEMORY_MAX = Metric(
    "tokencap_redis_memory_max_bytes",
    Kind.GAUGE,
    "Redis' maxmemory: above 85 % of it no call is admitted. 0 is no limit.",
)
TURNED_AT = Metric(
    "tokencap_bookkeeper_turn_timestamp_seconds", Kind.GAUGE, "When the bookkeeper last updated the gauges."
)

METRICS = (
    REQUESTS,
    TOKENS,
    CAP_HITS,
    CHARGED,
    EXCESS,
    FIRST_TOKEN,
    REFUSALS,
    DROPPED_FIELDS,
    HANGUPS,
    RECOUNTED,
    WRONG_TOKENS,
    FAULTS,
    LEDGER_LAG,
    DEAD_LETTERS,
    HOLDS,
    HELD_TOKENS,
    BREACHES,
    CLOCKS_APART,
    REDIS_MEMORY,
    REDIS_MEMORY_MAX,
    TURNED_AT,
)
