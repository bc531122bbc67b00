"""The rules of a house with one model and no settings, for journeys that are built without ``gateway.app``."""

from __future__ import annotations

from gateway.serving.fields.tools import Hosted
from gateway.serving.journey import Rules
from gateway.serving.upstream.endpoint import Names

RULES = Rules(
    "aligned-1",
    Names(("aligned-1",)),
    customers_choose_tier=False,
    callers_choose_tier=False,
    conversation_headers=(),
    hosted=Hosted(drops=False),
    passed_headers=(),
    call_deadline_s=600,
    write_deadline_s=60,
    stream_keep_alive_s=0,
    passed_fields=frozenset(),
    kept_tokens_max=32_000,
)
