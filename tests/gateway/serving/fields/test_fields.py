"""Every field of the vendors' published request types passes, is rewritten, is refused or is named as dropped."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_type_hints

import pytest

from gateway.errors import BadRequest
from gateway.serving.caller.headers import dropped_header
from gateway.serving.dialects.base import Dialect
from gateway.serving.dialects.registry import dialects
from gateway.serving.fields.field_filter import Sieve
from gateway.serving.fields.guarded_fields import COSTLY, HOUSES, OURS
from gateway.serving.fields.known_fields import KNOWN
from gateway.serving.fields.tools import HOSTED_FIELDS
from gateway.serving.upstream.profiles import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    PROFILES,
    RESERVED,
    RESPONSES,
    Profile,
)
from tests.gateway.serving.published import published

GRANT = 50

BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True},
    COMPLETIONS: {"model": "m", "prompt": "Hello", "stream": True},
    RESPONSES: {"model": "m", "input": "Hello", "stream": True},
    MESSAGES: {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 90, "stream": True},
    COUNT_TOKENS: {"model": "m", "messages": [{"role": "user", "content": "Hello"}]},
    EMBEDDINGS: {"model": "m", "input": "Hello"},
}

VALUES: dict[str, Any] = {
    **dict.fromkeys(("n", "max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "num_predict"), 3),
    **dict.fromkeys(("max_new_tokens", "max_gen_tokens", "best_of"), 1),
    **dict.fromkeys(("user", "safety_identifier", "previous_response_id", "conversation"), "abc"),
    "min_tokens": 70,
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False, "chunks": 5},
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    "thinking": {"type": "disabled"},
    "tools": [{"type": "custom", "name": "f", "input_schema": {"type": "object"}}],
    "metadata": {"user_id": "abc"},
    "messages": [{"role": "user", "content": "Hello", "name": "Anna", "cache_control": {"type": "ephemeral"}}],
    "input": "Hello",
    "prompt": {"id": "pmpt_1"},
}


def served(profile: Profile) -> list[Dialect]:
    return [dialect for dialect in dialects(profile) if dialect.endpoint in profile.speaks]


def names_of(endpoint: str) -> set[str]:
    """Return every name that a vendor publishes for a route, and every name of any engine's table."""
    of_vendors = {name for kind in published(endpoint) for name in get_type_hints(kind)}
    listed = frozenset().union(*(names for engines in KNOWN.values() for names in engines.values()))
    return (
        of_vendors
        | listed
        | OURS[CHAT]
        | HOUSES
        | HOSTED_FIELDS
        | RESERVED
        | COSTLY.keys()
        | {"made_up", "sampling_params"}
    )


def value_of(endpoint: str, name: str) -> Any:
    if endpoint == COMPLETIONS and name == "prompt":
        return "Hello"
    return BODIES[endpoint].get(name, VALUES.get(name, {"some": ["thing"]}))


