"""What a chat completion wants of the simulated model, and the checks of every request, as strict as an engine's."""

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
    """One checked request; ``limit`` is the smaller of the two limits a chat completion may carry."""

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
    """Results of tools since the user last spoke; None where no tool is to be called."""
    previous: str | None = None
    """The earlier response that it continues."""
    references: tuple[str, ...] = ()
    """Items of earlier responses that are brought back by their ids."""
    inputs: int = 1
    """How many texts are to be embedded."""
    in_base64: bool = False
    """Whether a vector is written in base64."""
    form: tuple[str, ...] | None = None
    """The text of the answer, token by token, where it has to fit a schema."""


def read(body: bytes, model: str, context_tokens: int) -> CheckedRequest:
    """Return what ``body`` requests.

    Raises:
        BadRequest: the body is malformed, a limit is no positive whole number, or prompt and limit exceed the context.
        ModelNotFound: the body names another model than ``model``.
    """
    given = given_to(body, model)
    messages = messages_in(given.get("messages"))
    tools = _tools(given.get("tools"))
    include, continuous = usage_asked(given)
    return within_context(
        CheckedRequest(
            model=model,
            prompt_tokens=prompt_tokens(messages, tools),
            limit=limit_in(given, "max_tokens", "max_completion_tokens"),
            choices=whole_in(given, "n", most=CHOICES_MAX) or 1,
            stream=flag(given, "stream"),
            include_usage=include,
            continuous_usage=continuous,
            seed=seed_in(given),
            tool=tool_for(_chosen(given.get("tool_choice")), _schemas(tools), messages),
            results=results_in([str(message["role"]) for message in messages]),
            form=form_in(given.get("response_format")),
        ),
        context_tokens,
    )


def given_to(body: bytes, model: str) -> dict[str, Any]:
    """Return the object in a body that is meant for ``model``."""
    given = _object(body)
    if not isinstance(given.get("model"), str):
        raise BadRequest("model is a string and required.", param="model", code="invalid_type")
    if given["model"] != model:
        raise ModelNotFound(f"This simulator serves {model}, not {given['model']}.", param="model")
    return given


def limit_in(given: Mapping[str, Any], *names: str) -> int | None:
    """Return the smallest of the limits a request carries."""
    limits = [whole_in(given, name, most=None) for name in names]
    return min((limit for limit in limits if limit is not None), default=None)


