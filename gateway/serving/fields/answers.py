"""What of an upstream's answer is the house's own: what it pays, to whom, and all of a usage that is no count of the call's."""

from __future__ import annotations

from typing import Any

HOUSES_OWN = ("provider", "cost", "cost_details", "cost_in_usd_ticks", "is_byok")
"""Fields of an answer, or of a chunk of one, that no caller sees, by OpenRouter, xAI and other resellers."""

COUNTS = frozenset(
    {
        *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "reasoning_tokens"),
        *("cached_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens"),
        *("prompt_cache_miss_tokens", "num_cached_tokens", "thoughts_tokens", "tool_use_prompt_tokens"),
    }
)
"""Counts of a usage, by OpenAI, Anthropic, DeepSeek, Kimi, SGLang and others."""

DETAILS = {
    name: frozenset(inner.split())
    for names, inner in {
        "prompt_tokens_details input_tokens_details completion_tokens_details output_tokens_details": (
            "cached_tokens cache_write_tokens cache_creation_tokens audio_tokens text_tokens image_tokens video_tokens"
            " reasoning_tokens thinking_tokens accepted_prediction_tokens rejected_prediction_tokens"
            " multimodal_tokens input_tokens_per_turn output_tokens_per_turn cached_tokens_per_turn tool_output_tokens"
            " tool_output_tokens_per_turn"
        ),
        "cache_creation": "ephemeral_5m_input_tokens ephemeral_1h_input_tokens",
        "server_tool_use": "web_search_requests web_fetch_requests tool_search_requests",
    }.items()
    for name in names.split()
}
"""What a usage says in more detail, and the names in it that pass."""

TIMES = frozenset({"queue_time", "prompt_time", "completion_time", "total_time", "service_tier"})
"""Other things about a call that some say in its usage."""

ALLOWED = COUNTS.union(TIMES, DETAILS)


def shown_usage(said: dict[str, Any]) -> dict[str, Any]:
    """Return what of an upstream's usage a caller may see: counts by their known names, never a cost."""
    shown = {name: value for name, value in said.items() if name in ALLOWED}
    shown = {name: value for name, value in shown.items() if name not in COUNTS or value is None or _is_count(value)}
    for name in DETAILS.keys() & shown.keys():
        if isinstance(details := shown[name], dict):
            shown[name] = {inner: value for inner, value in details.items() if inner in DETAILS[name]}
    return shown


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def without_houses_own(answer: dict[str, Any]) -> None:
    """Take out of an answer, or of a chunk of one, what is between the house and who it buys from."""
    for name in HOUSES_OWN:
        answer.pop(name, None)
