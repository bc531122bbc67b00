"""Derives the upstream's endpoint and profile, and the serving rules, from the operator's settings."""

from __future__ import annotations

from dataclasses import replace

from gateway.serving.dialects.base import Dialect
from gateway.serving.fields.tools import Hosted
from gateway.serving.journey import Rules
from gateway.serving.upstream.detection import Engine
from gateway.serving.upstream.endpoint import Endpoint, Names
from gateway.serving.upstream.profiles import EMBEDDINGS, PROFILES, MediaBounds, with_settings
from gateway.settings import Settings


def endpoint_of(settings: Settings) -> Endpoint:
    """Return the upstream's endpoint: its address, and the headers of every request to it."""
    return Endpoint.of(
        settings.upstream_url, key_of(settings), settings.upstream_key_header, settings.upstream_more_headers
    )


def key_of(settings: Settings) -> str | None:
    """Return the key that the endpoint is sent, or None."""
    return settings.upstream_key.get_secret_value() if settings.upstream_key else None


def effective_profile(engine: Engine, settings: Settings) -> Engine:
    """Return an engine whose profile has the operator's settings applied.

    Raises:
        StartupError: a setting lets a field pass that must never pass.
    """
    name = settings.upstream_profile
    profile = with_settings(
        engine.profile if name == "auto" else PROFILES[name],
        speaks=settings.upstream_dialects,
        limits=settings.upstream_limit_fields,
        passes=settings.passed_fields,
        unknown_fields=settings.unknown_fields,
        asks_usage=settings.upstream_usage == "ask",
        always_streams=settings.upstream_streams == "always",
        on_hangup=settings.on_hangup,
        media=MediaBounds(
            image_tokens_max=settings.image_tokens_max,
            audio_tokens_per_kb=settings.audio_tokens_per_kb,
            file_tokens_max=settings.file_tokens_max,
            kept_tokens_max=settings.kept_tokens_max,
        ),
    )
    return replace(engine, profile=profile)


def rules_of(settings: Settings) -> Rules:
    """Return the rules of what this gateway serves."""
    return Rules(
        model=settings.model,
        names=Names((settings.model, *settings.model_aliases)),
        customers_choose_tier=settings.self_selection != "none",
        callers_choose_tier=settings.self_selection == "conversation",
        conversation_headers=_names_of_headers(settings.conversation_headers),
        hosted=Hosted(drops=settings.hosted_tools == "drop"),
        passed_headers=settings.passed_headers,
        call_deadline_s=settings.call_deadline_s,
        write_deadline_s=settings.write_deadline_s,
        stream_keep_alive_s=settings.stream_keep_alive_s,
        passed_fields=frozenset(settings.passed_fields),
        kept_tokens_max=settings.kept_tokens_max,
    )


def _names_of_headers(listed: str) -> tuple[bytes, ...]:
    return tuple(name.strip().lower().encode() for name in listed.split(",") if name.strip())


def rules_for(dialect: Dialect, rules: Rules, settings: Settings) -> Rules:
    """Return the rules of a dialect: embeddings have a model of their own."""
    if dialect.endpoint != EMBEDDINGS or settings.embedding_model is None:
        return rules
    return replace(rules, model=settings.embedding_model, names=Names((settings.embedding_model,)))
