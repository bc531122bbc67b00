"""The body fields that each engine knows, by dialect: they pass, unless another table refuses or rewrites them.

``every`` has the fields that all engines take; ``others`` has those of upstreams without their own profile. The names
are from OpenAI's and Anthropic's published request types and from the request types in the sources of vLLM, SGLang,
llama.cpp and Ollama.
"""

from __future__ import annotations

from gateway.serving.upstream.profiles import CHAT, COMPLETIONS, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RESPONSES

EVERY, OTHERS, ANTHROPIC = "every", "others", "anthropic"

SAMPLING = "temperature top_p stop seed presence_penalty frequency_penalty logit_bias logprobs user"
PENALTIES = "top_k min_p repetition_penalty"
OPENAI_CACHE = "prompt_cache_key prompt_cache_options prompt_cache_retention"

TEMPLATE = "chat_template_kwargs add_generation_prompt continue_final_message"
GUIDED = (
    "structured_outputs guided_json guided_regex guided_choice guided_grammar guided_decoding_backend"
    " guided_whitespace_pattern"
)
TOKENS = "stop_token_ids ignore_eos min_tokens skip_special_tokens return_token_ids cache_salt"

VLLM_SAMPLING = (
    f"{PENALTIES} {TOKENS} {GUIDED} length_penalty include_stop_str_in_output spaces_between_special_tokens"
    " truncate_prompt_tokens truncation_side logprob_token_ids allowed_token_ids bad_words add_special_tokens"
    " return_tokens_as_token_ids return_token_offsets vllm_xargs repetition_detection watermarking"
    " thinking_token_budget"
)
VLLM_CHAT = (
    f"{VLLM_SAMPLING} {TEMPLATE} reasoning include_reasoning documents chat_template media_io_kwargs"
    " mm_processor_kwargs"
)

SGLANG_SAMPLING = (
    f"{PENALTIES} {TOKENS} {GUIDED} json_schema regex ebnf stop_regex no_stop_trim return_cached_tokens_details"
    " images_config"
)
SGLANG_CHAT = (
    f"{SGLANG_SAMPLING} {TEMPLATE} reasoning separate_reasoning stream_reasoning max_dynamic_patch min_dynamic_patch"
    " use_audio_in_video return_prompt_token_ids return_meta_info task"
)

LLAMACPP_SAMPLING = (
    "top_k min_p grammar grammar_lazy grammar_triggers json_schema typical_p top_n_sigma xtc_probability xtc_threshold"
    " dynatemp_range dynatemp_exponent repeat_last_n repeat_penalty dry_multiplier dry_base dry_allowed_length"
    " dry_penalty_last_n dry_sequence_breakers mirostat mirostat_tau mirostat_eta adaptive_target adaptive_decay"
    " samplers min_keep n_probs post_sampling_probs n_keep n_discard n_indent cache_prompt ignore_eos preserved_tokens"
    " return_tokens timings_per_token t_max_predict_ms t_max_prompt_ms"
)
LLAMACPP_CHAT = (
    f"{LLAMACPP_SAMPLING} {TEMPLATE} reasoning_format reasoning_budget_tokens reasoning_budget_message"
    " thinking_budget_tokens parse_tool_calls"
)

OTHERS_CHAT = (
    "thinking enable_thinking thinking_budget reasoning include_reasoning reasoning_format reasoning_split"
    " repeat_penalty top_a safe_prompt prompt_mode random_seed transforms usage"
)

_LISTED = {
    CHAT: {
        EVERY: f"messages tools tool_choice parallel_tool_calls response_format reasoning_effort top_logprobs {SAMPLING}",
        "openai": "functions function_call verbosity modalities audio prediction store metadata safety_identifier"
        f" moderation service_tier {OPENAI_CACHE}",
        "vllm": VLLM_CHAT,
        "sglang": SGLANG_CHAT,
        "llamacpp": LLAMACPP_CHAT,
        "ollama": "reasoning",
        OTHERS: f"{PENALTIES} {OTHERS_CHAT}",
    },
    COMPLETIONS: {
        EVERY: f"prompt suffix {SAMPLING}",
        "openai": "echo safety_identifier",
        "vllm": f"{VLLM_SAMPLING} echo response_format",
        "sglang": f"{SGLANG_SAMPLING} echo response_format",
        "llamacpp": f"{LLAMACPP_SAMPLING} echo",
        "ollama": "",
        OTHERS: f"{PENALTIES} repeat_penalty",
    },
    RESPONSES: {
        EVERY: "input instructions previous_response_id store tools tool_choice parallel_tool_calls max_tool_calls text"
        " reasoning include truncation temperature top_p top_logprobs user metadata",
        "openai": f"prompt safety_identifier moderation image service_tier background stream_options {OPENAI_CACHE}",
        "vllm": f"{PENALTIES} prompt_cache_key service_tier background logit_bias seed stop presence_penalty"
        " frequency_penalty stop_token_ids ignore_eos skip_special_tokens include_stop_str_in_output cache_salt"
        " structured_outputs vllm_xargs chat_template_kwargs include_reasoning media_io_kwargs mm_processor_kwargs"
        " watermarking",
        "sglang": f"{PENALTIES} service_tier background stop presence_penalty frequency_penalty cache_salt"
        " chat_template_kwargs",
        "llamacpp": f"{LLAMACPP_CHAT} stop seed presence_penalty frequency_penalty logit_bias",
        "ollama": "",
        OTHERS: PENALTIES,
    },
    MESSAGES: {
        EVERY: "messages system tools tool_choice thinking output_config stop_sequences temperature top_p top_k metadata",
        ANTHROPIC: "cache_control container context_management output_format service_tier speed inference_geo",
        "vllm": "cache_salt chat_template_kwargs vllm_xargs watermarking",
        "sglang": "",
        "llamacpp": "chat_template_kwargs",
        "ollama": "",
        OTHERS: "",
    },
    COUNT_TOKENS: {
        EVERY: "messages system tools tool_choice thinking output_config",
        ANTHROPIC: "cache_control context_management output_format speed",
        "vllm": "chat_template_kwargs",
        "sglang": "",
        "llamacpp": "chat_template_kwargs",
        "ollama": "",
        OTHERS: "",
    },
    EMBEDDINGS: {
        EVERY: "input dimensions encoding_format user",
        "openai": "safety_identifier",
        "vllm": "input_type truncate truncate_prompt_tokens truncation_side padding add_special_tokens embed_dtype"
        " endianness use_activation mm_processor_kwargs cache_salt",
        "sglang": "",
        "llamacpp": "",
        "ollama": "",
        OTHERS: "input_type truncate task late_chunking normalized embedding_type output_dtype output_dimension"
        " prompt_name instruction",
    },
}

KNOWN = {
    endpoint: {engine: frozenset(names.split()) for engine, names in engines.items()}
    for endpoint, engines in _LISTED.items()
}
"""The names of the fields, by route and engine."""


def known(endpoint: str, profile: str) -> frozenset[str]:
    """Return the fields that an upstream of this profile knows; ``any`` may know every field that any engine knows."""
    engines = KNOWN[endpoint]
    if profile == "any":
        return frozenset().union(*engines.values())
    return engines[EVERY] | engines.get(profile, frozenset())