def forwarded(dialect: Dialect, body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the body sent upstream, and the dropped names that its caller is told."""
    wanted = dialect.read(body, 1000)
    sent: dict[str, Any] = json.loads(dialect.forward(body, wanted, grant=GRANT, model="the-model"))
    return sent, wanted.dropped


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("unknown", ["drop", "refuse", "pass"])
def test_no_field_is_dropped_in_silence(profile: Profile, unknown: str) -> None:
    """Sent alone, each field reaches the upstream unchanged, is set by the gateway, is refused by name, or is named."""
    silent = []
    for dialect in served(replace(profile, unknown_fields=unknown)):
        for name in names_of(dialect.endpoint):
            value = value_of(dialect.endpoint, name)
            try:
                sent, dropped = forwarded(dialect, {**BODIES[dialect.endpoint], name: value})
            except BadRequest as refused:
                is_said = refused.param is not None and refused.param.startswith(name)
            else:
                is_said = name in dropped or sent.get(name) == value or name in OURS[dialect.endpoint]
                is_said = is_said or (name == "min_tokens" and sent[name] == GRANT)
                assert not (name in dropped and name in sent)
            if not is_said:
                silent.append((dialect.endpoint, name))

    assert silent == []


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("unknown", ["drop", "pass"])
def test_what_costs_uncounted_never_reaches_the_upstream(profile: Profile, unknown: str) -> None:
    """However unknown fields are handled, costly fields, limits and the house's own fields do not pass."""
    for dialect in served(replace(profile, unknown_fields=unknown)):
        if dialect.endpoint in (COUNT_TOKENS, EMBEDDINGS):
            continue
        for name in (
            COSTLY.keys() | HOUSES | HOSTED_FIELDS | {"n_cmpl", "options", "sampling_params", "extra_body"}
        ) - {"stop"}:
            try:
                sent, _ = forwarded(dialect, {**BODIES[dialect.endpoint], name: "priority"})
            except BadRequest as refused:
                assert refused.param == name
            else:
                assert name not in sent


def test_every_limit_that_reaches_the_upstream_is_the_grant() -> None:
    """This includes the caller's own names of the limit, where they are forwarded."""
    limits = {name: 3000 for name in OURS[CHAT] if "token" in name or "predict" in name}
    for profile in PROFILES.values():
        for dialect in served(replace(profile, unknown_fields="pass")):
            least_tokens = {} if dialect.endpoint in (COUNT_TOKENS, EMBEDDINGS) else {"min_tokens": 3000}
            sent, _ = forwarded(dialect, {**BODIES[dialect.endpoint], **limits, **least_tokens})

            limits_sent = {name: sent[name] for name in (*limits, *least_tokens) if name in sent}
            assert set(limits_sent.values()) <= {GRANT}, dialect.endpoint
            assert bool(limits_sent) == (dialect.endpoint not in (COUNT_TOKENS, EMBEDDINGS))


@pytest.mark.parametrize(
    ("profile", "endpoint", "names"),
    [
        (
            "vllm",
            CHAT,
            "chat_template_kwargs guided_json structured_outputs stop_token_ids continue_final_message reasoning",
        ),
        (
            "sglang",
            CHAT,
            "chat_template_kwargs structured_outputs stop_token_ids continue_final_message reasoning regex",
        ),
        ("llamacpp", CHAT, "grammar json_schema chat_template_kwargs cache_prompt"),
        ("openai", CHAT, "store metadata prompt_cache_key prediction verbosity"),
        ("openai", RESPONSES, "store metadata prompt prompt_cache_key stream_options"),
        ("any", MESSAGES, "context_management output_format cache_control container"),
        ("any", EMBEDDINGS, "input_type dimensions truncate"),
        ("vllm", EMBEDDINGS, "input_type dimensions truncate"),
    ],
)
def test_what_an_engine_knows_reaches_it_as_it_came(profile: str, endpoint: str, names: str) -> None:
    dialect = next(one for one in dialects(PROFILES[profile]) if one.endpoint == endpoint)
    fields = {name: value_of(endpoint, name) for name in names.split()}

    sent, dropped = forwarded(dialect, {**BODIES[endpoint], **fields})

    assert {name: sent.get(name) for name in fields} == fields
    assert dropped == ()


@pytest.mark.parametrize(
    ("endpoint", "name", "harmless", "costly"),
    [
        (RESPONSES, "background", False, True),
        (RESPONSES, "service_tier", "auto", "priority"),
        (CHAT, "service_tier", "default", "flex"),
        (COMPLETIONS, "echo", False, True),
        (COMPLETIONS, "best_of", 1, 2),
        (CHAT, "best_of", 1, 2),
        (MESSAGES, "speed", "standard", "fast"),
        (MESSAGES, "service_tier", "standard_only", "priority"),
        (
            MESSAGES,
            "context_management",
            {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            {"edits": [{"type": "clear_tool_uses_20250919"}, {"type": "compact_20260112"}]},
        ),
        (MESSAGES, "fallbacks", None, [{"model": "another"}]),
    ],
)
def test_a_field_is_refused_for_the_value_that_costs(endpoint: str, name: str, harmless: Any, costly: Any) -> None:
    """Values that clients send by default change nothing, and are no reason to refuse a call."""
    dialect = next(one for one in dialects(PROFILES["any"]) if one.endpoint == endpoint)
    forwarded(dialect, {**BODIES[endpoint], name: harmless})

    with pytest.raises(BadRequest) as refused:
        forwarded(dialect, {**BODIES[endpoint], name: costly})

    assert refused.value.param == name
    is_ours = name in OURS[endpoint]
    assert Sieve(endpoint, PROFILES["any"]).fate(name) == ("rewritten" if is_ours else "refused")


def test_the_operator_may_let_a_field_pass() -> None:
    """Fields listed in ``TOKENCAP_PASSED_FIELDS`` pass whatever the tables say."""
    profile = replace(PROFILES["openai"], passes=frozenset({"service_tier", "priority", "made_up"}))
    chat = dialects(profile)[0]

    sent, dropped = forwarded(chat, {**BODIES[CHAT], "service_tier": "flex", "priority": 1, "made_up": 2})

    assert (sent["service_tier"], sent["priority"], sent["made_up"], dropped) == ("flex", 1, 2, ())


def test_options_of_a_stream_are_heeded_or_named() -> None:
    options = {"include_usage": True, "include_obfuscation": False, "chunks": 5}
    for profile, heeds in (("openai", True), ("vllm", False)):
        sent, dropped = forwarded(dialects(PROFILES[profile])[0], {**BODIES[CHAT], "stream_options": options})

        assert ("include_obfuscation" in sent["stream_options"]) == heeds
        assert dropped == ("stream_options.chunks",)


def test_a_usage_that_is_not_asked_for_is_not_asked_for() -> None:
    chat, completions, *_ = dialects(replace(PROFILES["vllm"], asks_usage=False))

    assert "stream_options" not in forwarded(chat, {**BODIES[CHAT], "stream_options": {"include_usage": True}})[0]
    assert "stream_options" not in forwarded(completions, BODIES[COMPLETIONS])[0]


def test_the_header_that_names_what_was_dropped_is_bounded_and_safe() -> None:
    """For any names of fields the header is one line of printable ASCII."""
    names = ("evil\r\nset-cookie: a", "a,b", "ünïcode", "x" * 10_000, *(f"f{number}" for number in range(1000)))

    [(name, value)] = dropped_header(names)

    assert name == b"x-tokencap-dropped"
    assert len(value) < 3000
    assert value.isascii() and value.decode().isprintable()
    assert value.startswith(b"evil??set-cookie:?a, a?b, ?n?code, xxx")


@pytest.mark.parametrize("profile", ["openai", "any"])
def test_a_prediction_does_not_meet_the_limit_that_refuses_it(profile: str) -> None:
    """OpenAI answers 400 to ``prediction`` beside ``max_completion_tokens``, even one that the gateway added."""
    request = {**BODIES[CHAT], "max_completion_tokens": 90, "prediction": {"type": "content", "content": "Hello"}}

    sent, _ = forwarded(dialects(PROFILES[profile])[0], request)

    assert sent["prediction"] == request["prediction"]
    assert (sent.get("max_completion_tokens"), sent["max_tokens"]) == (None, GRANT)
