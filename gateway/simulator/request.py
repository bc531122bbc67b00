"""Reads chat completions for the simulated model, and checks every request as strictly as an engine does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import BadRequest, ModelNotFound
from gateway.simulator.schema_values import pieces_for

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
CHOICES_MAX = 128
MESSAGE_TOKENS = 4
BYTES_A_TOKEN = 4
WORD = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function and the arguments of a call, token by token."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A checked request; ``limit`` is the smaller of the two limits that a chat completion may have."""

    model: str
    prompt_tokens: int
    limit: int | None
    choices: int
    stream: bool
    include_usage: bool
    continuous_usage: bool
    seed: int | None
    tool: Tool | None
    """The function to be called, if the answer is a tool call."""
    results: int | None = None
    """The number of tool results since the user's last message; None where no tool is to be called."""
    previous: str | None = None
    """The earlier response that the request continues."""
    references: tuple[str, ...] = ()
    """Items of earlier responses that the request names by their ids."""
    inputs: int = 1
    """How many texts are to be embedded."""
    in_base64: bool = False
    """Whether a vector is written in base64."""
    form: tuple[str, ...] | None = None
    """The text of the answer, token by token, where it has to fit a schema."""


def read(body: bytes, model: str, context_tokens: int) -> CheckedRequest:
    """Return the checked request in ``body``.

    Raises:
        BadRequest: the body is malformed, a limit is no positive whole number, or prompt and limit exceed the context.
        ModelNotFound: the body names another model than ``model``.
    """
    payload = payload_for(body, model)
    messages = messages_in(payload.get("messages"))
    tools = _tools(payload.get("tools"))
    include, continuous = usage_requested(payload)
    return within_context(
        CheckedRequest(
            model=model,
            prompt_tokens=prompt_tokens(messages, tools),
            limit=limit_in(payload, "max_tokens", "max_completion_tokens"),
            choices=integer_in(payload, "n", maximum=CHOICES_MAX) or 1,
            stream=flag(payload, "stream"),
            include_usage=include,
            continuous_usage=continuous,
            seed=seed_in(payload),
            tool=tool_for(_chosen(payload.get("tool_choice")), _schemas(tools), messages),
            results=results_in([str(message["role"]) for message in messages]),
            form=form_in(payload.get("response_format")),
        ),
        context_tokens,
    )


def payload_for(body: bytes, model: str) -> dict[str, Any]:
    """Return the object in a body that is meant for ``model``."""
    payload = _object(body)
    if not isinstance(payload.get("model"), str):
        raise BadRequest("model is a string and required.", param="model", code="invalid_type")
    if payload["model"] != model:
        raise ModelNotFound(f"This simulator serves {model}, not {payload['model']}.", param="model")
    return payload


def limit_in(payload: Mapping[str, Any], *names: str) -> int | None:
    """Return the smallest of the limits in a request."""
    limits = [integer_in(payload, name, maximum=None) for name in names]
    return min((limit for limit in limits if limit is not None), default=None)


