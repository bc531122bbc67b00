"""Fields that no profile lets pass: the gateway's own, the operator's own, and fields whose cost no count shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gateway.errors import BadRequest
from gateway.serving.upstream.profiles import CHAT, COMPLETIONS, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RESPONSES

LIMITS = "n_predict num_predict max_new_tokens max_gen_tokens max_tokens max_completion_tokens max_output_tokens"

OURS = {
    CHAT: frozenset(f"model n best_of stream stream_options {LIMITS}".split()),
    COMPLETIONS: frozenset(f"model n best_of stream stream_options {LIMITS}".split()),
    RESPONSES: frozenset(f"model stream {LIMITS}".split()),
    MESSAGES: frozenset({"model", "stream", "max_tokens"}),
    COUNT_TOKENS: frozenset({"model"}),
    EMBEDDINGS: frozenset({"model"}),
}
"""Fields that the gateway reads and writes itself: the upstream's model name, the grant, the choices, the stream."""

HOUSES = frozenset(
    {
        *("priority", "request_id", "rid", "session_id", "session_params", "stream_interval", "id_slot"),
        *("kv_transfer_params", "ec_transfer_params", "mm_payload", "return_mm_kwargs", "prompt_embeds", "input_ids"),
        *("bootstrap_host", "bootstrap_port", "bootstrap_room", "routed_dp_rank", "disagg_prefill_dp_rank"),
        *("data_parallel_rank", "lora", "lora_path", "custom_logit_processor", "logits_processors", "custom_params"),
        *("ngram_corpus_id", "custom_labels", "extra_key", "response_fields", "return_progress", "verbose"),
        *("keep_alive", "access_programs", "background_options", "billing_policy", "workspace_id", "user_profile_id"),
        *("fallback_credit_token", "diagnostics", "_debug_render_only", "conversation"),
    }
)
"""Fields that affect other customers' calls, the model or the operator's account. They are dropped, unless
TOKENCAP_PASSED_FIELDS lists them."""


@dataclass(frozen=True, slots=True)
class Costly:
    """Why a field is refused, and its harmless values: with a harmless value the field is like any other field."""

    why: str
    harmless: tuple[Any, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Raise BadRequest unless the value is null or harmless."""
        if value is not None and not any(
            type(value) is type(harmless) and value == harmless for harmless in self.harmless
        ):
            raise BadRequest(f"{name} is not served: {self.why}.", param=name)


ELSEWHERE = "one model is sold here, and the operator decides where it runs"
PRICED = "with it the upstream bills a different price from the price that is sold"
UNSEEN = "with it the model writes text that nobody is shown"
BULKY = "with it the answer has more than the tokens that are counted"

COSTLY = {
    "background": Costly("an answer is counted while its caller waits", (False,)),
    "echo": Costly("the prompt is not sold as an answer", (False,)),
    "service_tier": Costly(PRICED, ("auto", "default", "standard", "standard_only")),
    "speed": Costly(PRICED, ("standard",)),
    "inference_geo": Costly(PRICED, ("global",)),
    "models": Costly(ELSEWHERE, ([],)),
    "fallbacks": Costly(ELSEWHERE, ([],)),
    "route": Costly(ELSEWHERE),
    "provider": Costly(ELSEWHERE),
    "use_beam_search": Costly(UNSEEN, (False,)),
    "compaction": Costly("no limit bounds what it generates"),
    "thread": Costly("the upstream keeps the conversations of all customers under one account"),
    "prompt_logprobs": Costly(BULKY, (False,)),
    "return_hidden_states": Costly(BULKY, (False,)),
    "return_routed_experts": Costly(BULKY, (False,)),
}
"""Fields whose cost no count shows. Token counts and embeddings generate nothing: in them no field is costly."""

CLEARING = re.compile(r"clear_(?:tool_uses|thinking)_\d{8}")
"""Context edits that only leave parts out. Other edits make the model write a summary that no limit bounds."""


def check_context_management(endpoint: str, value: Any) -> None:
    """Refuse context management that generates tokens; outside Messages and token counts refuse all of it.

    Raises:
        BadRequest: an edit may generate tokens, or is not an edit.
    """
    edits = value.get("edits") if isinstance(value, dict) else None
    if value is None or endpoint == COUNT_TOKENS:
        return
    kinds = (
        [edit.get("type") if isinstance(edit, dict) else None for edit in edits or ()] if endpoint == MESSAGES else [0]
    )
    if not isinstance(value, dict) or not all(isinstance(kind, str) and CLEARING.fullmatch(kind) for kind in kinds):
        raise BadRequest(
            "context_management is served where it clears tool uses or thinking: no limit bounds a summary.",
            param="context_management",
        )
