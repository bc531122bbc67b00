"""The engines that a model may run on: which dialects each speaks, which limits it obeys, how it reports usage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gateway.errors import StartupError

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, COUNT_TOKENS, EMBEDDINGS = "/v1/messages", "/v1/messages/count_tokens", "/v1/embeddings"
ENDPOINTS = frozenset({CHAT, COMPLETIONS, RESPONSES, MESSAGES, COUNT_TOKENS, EMBEDDINGS})


@dataclass(frozen=True, slots=True)
class MediaBounds:
    """The most input tokens that are held for parts of a prompt that are not text, or are not in the body."""

    image_tokens_max: int = 5_000
    audio_tokens_per_kb: int = 32
    file_tokens_max: int = 100_000
    kept_tokens_max: int = 131_072
    """For an earlier answer, a conversation or a prompt that the upstream keeps and the gateway does not know."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of upstream."""

    name: str
    speaks: frozenset[str] = ENDPOINTS
    """Routes that the upstream may have. It answers 404 itself for a route that it turns out to lack."""
    chat_limits: tuple[str, ...] = ("max_completion_tokens", "max_tokens")
    """Fields of a chat completion that carry the grant."""
    takes_engine_limits: bool = True
    """Whether an engine's own spelling of a limit, where the caller used one, is forwarded with the grant in it."""
    continuous_usage: bool = False
    """Whether each chunk can carry the count so far. Then answers are cut exactly even at several tokens a chunk."""
    choices_most: int = 16
    counts_choices_apart: bool = False
    """Whether a usage covers one choice only. Then several choices are requested as a stream, which has all usages."""
    tokenize_field: str | None = None
    """The field of the upstream's ``/tokenize`` that takes the text, or None where there is no such route."""
    passes: frozenset[str] = frozenset()
    """Fields that the operator lets pass in addition to the fields that the engine knows."""
    unknown_fields: str = "drop"
    """What is done with any other field: ``drop``, ``refuse`` or ``pass``."""
    asks_usage: bool = True
    """Whether the gateway requests the usage of a stream by ``stream_options``."""
    always_streams: bool = False
    """Whether the gateway requests a stream even where the caller does not stream."""
    stops_on_hangup: bool = False
    """Whether the engine is known to stop generating once its connection is closed, streamed or whole."""
    finishes: bool = True
    """Whether an answer, streamed or whole, is read on for its usage after its caller hung up."""
    media: MediaBounds = MediaBounds()


ANY = Profile("any")
OPENAI = Profile(
    "openai",
    speaks=frozenset({CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS}),
    chat_limits=("max_completion_tokens",),  # newer models refuse max_tokens, and both together
    takes_engine_limits=False,  # it refuses fields that it does not know
)
VLLM = Profile("vllm", continuous_usage=True, tokenize_field="prompt", stops_on_hangup=True)
SGLANG = Profile("sglang", continuous_usage=True, tokenize_field="prompt", stops_on_hangup=True)
LLAMACPP = Profile("llamacpp", counts_choices_apart=True, tokenize_field="content", stops_on_hangup=True)
OLLAMA = Profile(
    "ollama",
    speaks=ENDPOINTS - {COUNT_TOKENS},
    chat_limits=("max_tokens",),
    choices_most=1,
    stops_on_hangup=True,
)

RESERVED = frozenset(
    {
        *("model", "n", "best_of", "echo", "stream", "stream_options", "background"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "max_gen_tokens", "max_new_tokens"),
        *("n_predict", "num_predict", "n_cmpl", "options", "sampling_params", "generation_config", "extra_body"),
    }
)
"""Fields that no setting lets pass: they are limits, contain limits, or are set by the gateway."""

NAMED = {
    "chat": {CHAT},
    "completions": {COMPLETIONS},
    "responses": {RESPONSES},
    "messages": {MESSAGES, COUNT_TOKENS},
    "embeddings": {EMBEDDINGS},
}
"""Routes by their names in the settings."""

PROFILES = {profile.name: profile for profile in (ANY, OPENAI, VLLM, SGLANG, LLAMACPP, OLLAMA)}


def with_settings(
    profile: Profile,
    *,
    speaks: Iterable[str],
    limits: Iterable[str],
    passes: Iterable[str],
    unknown_fields: str,
    asks_usage: bool,
    always_streams: bool,
    on_hangup: str | None,
    media: MediaBounds,
) -> Profile:
    """Return a profile with the operator's settings applied; empty settings change nothing.

    Raises:
        StartupError: a setting lets a field pass that must never pass.
    """
    if reserved := sorted(RESERVED.intersection(passes)):
        raise StartupError(f"TOKENCAP_PASSED_FIELDS: {reserved[0]} is reserved for the gateway.", exit_code=2)
    routes = frozenset(route for name in speaks for route in NAMED[name])
    return replace(
        profile,
        speaks=routes or profile.speaks,
        chat_limits=tuple(limits) or profile.chat_limits,
        passes=frozenset(passes),
        unknown_fields=unknown_fields,
        asks_usage=asks_usage,
        always_streams=always_streams,
        finishes=not profile.stops_on_hangup if on_hangup is None else on_hangup == "finish",
        media=media,
    )
