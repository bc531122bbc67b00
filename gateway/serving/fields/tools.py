"""Passes tools that the caller runs; refuses or drops tools that the upstream runs, whose cost no count shows."""

from __future__ import annotations

import re
from typing import Any

from gateway.errors import BadRequest
from gateway.serving.caller.json_body import Body
from gateway.serving.upstream.endpoint import Names

Tool = dict[str, Any]

CALLERS = frozenset(
    {
        *("function", "custom", "namespace", "tool_search", "local_shell", "shell", "apply_patch"),
        *("computer", "computer_use", "computer_use_preview", "computer_toolset", "browser_toolset"),
        *("bash", "text_editor", "memory", "tool_search_tool_bm25", "tool_search_tool_regex"),
    }
)
"""Types of tools that the caller runs or that only choose among such tools, in all dialects, without their version."""

VERSION = re.compile(r"_(?:\d{8}|\d{4}_\d{2}_\d{2})\Z")
"""The date at the end of a tool's type, as OpenAI and Anthropic write it."""

HOSTED_FIELDS = frozenset(
    {
        *("web_search_options", "web_search", "plugins", "mcp_servers", "search_parameters", "search_options"),
        *("enable_search", "data_sources", "connectors", "compound_custom", "server_tools", "tool_servers"),
    }
)
"""Fields that request an upstream's own tool: OpenAI, OpenRouter, Anthropic, xAI, Qwen, Azure, Cohere, Groq, …"""

CARRIERS = frozenset({"additional_tools", "tool_search_output"})
"""Types of items of Responses that bring their own tools."""

ONLINE = ":online"
"""The ending of OpenRouter's model names that search the web."""

TOO_DEEP = 8
"""The depth of nested namespaces from which tools count as hosted."""


