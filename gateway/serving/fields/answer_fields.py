"""The fields of an upstream's answer that callers see: none of the operator's own fields, and no uncounted text."""

from __future__ import annotations

from typing import Any

HOUSES_OWN = frozenset({"provider", "cost", "cost_details", "cost_in_usd_ticks", "is_byok"})
"""Fields that OpenRouter, xAI and other resellers write into an answer or a chunk, and that no caller sees."""

COUNTS = frozenset(
    {
        *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "reasoning_tokens"),
        *("cached_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens"),
        *("prompt_cache_miss_tokens", "num_cached_tokens", "thoughts_tokens", "tool_use_prompt_tokens"),
    }
)
"""Names of the counts in a usage, from OpenAI, Anthropic, DeepSeek, Kimi, SGLang and others."""

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
"""The details of a usage, and the names in them that pass."""

DETAILED = frozenset(DETAILS)

TIMES = frozenset({"queue_time", "prompt_time", "completion_time", "total_time", "service_tier"})
"""Other facts about a call that some upstreams write into its usage."""

ALLOWED = COUNTS.union(TIMES, DETAILS)


def shown_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Return the part of an upstream's usage that a caller may see: counts under known names, never a cost."""
    shown = {
        name: value
        for name, value in usage.items()
        if name in ALLOWED and (name not in COUNTS or value is None or (type(value) is int and value >= 0))
    }
    for name in DETAILED.intersection(shown):
        if isinstance(details := shown[name], dict):
            shown[name] = {inner: value for inner, value in details.items() if inner in DETAILS[name]}
    return shown


def without_houses_own(answer: dict[str, Any]) -> None:
    """Remove from an answer, or from a chunk, the fields that concern only the operator and its supplier."""
    if not HOUSES_OWN.isdisjoint(answer):
        for name in HOUSES_OWN:
            answer.pop(name, None)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


DELTA = _names(
    "role content reasoning reasoning_content reasoning_text reasoning_details thinking thinking_blocks refusal"
    " tool_calls function_call audio images annotations citations name prefix partial tool_call_id channel recipient"
    " token_ids obfuscation padding signature reasoning_signature thought_signature reasoning_opaque"
    " encrypted_content extra_content content_filter_results provider_specific_fields"
)
"""Fields of a completion's delta or message: those with text are counted, the others are known to have no text."""

CHOICE = _names(
    "index delta message text logprobs finish_reason native_finish_reason stop_reason stop_sequence matched_stop"
    " finish_details content_filter_results content_filter_result content_filter_offsets content_filter_error token_ids"
    " prompt_token_ids prompt_logprobs stats usage error"
)
CHUNK = _names(
    "id object created model choices usage service_tier system_fingerprint obfuscation error provider metadata warnings"
    " prompt_filter_results prompt_annotations prompt_token_ids prompt_logprobs kv_transfer_params timings x_groq"
    " citations search_results related_questions request_id nonce"
)
EVENT = _names(
    "type sequence_number response item part delta text refusal arguments input item_id output_index content_index"
    " summary_index annotation annotation_index logprobs obfuscation partial_image_b64 partial_image_index code error"
    " message param model"
)
"""Fields of an event of a response."""

BLOCK_DELTA = _names("type text thinking partial_json signature citation estimated_tokens")
BLOCK = _names(
    "type text thinking signature data id name input citations caller content tool_use_id is_error cache_control source"
    " title context"
)


def without_unknown_texts(fields: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Return the known fields, and other fields only if they have no text: text in them would not be counted."""
    if known.issuperset(fields):
        return fields
    return {name: value for name, value in fields.items() if name in known or not _has_text(value)}


def _has_text(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_text, value.values()))
    if isinstance(value, list):
        return any(map(_has_text, value))
    return isinstance(value, str) and value != ""
