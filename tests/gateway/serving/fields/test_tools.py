"""Tools that the caller runs pass in every format; tools that the upstream would run are refused or dropped."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.serving.caller.headers import dropped_header
from gateway.serving.fields.tools import Hosted

NAMES = frozenset({"aligned-1"})
FUNCTION = {"type": "function", "function": {"name": "f"}}
FLAT = {"type": "function", "name": "f", "parameters": {}}
CUSTOM = {"name": "f", "input_schema": {"type": "object"}}

CALLERS = [
    FUNCTION,
    FLAT,
    CUSTOM,
    {"function": {"name": "f"}},
    {"type": None, "name": "f"},
    {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
    {"type": "namespace", "name": "mcp__docs", "description": "d", "tools": [FLAT]},
    {"type": "tool_search", "execution": "client", "parameters": {}},
    {"type": "tool_search"},
    {"type": "local_shell"},
    {"type": "shell"},
    {"type": "shell", "environment": {"type": "local"}},
    {"type": "apply_patch"},
    {"type": "computer_use_preview", "display_width": 1, "display_height": 1, "environment": "browser"},
    {"type": "computer"},
    *({"type": f"bash_{date}", "name": "bash"} for date in (20241022, 20250124, 20991231)),
    {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
    {"type": "computer_20251124", "name": "computer"},
    {"type": "computer_toolset_20260801"},
    {"type": "memory_20250818", "name": "memory"},
    {"type": "tool_search_tool_bm25", "name": "tool_search_tool_bm25"},
    {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
]
HOSTED = [
    *("web_search", "web_search_preview", "web_search_preview_2025_03_11", "web_search_2025_08_26"),
    *("web_search_premium", "web_search_20250305", "web_search_20260318", "web_fetch_20250910", "x_search"),
    *("code_interpreter", "code_execution", "code_execution_20250522", "code_execution_20250825"),
    *("file_search", "collections_search", "image_generation", "mcp", "mcp_toolset", "programmatic_tool_calling"),
    *("browser_search", "builtin_function", "retrieval", "document_library", "live_search", "google_search"),
    *("openrouter:web_search", "openrouter:datetime", "advisor_20260301", "url_context", "url_context_20250901"),
    *("bash_and_web_search_20990101", "bash_code_execution", "memory_and_more", "computer_rental", "functions"),
    *("custom_search", "text_editor_code_execution_20250825", "FUNCTION", "function ", "bash_2025012"),
]
OTHERWISE_HOSTED: list[tuple[dict[str, Any], str]] = [
    ({"type": "shell", "environment": {"type": "container_auto"}}, "shell"),
    ({"type": "shell", "environment": {"type": "container_reference", "container_id": "c"}}, "shell"),
    ({"google_search": {}}, "google_search"),
    ({"type": 7}, "7"),
    ({"type": ""}, "tool"),
    ({}, "tool"),
]
FIELDS: list[dict[str, Any]] = [
    {"web_search_options": {}},
    {"plugins": [{"id": "web"}]},
    {"search_parameters": {"mode": "auto"}},
    {"enable_search": True},
    {"mcp_servers": [{"type": "url", "url": "https://example.com", "name": "x"}]},
    {"data_sources": [{"type": "azure_search"}]},
    {"connectors": [{"id": "web-search"}]},
    {"compound_custom": {"tools": {"enabled_tools": ["web_search"]}}},
]


def taken(body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a body without hosted tools, and the names of the dropped parts."""
    request = {"model": "aligned-1", **copy.deepcopy(body)}
    return request, Hosted(drops=True).leave_out(request, NAMES)


def refused(body: dict[str, Any]) -> BadRequest:
    with pytest.raises(BadRequest) as error:
        Hosted(drops=False).leave_out({"model": "aligned-1", **copy.deepcopy(body)}, NAMES)
    return error.value


@pytest.mark.parametrize("tool", CALLERS, ids=str)
def test_what_the_caller_runs_passes_as_it_came(tool: dict[str, Any]) -> None:
    body = {"model": "aligned-1", "tools": [tool], "tool_choice": "auto", "parallel_tool_calls": True}
    for drops in (True, False):
        request = copy.deepcopy(body)

        assert Hosted(drops=drops).leave_out(request, NAMES) == ()
        assert request == body


@pytest.mark.parametrize(
    ("tool", "name"), [*(({"type": kind, "name": "x"}, kind) for kind in HOSTED), *OTHERWISE_HOSTED], ids=str
)
def test_what_the_upstream_would_run_is_refused_or_left_out(tool: dict[str, Any], name: str) -> None:
    error = refused({"tools": [FUNCTION, tool]})
    assert (error.status, error.param) == (400, "tools")
    assert error.message.startswith(name)
    body, left_out = taken({"tools": [FUNCTION, tool], "tool_choice": "auto"})

    assert left_out == (name,)
    assert body == {"model": "aligned-1", "tools": [FUNCTION], "tool_choice": "auto"}


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_a_field_that_asks_for_one_is_as_well(fields: dict[str, Any]) -> None:
    [name] = fields
    assert refused(fields).param == name

    assert taken(fields) == ({"model": "aligned-1"}, (name,))


