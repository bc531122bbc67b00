"""Decides about each field of a body: it passes, is written by the gateway, is refused, or is dropped and named."""

from __future__ import annotations

from typing import Any

from gateway.errors import BadRequest
from gateway.serving.caller.json_body import Body
from gateway.serving.fields.account_names import OWN
from gateway.serving.fields.guarded_fields import COSTLY, HOUSES, LIMITS, OURS, check_context_management
from gateway.serving.fields.known_fields import KNOWN, known
from gateway.serving.fields.tools import HOSTED_FIELDS
from gateway.serving.upstream.profiles import COUNT_TOKENS, EMBEDDINGS, RESERVED, Profile

REWRITTEN = frozenset({"min_tokens", *OWN})
"""Fields that pass with a value that the gateway may change."""

SHOWN_MOST = 64
"""The most characters of a field's name that a refusal shows."""

GUARDED = HOUSES.union(HOSTED_FIELDS, RESERVED, LIMITS.split())
"""Fields that do not pass even where unknown fields do."""

OBFUSCATION = "include_obfuscation"
"""OpenAI's stream option that pads chunks; other upstreams know only ``include_usage``."""


class Sieve:
    """Decides about the fields of one dialect at one upstream."""

    def __init__(self, endpoint: str, profile: Profile) -> None:
        self._endpoint = endpoint
        self._engine = profile.name
        self._unknown = profile.unknown_fields
        self._own_fields = OURS[endpoint]
        self._passes = (known(endpoint, profile.name) | profile.passes) - self._own_fields
        makes_nothing = endpoint in (COUNT_TOKENS, EMBEDDINGS)
        self._costly = (
            {} if makes_nothing else {name: why for name, why in COSTLY.items() if name not in profile.passes}
        )
        self._checked_fields = (self._costly.keys() | {"context_management"}) - profile.passes | {"stream_options"}
        self._unchecked_fields = (self._passes | self._own_fields) - self._checked_fields
        """Fields that pass or are the gateway's own, and are not checked, whatever their value."""

    def dropped(self, body: Body) -> tuple[str, ...]:
        """Return the names of the fields that neither reach the upstream nor are obeyed by the gateway.

        Raises:
            BadRequest: no token count shows the cost of a field, or a field is unknown where unknown fields are
                refused; ``param`` is the field.
        """
        dropped: list[str] = []
        for name, value in body.items():
            if name not in self._unchecked_fields:
                self._check(name, value, dropped)
        if dropped and self._unknown == "refuse":
            shown = dropped[0][:SHOWN_MOST]
            raise BadRequest(f"{shown} is not a field that is served here.", code="unknown_parameter", param=shown)
        return tuple(dropped)

    def _check(self, name: str, value: Any, dropped: list[str]) -> None:
        if (costly := self._costly.get(name)) is not None:
            costly.check(name, value)
        elif name == "context_management" and name in self._checked_fields:
            check_context_management(self._endpoint, value)
        if name in self._own_fields:
            if name == "stream_options" and isinstance(value, dict):
                dropped += [
                    f"{name}.{option}" for option, setting in value.items() if setting and not self.heeds(option)
                ]
        elif not self.passes(name):
            dropped.append(name)

    def heeds(self, option: str) -> bool:
        """Return whether the gateway or the upstream obeys a stream option."""
        return option == "include_usage" or (option == OBFUSCATION and self._engine in ("any", "openai"))

    def passes(self, name: str) -> bool:
        """Return whether a field that is not refused reaches the upstream."""
        if name in self._passes:
            return True
        return self._unknown == "pass" and name not in GUARDED and name not in self._costly

    def fate(self, name: str) -> str:
        """Return what becomes of a field, as a word; a field with harmful values is ``refused``."""
        if name in self._own_fields:
            return "rewritten"
        checks_value = name == "context_management" and name in self._checked_fields
        if name in self._costly or (checks_value and self._endpoint != COUNT_TOKENS):
            return "refused"
        return ("rewritten" if name in REWRITTEN else "passes") if self.passes(name) else "dropped"

    def passed(self, body: Body, grant: int | None = None) -> Body:
        """Return the fields that reach the upstream, unchanged; a ``min_tokens`` above the grant becomes the grant."""
        known = self._passes
        passed = {name: value for name, value in body.items() if name in known or self.passes(name)}
        if grant is not None and "min_tokens" in passed:
            least_tokens = passed["min_tokens"]
            if isinstance(least_tokens, int) and least_tokens > grant:
                passed["min_tokens"] = grant
        return passed


NAMED = frozenset().union(
    *(names for engines in KNOWN.values() for names in engines.values()),
    *OURS.values(),
    GUARDED,
    COSTLY,
)
"""Every name in any of the tables: only these names may be labels of a metric."""
