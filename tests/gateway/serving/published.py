"""Every field that the vendors publish for a request, at any depth, from the type definitions of their own clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

from gateway.serving.upstream.profiles import CHAT, COMPLETIONS, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RESPONSES

Body = dict[str, Any]
Put = Callable[[Any], Body]

TYPES = {
    CHAT: ("openai.types.chat.completion_create_params.CompletionCreateParamsBase",),
    COMPLETIONS: ("openai.types.completion_create_params.CompletionCreateParamsBase",),
    RESPONSES: ("openai.types.responses.response_create_params.ResponseCreateParamsBase",),
    MESSAGES: (
        "anthropic.types.message_create_params.MessageCreateParamsBase",
        "anthropic.types.beta.message_create_params.MessageCreateParamsBase",
    ),
    COUNT_TOKENS: (
        "anthropic.types.message_count_tokens_params.MessageCountTokensParams",
        "anthropic.types.beta.message_count_tokens_params.MessageCountTokensParams",
    ),
    EMBEDDINGS: ("openai.types.embedding_create_params.EmbeddingCreateParams",),
}


def published(endpoint: str) -> list[Any]:
    """Return the types of a route's requests in the vendors' clients."""
    parted = (name.rpartition(".") for name in TYPES[endpoint])
    return [getattr(import_module(module), name) for module, _, name in parted]


SAMPLES: dict[Any, Any] = {str: "abc", int: 3, float: 0.5, bool: True, bytes: "YWJj", object: {"some": ["thing"]}}
DEPTH_MOST = 12


@cache
def fields_within(endpoint: str) -> list[tuple[str, Body]]:
    """Return each published field of each kind of object, with a name from both, in an otherwise minimal body.

    A kind that several fields of a body use is listed once for each of them.
    """
    seen: dict[str, set[Any]] = {}
    found: list[tuple[str, Body]] = []
    for kind in published(endpoint):
        for name, hint in get_type_hints(kind, include_extras=True).items():
            found.append((name, {name: _sample(hint, DEPTH_MOST)}))
            found += _within(hint, lambda value, name=name: {name: value}, seen.setdefault(name, set()))  # type: ignore[misc]
    return found


def _within(kind: Any, put: Put, seen: set[Any]) -> Iterator[tuple[str, Body]]:
    kind = _bare(kind)
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        for one in get_args(kind):
            yield from _within(one, put, seen)
    elif _is_list(origin):
        yield from _within(get_args(kind)[0], lambda value: put([value]), seen)
    elif origin is dict:
        yield from _within(get_args(kind)[1], lambda value: put({"abc": value}), seen)
    elif _is_object(kind) and kind not in seen:
        seen.add(kind)
        required = _sample(kind, DEPTH_MOST)
        for name, hint in get_type_hints(kind, include_extras=True).items():
            yield f"{kind.__name__}.{name}", put({**required, name: _sample(hint, DEPTH_MOST)})
            yield from _within(hint, lambda value, name=name: put({**required, name: value}), seen)  # type: ignore[misc]


def _sample(kind: Any, deep: int) -> Any:
    """Return a minimal value of a type."""
    kind = _bare(kind)
    origin = get_origin(kind)
    if not deep:
        return None
    if origin is Literal:
        return get_args(kind)[0]
    if origin in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one is not NoneType]
        return _sample(next((one for one in kinds if _bare(one) is not str), kinds[0]), deep)
    if _is_list(origin):
        return [_sample(get_args(kind)[0], deep - 1)]
    if origin is dict:
        return {"abc": _sample(get_args(kind)[1], deep - 1)}
    if _is_object(kind):
        hints = get_type_hints(kind, include_extras=True)
        needed = {name: hint for name, hint in hints.items() if kind.__total__ or get_origin(hint) is Required}
        return {name: _sample(hint, deep - 1) for name, hint in needed.items()}
    return SAMPLES.get(kind, SAMPLES[object])


def _bare(kind: Any) -> Any:
    """Return a type without the annotations around it."""
    while get_origin(kind) in (Annotated, Required, NotRequired):
        kind = get_args(kind)[0]
    return kind


def _is_list(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Iterable | Sequence) and not issubclass(origin, dict)


def _is_object(kind: Any) -> bool:
    return hasattr(kind, "__required_keys__")