@pytest.mark.parametrize("fields", [{"web_search_options": None}, {"enable_search": False}, {"plugins": []}], ids=str)
def test_a_field_that_asks_for_nothing_is_left_alone(fields: dict[str, Any]) -> None:
    assert Hosted(drops=False).leave_out({"model": "aligned-1", **fields}, NAMES) == ()


def test_a_model_that_searches_the_web() -> None:
    assert refused({"model": "aligned-1:online"}).param == "model"
    assert taken({"model": "aligned-1:online"}) == ({"model": "aligned-1"}, ("model:online",))
    others = {"model": "other:online"}
    assert Hosted(drops=False).leave_out(others, NAMES) == ()  # the call is a 404 later, since nobody serves this model
    assert Hosted(drops=False).leave_out(others, frozenset({"other:online"})) == ()  # the operator configured this name


def test_without_any_tool_left_nothing_speaks_of_tools() -> None:
    """The fields that depend on tools are dropped and named, too."""
    fields = {"tools": [{"type": "web_search"}], "tool_choice": "required", "parallel_tool_calls": False, "input": "x"}

    left_out = ("web_search", "tool_choice", "parallel_tool_calls")
    assert taken(fields) == ({"model": "aligned-1", "input": "x"}, left_out)


SEARCH = {"type": "web_search_20250305", "name": "search"}


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        ({"type": "web_search_preview"}, None),
        ({"type": "mcp", "server_label": "x"}, None),
        ({"type": "tool", "name": "search"}, None),
        ({"type": "tool", "name": "f"}, {"type": "tool", "name": "f"}),
        ({"type": "function", "name": "f"}, {"type": "function", "name": "f"}),
        ({"type": "any"}, {"type": "any"}),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "server_label": "x"}, FLAT]},
            {"type": "allowed_tools", "mode": "auto", "tools": [FLAT]},
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "web_search"}, FUNCTION]}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [FUNCTION]}},
        ),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "image_generation"}]}, None),
    ],
    ids=str,
)
def test_a_choice_of_one_becomes_the_models_own(choice: dict[str, Any], left: dict[str, Any] | None) -> None:
    body, left_out = taken({"tools": [CUSTOM, SEARCH], "tool_choice": choice})

    assert body["tools"] == [CUSTOM]
    assert body.get("tool_choice") == left
    assert left_out[0] == "web_search_20250305"


def test_a_choice_alone_is_refused_too() -> None:
    assert refused({"tools": [FLAT], "tool_choice": {"type": "file_search"}}).param == "tool_choice"


CARRIED = [
    {"input": [{"type": "additional_tools", "role": "developer", "tools": [FLAT, {"type": "web_search"}]}]},
    {"input": [{"type": "tool_search_output", "call_id": "c", "tools": [FLAT, {"type": "web_search"}]}]},
    {"tools": [{"type": "namespace", "name": "n", "tools": [FLAT, {"type": "web_search"}]}]},
]


@pytest.mark.parametrize("fields", CARRIED, ids=str)
def test_a_tool_is_found_wherever_it_comes_in(fields: dict[str, Any]) -> None:
    [field] = fields
    assert refused(fields).param == field
    body, left_out = taken(fields)

    assert left_out == ("web_search",)
    assert body[field][0]["tools"] == [FLAT]


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "tool_definition", "definition": {"type": "web_fetch_20250910", "name": "web_fetch"}},
        {"type": "mcp_toolset_reference", "mcp_server_name": "x"},
    ],
    ids=str,
)
def test_a_block_that_brings_one_goes(tool: dict[str, Any]) -> None:
    own_tool = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": CUSTOM}}
    content = [{"type": "text", "text": "Hi"}, own_tool, {"type": "tool_addition", "tool": tool}]
    fields = {"messages": [{"role": "user", "content": content}, {"role": "user", "content": "x"}]}
    assert refused(fields).param == "messages"
    body, _ = taken(fields)

    assert body["messages"][0]["content"] == content[:2]


@pytest.mark.parametrize("tools", [{}, "web_search", 3, ["web_search"], [FLAT, None]], ids=str)
def test_tools_that_are_none(tools: Any) -> None:
    for drops in (True, False):
        with pytest.raises(BadRequest, match="tools is a list of objects"):
            Hosted(drops=drops).leave_out({"model": "aligned-1", "tools": tools}, NAMES)


def test_namespaces_without_end() -> None:
    tool: dict[str, Any] = FLAT
    for _ in range(150):
        tool = {"type": "namespace", "name": "n", "tools": [tool]}

    assert refused({"tools": [tool]}).param == "tools"


def test_the_header_can_be_sent_whatever_the_names() -> None:
    [(_, value)] = dropped_header(("a\r\nb: c", "ä,x", "y" * 1_000, *map(str, range(40))))

    assert value.startswith(b"a??b:?c, ??x, " + b"y" * 64 + b", 0, ")
    assert value.endswith(b", 28, ...")


@pytest.mark.parametrize("kind", [[], {}, 7, None])
def test_an_item_whose_type_is_no_text_is_left_to_the_upstream(kind: Any) -> None:
    body = {"input": [{"type": kind, "tools": [{"type": "web_search"}]}]}
    with_original_bytes = copy.deepcopy(body)

    assert Hosted(drops=True).leave_out(body, NAMES) == ()
    assert body == with_original_bytes