def usage_requested(payload: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether a stream reports its usage, at the end and in each chunk."""
    options = _stream_options(payload)
    include = flag(options, "include_usage")
    return include, include and flag(options, "continuous_usage_stats")


def within_context(request: CheckedRequest, context_tokens: int) -> CheckedRequest:
    """Return ``request`` if it fits the context."""
    if request.prompt_tokens + (request.limit or 1) > context_tokens:
        raise BadRequest(
            f"This model's maximum context length is {context_tokens} tokens. However, you requested "
            f"{request.prompt_tokens + (request.limit or 1)} tokens ({request.prompt_tokens} in the messages, "
            f"{request.limit or 1} in the completion).",
            param="messages",
            code="context_length_exceeded",
        )
    return request


def prompt_tokens(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> int:
    """Return the tokens of a prompt: 4 for each message, and 1 for each begun 4 bytes of its text and of each tool.

    The text of a message is its content, or the content's text parts, and the names and arguments of its tool calls.
    """
    texts = [_text(message) for message in messages]
    texts += [json.dumps(tool, separators=(",", ":"), ensure_ascii=False) for tool in tools]
    words = sum(-(-len(text.encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN) for text in texts)
    return MESSAGE_TOKENS * len(messages) + words


def _object(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is not JSON.", code="invalid_json") from error
    if not isinstance(payload, dict):
        raise BadRequest("The body is a JSON object.", code="invalid_type")
    return payload


def messages_in(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        raise BadRequest("messages is a list of at least one object.", param="messages", code="invalid_type")
    for place, message in enumerate(value):
        if message.get("role") not in ROLES:
            raise BadRequest("A message has one of the known roles.", param=f"messages[{place}].role")
        if not _is_content(message.get("content")):
            raise BadRequest("A content is text or a list of parts.", param=f"messages[{place}].content")
        if message["role"] == "tool" and not isinstance(message.get("tool_call_id"), str):
            raise BadRequest("A tool's message names its call.", param=f"messages[{place}].tool_call_id")
        if not is_list_of_objects(message.get("tool_calls") or []):
            raise BadRequest("tool_calls is a list of objects.", param=f"messages[{place}].tool_calls")
    return value


def _is_content(value: Any) -> bool:
    return value is None or isinstance(value, str) or is_list_of_objects(value)


def is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    parts = [content] if isinstance(content, str) else [part.get("text") for part in content]
    for call in message.get("tool_calls") or []:
        function = call.get("function")
        if isinstance(function, dict):
            parts += [function.get("name"), function.get("arguments")]
    return "".join(part for part in parts if isinstance(part, str))


def _tools(value: Any) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not is_list_of_objects(value) or not all(isinstance(_name(tool), str) for tool in value):
        raise BadRequest("tools is a list of functions, each with a name.", param="tools", code="invalid_type")
    tools: list[dict[str, Any]] = value
    return tools


def _name(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _chosen(choice: Any) -> Any:
    return _name(choice) if isinstance(choice, dict) else choice


def _schemas(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schemas of functions' arguments by name."""
    return {str(_name(tool)): tool["function"].get("parameters") for tool in tools}


def tool_for(choice: Any, schemas: Mapping[str, Any], messages: list[dict[str, Any]]) -> Tool | None:
    """Return the tool that an answer would call.

    That is the tool chosen by name, else the tool that the user's text names first, else the first tool.
    """
    is_named = choice not in (None, "none", "auto", "required")
    if is_named and not (isinstance(choice, str) and choice in schemas):
        raise BadRequest("tool_choice is none, auto, required, or one of the tools.", param="tool_choice")
    if not schemas or choice == "none":
        return None
    by_word = {name.lower(): name for name in reversed(list(schemas))}
    mentioned = (by_word[word] for word in WORD.findall(_last_words(messages).lower()) if word in by_word)
    name = str(choice) if is_named else next(mentioned, next(iter(schemas)))
    return Tool(name, pieces_for(schemas[name]))


def _last_words(messages: list[dict[str, Any]]) -> str:
    """Return the last text of the user's last message."""
    content = next((message.get("content") for message in reversed(messages) if message.get("role") == "user"), None)
    texts = [content] if not isinstance(content, list) else [part.get("text") for part in content]
    return next((text for text in reversed(texts) if isinstance(text, str)), "")


def form_in(value: Any) -> tuple[str, ...] | None:
    """Return an answer in the form that ``response_format`` or a like field requires; None where any text will do."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "json_schema":
        inner = value.get("json_schema")
        return pieces_for((inner if isinstance(inner, dict) else value).get("schema"))
    return pieces_for(None) if kind == "json_object" else None


def results_in(roles: list[str]) -> int | None:
    """Return the number of tool results since the user's last message.

    None where the last message is neither the user's nor a result. ``roles`` are the messages', with ``tool`` for each
    result.
    """
    if roles[-1] not in ("user", "tool"):
        return None
    since = roles[len(roles) - roles[::-1].index("user") :] if "user" in roles else roles
    return since.count("tool")


def _stream_options(payload: Mapping[str, Any]) -> dict[str, Any]:
    options = payload.get("stream_options")
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise BadRequest("stream_options is an object.", param="stream_options", code="invalid_type")
    if not flag(payload, "stream"):
        raise BadRequest("stream_options is for streams only.", param="stream_options")
    return options


def flag(payload: Mapping[str, Any], name: str) -> bool:
    value = payload.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"{name} is true or false.", param=name, code="invalid_type")
    return bool(value)


def integer_in(payload: Mapping[str, Any], name: str, maximum: int | None) -> int | None:
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{name} is a whole number.", param=name, code="invalid_type")
    if value < 1:
        raise BadRequest(f"{name} is at least 1.", param=name, code="integer_below_min_value")
    if maximum is not None and value > maximum:
        raise BadRequest(f"{name} is at most {maximum}.", param=name, code="integer_above_max_value")
    return value


def seed_in(payload: Mapping[str, Any]) -> int | None:
    value = payload.get("seed")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise BadRequest("seed is a whole number.", param="seed", code="invalid_type")
    return value