def usage_asked(given: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether a stream reports its usage, at the end and in each chunk."""
    options = _stream_options(given)
    include = flag(options, "include_usage")
    return include, include and flag(options, "continuous_usage_stats")


def within_context(asked: CheckedRequest, context_tokens: int) -> CheckedRequest:
    """Return ``asked`` if it fits the context."""
    if asked.prompt_tokens + (asked.limit or 1) > context_tokens:
        raise BadRequest(
            f"This model's maximum context length is {context_tokens} tokens. However, you requested "
            f"{asked.prompt_tokens + (asked.limit or 1)} tokens ({asked.prompt_tokens} in the messages, "
            f"{asked.limit or 1} in the completion).",
            param="messages",
            code="context_length_exceeded",
        )
    return asked


def prompt_tokens(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> int:
    """Return the tokens of a prompt: 4 for each message, and 1 for each begun 4 bytes of its text and of each tool.

    The text of a message is its content, or the text parts of it, and the names and arguments of its tool calls.
    """
    texts = [_text(message) for message in messages]
    texts += [json.dumps(tool, separators=(",", ":"), ensure_ascii=False) for tool in tools]
    words = sum(-(-len(text.encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN) for text in texts)
    return MESSAGE_TOKENS * len(messages) + words


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is not JSON.", code="invalid_json") from error
    if not isinstance(given, dict):
        raise BadRequest("The body is a JSON object.", code="invalid_type")
    return given


def messages_in(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or not given or not all(isinstance(message, dict) for message in given):
        raise BadRequest("messages is a list of at least one object.", param="messages", code="invalid_type")
    for place, message in enumerate(given):
        if message.get("role") not in ROLES:
            raise BadRequest("A message has one of the known roles.", param=f"messages[{place}].role")
        if not _is_content(message.get("content")):
            raise BadRequest("A content is text or a list of parts.", param=f"messages[{place}].content")
        if message["role"] == "tool" and not isinstance(message.get("tool_call_id"), str):
            raise BadRequest("A tool's message names its call.", param=f"messages[{place}].tool_call_id")
        if not is_list_of_objects(message.get("tool_calls") or []):
            raise BadRequest("tool_calls is a list of objects.", param=f"messages[{place}].tool_calls")
    return given


def _is_content(given: Any) -> bool:
    return given is None or isinstance(given, str) or is_list_of_objects(given)


def is_list_of_objects(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(part, dict) for part in given)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    parts = [content] if isinstance(content, str) else [part.get("text") for part in content]
    for call in message.get("tool_calls") or []:
        function = call.get("function")
        if isinstance(function, dict):
            parts += [function.get("name"), function.get("arguments")]
    return "".join(part for part in parts if isinstance(part, str))


def _tools(given: Any) -> list[dict[str, Any]]:
    if given is None:
        return []
    if not is_list_of_objects(given) or not all(isinstance(_name(tool), str) for tool in given):
        raise BadRequest("tools is a list of functions, each with a name.", param="tools", code="invalid_type")
    tools: list[dict[str, Any]] = given
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
    """Return the tool that an answer would call: the tool chosen by name, else the tool that the user names first, else the
    first tool."""
    is_named = choice not in (None, "none", "auto", "required")
    if is_named and not (isinstance(choice, str) and choice in schemas):
        raise BadRequest("tool_choice is none, auto, required, or one of the tools.", param="tool_choice")
    if not schemas or choice == "none":
        return None
    by_word = {name.lower(): name for name in reversed(list(schemas))}
    spoken = (by_word[word] for word in WORD.findall(_last_words(messages).lower()) if word in by_word)
    name = str(choice) if is_named else next(spoken, next(iter(schemas)))
    return Tool(name, pieces_for(schemas[name]))


def _last_words(messages: list[dict[str, Any]]) -> str:
    """Return the last text of the last message of a user's."""
    said = next((message.get("content") for message in reversed(messages) if message.get("role") == "user"), None)
    texts = [said] if not isinstance(said, list) else [part.get("text") for part in said]
    return next((text for text in reversed(texts) if isinstance(text, str)), "")


def form_in(given: Any) -> tuple[str, ...] | None:
    """Return an answer in the form that ``response_format`` or its kin wants, or None where any text will do."""
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "json_schema":
        inner = given.get("json_schema")
        return pieces_for((inner if isinstance(inner, dict) else given).get("schema"))
    return pieces_for(None) if kind == "json_object" else None


def results_in(roles: list[str]) -> int | None:
    """Return how many results of tools came since the user last spoke, or None where the last message is neither the
    user's nor a result: ``roles`` are the messages', with ``tool`` for each result."""
    if roles[-1] not in ("user", "tool"):
        return None
    since = roles[len(roles) - roles[::-1].index("user") :] if "user" in roles else roles
    return since.count("tool")


def _stream_options(given: Mapping[str, Any]) -> dict[str, Any]:
    options = given.get("stream_options")
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise BadRequest("stream_options is an object.", param="stream_options", code="invalid_type")
    if not flag(given, "stream"):
        raise BadRequest("stream_options is for streams only.", param="stream_options")
    return options


def flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"{name} is true or false.", param=name, code="invalid_type")
    return bool(value)


def whole_in(given: Mapping[str, Any], name: str, most: int | None) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{name} is a whole number.", param=name, code="invalid_type")
    if value < 1:
        raise BadRequest(f"{name} is at least 1.", param=name, code="integer_below_min_value")
    if most is not None and value > most:
        raise BadRequest(f"{name} is at most {most}.", param=name, code="integer_above_max_value")
    return value


def seed_in(given: Mapping[str, Any]) -> int | None:
    value = given.get("seed")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise BadRequest("seed is a whole number.", param="seed", code="invalid_type")
    return value