class Hosted:
    """Refuses a body that requests hosted tools, or leaves the tools out, as the operator chooses."""

    def __init__(self, *, drops: bool) -> None:
        self._drops = drops

    def leave_out(self, body: Body, names: Names) -> tuple[str, ...]:
        """Remove requests for hosted tools from a body; return the names of what was removed.

        Args:
            names: the names of the models that are served here.

        Raises:
            BadRequest: the body requests a hosted tool and the operator refuses such bodies, or its tools are no list
                of objects.
        """
        left_out: list[str] = []
        if not HOSTED_FIELDS.isdisjoint(body):
            self._fields(body, left_out)
        if "tools" in body or "tool_choice" in body:
            self._tools(body, left_out)
        for name in ("input", "messages"):
            if name in body and isinstance(items := body[name], list):
                self._carried(items, name, left_out)
        model = body.get("model")
        if isinstance(model, str) and model.endswith(ONLINE) and model not in names:
            served = model.removesuffix(ONLINE)
            if served in names:
                self._note("model" + ONLINE, "model", left_out)
                body["model"] = served
        return tuple(dict.fromkeys(left_out)) if left_out else ()

    def _note(self, name: str, param: str, left_out: list[str]) -> None:
        """Note what is left out, or refuse the body."""
        if not self._drops:
            raise BadRequest(
                f"{name[:64]} is not served: only tools that the caller runs are served, since no token count shows"
                " the cost of other tools.",
                param=param,
            )
        left_out.append(name)

    def _fields(self, body: Body, left_out: list[str]) -> None:
        for name in sorted(HOSTED_FIELDS & body.keys()):
            if body[name] not in (None, False, []):
                self._note(name, name, left_out)
                del body[name]

    def _tools(self, body: Body, left_out: list[str]) -> None:
        """Leave hosted tools out of ``tools``, and leave out a ``tool_choice`` that names a hosted tool."""
        tools, hosted_names = body.get("tools"), set[str]()
        if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
            raise BadRequest("tools is a list of objects.", code="invalid_type", param="tools")
        if tools:
            callers_tools = self._callers_tools(tools, "tools", left_out, hosted_names)
            if callers_tools:
                body["tools"] = callers_tools
            else:  # upstreams refuse fields about tools where there are no tools
                del body["tools"]
                dependent = ("tool_choice", "parallel_tool_calls")
                left_out += [name for name in dependent if body.pop(name, None) is not None]
        if isinstance(choice := body.get("tool_choice"), dict):
            self._choice(body, choice, hosted_names, left_out)

    def _callers_tools(
        self, tools: list[Any], param: str, left_out: list[str], hosted_names: set[str] | None = None, depth: int = 0
    ) -> list[Any]:
        """Return the tools that the caller runs; add the names and types of the other tools to ``hosted_names``."""
        callers_tools: list[Any] = []
        for tool in tools:
            if not isinstance(tool, dict):
                raise BadRequest(f"Tools in {param} are objects.", code="invalid_type", param=param)
            if (hosted := hosted_type(tool)) is None and depth < TOO_DEEP:
                if isinstance(inner := tool.get("tools"), list):
                    inner_tools = self._callers_tools(inner, param, left_out, hosted_names, depth + 1)
                    if inner and not inner_tools:
                        continue
                    tool = {**tool, "tools": inner_tools}
                callers_tools.append(tool)
                continue
            self._note(hosted or "namespace", param, left_out)
            if hosted_names is not None:
                hosted_names.update(name for name in (tool.get("name"), hosted) if isinstance(name, str))
        return callers_tools

    def _choice(self, body: Body, choice: Tool, hosted_names: set[str], left_out: list[str]) -> None:
        """Leave the choice to the model if a hosted tool is chosen; remove hosted tools from the allowed tools."""
        place = choice.get("allowed_tools") if isinstance(choice.get("allowed_tools"), dict) else choice
        if isinstance(place, dict) and isinstance(allowed := place.get("tools"), list):
            callers_tools = self._callers_tools(allowed, "tool_choice", left_out)
            if callers_tools or not allowed:
                narrowed = {**place, "tools": callers_tools}
                body["tool_choice"] = narrowed if place is choice else {**choice, "allowed_tools": narrowed}
            else:
                del body["tool_choice"]
            return
        kind, name = choice.get("type"), choice.get("name")
        is_by_name = kind == "tool" and name in hosted_names
        if is_by_name or (isinstance(kind, str) and kind not in CHOICES and not _is_callers(kind)):
            self._note(str(name if is_by_name else kind), "tool_choice", left_out)
            del body["tool_choice"]

    def _carried(self, items: list[Any], field: str, left_out: list[str]) -> None:
        """Remove hosted tools from items and blocks of a conversation that bring tools."""
        for item in items:
            if not isinstance(item, dict):
                continue
            if "tools" in item and _carries_tools(item) and isinstance(tools := item["tools"], list):
                item["tools"] = self._callers_tools(tools, field, left_out)
            elif isinstance(blocks := item.get("content"), list):
                hosted = [block for block in blocks if isinstance(block, dict) and _brings_hosted(block)]
                for block in hosted:
                    self._note(_brings_hosted(block) or "", field, left_out)
                if hosted:
                    item["content"] = [block for block in blocks if block not in hosted]


def _carries_tools(item: Tool) -> bool:
    return isinstance(kind := item.get("type"), str) and kind in CARRIERS


CHOICES = frozenset({"auto", "any", "none", "required", "tool", "allowed_tools"})
"""Types of a ``tool_choice`` that are not types of tools."""


def hosted_type(tool: Tool) -> str | None:
    """Return the type of a tool that the upstream runs, or None where the caller runs it.

    Only tools known to be run by the caller pass: an unknown type may cost anything.
    """
    kind = tool.get("type")
    if kind is None:
        is_callers = isinstance(tool.get("name"), str) or isinstance(tool.get("function"), dict)
        return None if is_callers else str(next(iter(tool), "tool"))
    if not isinstance(kind, str) or not _is_callers(kind):
        return str(kind) or "tool"
    environment = tool.get("environment")
    if kind == "shell" and isinstance(environment, dict) and environment.get("type") != "local":
        return "shell"  # it runs in a container of the upstream
    return None


def _is_callers(kind: str) -> bool:
    return kind in CALLERS or VERSION.sub("", kind) in CALLERS


def _brings_hosted(block: Tool) -> str | None:
    """Return the type of a hosted tool that a block of a message adds to the conversation, or None."""
    if block.get("type") != "tool_addition" or not isinstance(tool := block.get("tool"), dict):
        return None
    kind = tool.get("type")
    if isinstance(kind, str) and kind.startswith("mcp_"):
        return kind
    definition = tool.get("definition")
    return hosted_type(definition) if isinstance(definition, dict) else None
