"""No field that bounds a model's thinking exceeds the grant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.serving.dialects.registry import dialects
from gateway.serving.dialects.requests.thinking import BUDGETS, bound_thought
from gateway.serving.upstream.profiles import CHAT, MESSAGES, PROFILES, RESPONSES

HELLO = [{"role": "user", "content": "Hello"}]

BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": HELLO, "max_tokens": 32000},
    RESPONSES: {"model": "m", "input": "Hello", "max_output_tokens": 32000},
    MESSAGES: {"model": "m", "messages": HELLO, "max_tokens": 32000},
}

THINKS = {"type": "enabled", "budget_tokens": 31999}

CLEARS = {"type": "clear_thinking_20251015", "keep": "all"}
CLEARS_TOOLS = {"type": "clear_tool_uses_20250919"}


def sent(profile: str, endpoint: str, grant: int, **fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the body sent upstream for a body with ``fields``, and the dropped names that its caller is told."""
    dialect = next(one for one in dialects(PROFILES[profile]) if one.endpoint == endpoint)
    wanted = dialect.read(body := {**BODIES[endpoint], **fields}, 1000)
    return json.loads(dialect.forward(body, wanted, grant=grant, model="the-model")), wanted.dropped


@pytest.mark.parametrize("profile", [name for name, one in PROFILES.items() if MESSAGES in one.speaks])
@pytest.mark.parametrize(
    ("grant", "budget"),
    [(32000, 31999), (31999, 31998), (5000, 4999), (1025, 1024), (1024, None), (64, None), (1, None)],
)
def test_a_message_thinks_for_less_than_it_is_granted(profile: str, grant: int, budget: int | None) -> None:
    """Anthropic refuses a budget that is not below ``max_tokens``, and one below 1,024."""
    body, dropped = sent(profile, MESSAGES, grant, thinking=THINKS)

    assert body["max_tokens"] == grant
    assert body.get("thinking") == (None if budget is None else {"type": "enabled", "budget_tokens": budget})
    assert dropped == (() if budget else ("thinking",))


def test_what_depends_on_thinking_goes_with_it_and_nothing_else() -> None:
    """Anthropic refuses to clear thoughts without thinking, but accepts thoughts in the history."""
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "abc"}]}
    messages = [*HELLO, thought, *HELLO]
    edits = {"edits": [CLEARS, CLEARS_TOOLS]}

    body, dropped = sent("any", MESSAGES, 64, thinking=THINKS, messages=messages, context_management=edits)
    alone, also_dropped = sent("any", MESSAGES, 64, thinking=THINKS, context_management={"edits": [CLEARS]})

    assert body["messages"] == messages
    assert body["context_management"] == {"edits": [CLEARS_TOOLS]}
    assert dropped == ("thinking", "context_management.edits.clear_thinking_20251015")
    assert "context_management" not in alone
    assert also_dropped == dropped


def test_thinking_without_a_budget_stays_as_it_came() -> None:
    for thinking in ({"type": "adaptive", "display": "omitted"}, {"type": "enabled"}, {"type": "disabled"}):
        body, dropped = sent("any", MESSAGES, 64, thinking=thinking, context_management={"edits": [CLEARS]})

        assert (body["thinking"], dropped) == (thinking, ())
        assert body["context_management"] == {"edits": [CLEARS]}


@pytest.mark.parametrize(
    ("profile", "endpoint", "fields", "at_2000", "at_64", "dropped"),
    [
        ("any", CHAT, {"thinking": THINKS}, {"thinking": {"type": "enabled", "budget_tokens": 1999}}, {}, "thinking"),
        ("any", CHAT, {"reasoning": {"max_tokens": 9000}}, {"reasoning": {"max_tokens": 1999}}, {}, "reasoning"),
        ("any", RESPONSES, {"reasoning": {"max_tokens": 9000}}, {"reasoning": {"max_tokens": 1999}}, {}, "reasoning"),
        (
            "any",
            CHAT,
            {"enable_thinking": True, "thinking_budget": 9000},
            {"enable_thinking": True, "thinking_budget": 1999},
            {"enable_thinking": False},
            "thinking_budget",
        ),
        (
            "vllm",
            CHAT,
            {"thinking_token_budget": 9000},
            {"thinking_token_budget": 1999},
            {"thinking_token_budget": 63},
            "",
        ),
        (
            "llamacpp",
            RESPONSES,
            {"thinking_budget_tokens": 9000, "reasoning_budget_tokens": 9000},
            {"thinking_budget_tokens": 1999, "reasoning_budget_tokens": 1999},
            {"thinking_budget_tokens": 63, "reasoning_budget_tokens": 63},
            "",
        ),
        *(
            (
                profile,
                endpoint,
                {"chat_template_kwargs": {"thinking_budget": 9000, "enable_thinking": True}},
                {"chat_template_kwargs": {"thinking_budget": 1999, "enable_thinking": True}},
                {"chat_template_kwargs": {"thinking_budget": 63, "enable_thinking": True}},
                "",
            )
            for profile in ("vllm", "llamacpp")
            for endpoint in (CHAT, RESPONSES, MESSAGES)
        ),
    ],
)
def test_every_engines_bound_is_below_the_grant(
    profile: str, endpoint: str, fields: Any, at_2000: Any, at_64: Any, dropped: str
) -> None:
    names = fields.keys()
    for grant, right in ((2000, at_2000), (64, at_64)):
        body, left_out = sent(profile, endpoint, grant, **fields)

        assert {name: body[name] for name in names & body.keys()} == right
        assert left_out == ((dropped,) if dropped and grant == 64 else ())


def test_gemini_thinks_for_less_than_it_is_granted() -> None:
    """Gemini's configuration is nested in another object, in two spellings; -1 leaves the budget to the model."""
    for holder, name in (("thinking_config", "thinking_budget"), ("thinkingConfig", "thinkingBudget")):
        for grant, most in ((2000, 1999), (64, None)):
            passed = {"extra_body": {"google": {holder: {name: 9000, "include_thoughts": True}}}}

            dropped = bound_thought(passed, grant)

            kept = {} if most is None else {holder: {name: most, "include_thoughts": True}}
            assert passed == {"extra_body": {"google": kept}}
            assert dropped == (() if most else (f"extra_body.google.{holder}",))
        left = {"google": {holder: {name: -1}}}
        assert (bound_thought(left, 64), left) == ((), {"google": {holder: {name: -1}}})


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_no_budget_is_above_what_was_granted(name: str) -> None:
    """At any depth; a budget that fits, and a value that only has a budget's name, stay unchanged."""
    for fits, value in ((True, 100), (True, -1), (True, "9000"), (True, False), (False, 9000), (False, 9000.5)):
        for passed in ({name: value}, {"chat_template_kwargs": {"deep": {name: value}}}):
            before = json.loads(json.dumps(passed))

            dropped = bound_thought(passed, 1000)

            assert dropped == ()
            assert (passed == before) == fits
            assert "9000" not in json.dumps(passed) or value == "9000"
