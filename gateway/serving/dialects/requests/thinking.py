"""Brings a request's thinking budgets below the grant: engines refuse budgets above their limit or exceed the limit."""

from __future__ import annotations

import re
from typing import Any

from gateway.serving.caller.json_body import Body

ANTHROPIC_LEAST, GEMINI_LEAST, OTHERS_LEAST = 1024, 512, 128
"""The smallest budgets that endpoints accept: Anthropic and OpenRouter; Gemini's smallest models; SiliconFlow."""

HOLDERS = {
    **dict.fromkeys(("thinking", "reasoning", "reasoning_config"), ANTHROPIC_LEAST),
    **dict.fromkeys(("thinking_config", "thinkingConfig"), GEMINI_LEAST),
}
"""Objects about thinking, and the smallest budget that each can have: a grant with room for less drops the object."""

CARRIERS = frozenset(
    {
        *("chat_template_kwargs", "vllm_xargs", "nvext", "extra_body", "google", "anthropic", "generationConfig"),
        *("providerOptions", "provider_options", "additional_model_request_fields", "extra_params"),
    }
)
"""Objects that may have a budget among other fields."""

BUDGETS = frozenset(
    {
        *("budget_tokens", "budgetTokens", "token_budget", "thinking_budget", "thinkingBudget"),
        *("thinking_budget_tokens", "thinking_token_budget", "reasoning_budget", "reasoning_budget_tokens"),
        *("max_thinking_tokens", "max_reasoning_tokens"),
    }
)
"""Names of budgets in tokens, from Anthropic, Cohere, Qwen, Gemini, Seed, vLLM, llama.cpp and NVIDIA."""

LEAST = {"thinking_budget": OTHERS_LEAST}
"""The smallest budget in a field of the body itself; a smaller budget is left out."""

LOOKED_AT = BUDGETS | HOLDERS.keys() | CARRIERS

CLEARS_THINKING = re.compile(r"clear_thinking_\d{8}")


def bound_thought(passed: Body, grant: int) -> tuple[str, ...]:
    """Bring the budgets in the fields ``passed`` below ``grant``; return the names of the fields that were left out.

    A budget that fits stays unchanged. A budget that would fall below its endpoint's minimum is left out, with the
    fields that depend on it, so there is no thinking. Earlier thoughts stay in the conversation.
    """
    if LOOKED_AT.isdisjoint(passed):
        return ()
    dropped: list[str] = []
    most = grant - 1
    bounded: Any
    for name in sorted(LOOKED_AT & passed.keys()):
        value = passed[name]
        if isinstance(value, dict):
            bounded = _bounded(value, name, most, dropped)
        elif name in BUDGETS and _is_above(value, most):
            bounded = most if most >= LEAST.get(name, 0) else None
            dropped += [name] if bounded is None else []
        else:
            continue
        if bounded is None:
            del passed[name]
        else:
            passed[name] = bounded
    if "thinking" in dropped:
        _clear_no_thinking(passed, dropped)
    if "thinking_budget" in dropped and passed.get("enable_thinking"):
        passed["enable_thinking"] = False
    return tuple(dropped)


def _bounded(holder: Body, path: str, most: int, dropped: list[str]) -> Body | None:
    """Return an object with no budget above ``most``, or None where ``most`` is below the object's smallest budget."""
    kind = path.rpartition(".")[2]
    bounded: Body = {}
    for name, value in holder.items():
        if isinstance(value, dict):
            inner = _bounded(value, f"{path}.{name}", most, dropped)
            if inner is None:
                continue
            bounded[name] = inner
        elif (name in BUDGETS or (kind == "reasoning" and name == "max_tokens")) and _is_above(value, most):
            if most < HOLDERS.get(kind, 0):
                dropped.append(path)
                return None
            bounded[name] = most
        else:
            bounded[name] = value
    return bounded


def _is_above(budget: Any, most: int) -> bool:
    return isinstance(budget, int | float) and not isinstance(budget, bool) and budget > most


def _clear_no_thinking(passed: Body, dropped: list[str]) -> None:
    """Leave out the edits in Anthropic's context management that Anthropic refuses without thinking."""
    management = passed.get("context_management")
    if not isinstance(management, dict) or not isinstance(edits := management.get("edits"), list):
        return
    clearing = [edit for edit in edits if isinstance(edit, dict) and CLEARS_THINKING.fullmatch(str(edit.get("type")))]
    remaining = [edit for edit in edits if edit not in clearing]
    dropped += [f"context_management.edits.{edit['type']}" for edit in clearing]
    if remaining or not clearing:
        passed["context_management"] = {**management, "edits": remaining}
    else:
        del passed["context_management"]
