"""What the operator's settings say of the model's endpoint: where it is, and what it is taken for."""

from __future__ import annotations

from dataclasses import replace

from gateway.serving.detection import Engine
from gateway.serving.endpoint import Endpoint
from gateway.serving.profiles import PROFILES, MediaBounds, as_set
from gateway.settings import Settings


def endpoint_of(settings: Settings) -> Endpoint:
    """Return where the model's endpoint is, and what every request there carries."""
    return Endpoint.of(
        settings.upstream_url, key_of(settings), settings.upstream_key_header, settings.upstream_more_headers
    )


def key_of(settings: Settings) -> str | None:
    """Return the key that the endpoint wants."""
    return settings.upstream_key.get_secret_value() if settings.upstream_key else None


def as_used(engine: Engine, settings: Settings) -> Engine:
    """Return what an upstream is, with what the settings say of it.

    Raises:
        StartupError: a field is to pass that never may.
    """
    name = settings.upstream_profile
    profile = as_set(
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
