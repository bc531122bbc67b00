"""``/v1/organization/usage/completions`` and ``/costs`` in OpenAI's form: request and answering page; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import parse_qsl

import orjson

from gateway.clock import LAST_MS
from gateway.errors import BadRequest, UnknownParameter
from gateway.ledger.cursors import NoCursor, cursor_of, position_of

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
NANO = 10**9
VALUES_MOST = 100
PAIRS_MOST = 500

FIELD_OF: Mapping[str, str | None] = MappingProxyType(
    {
        "project_id": None,
        "user_id": "end_user",
        "api_key_id": "key_id",
        "model": "model",
        "batch": None,
        "service_tier": "tier",
        "line_item": "tier",
    }
)
"""The names to group results by, each with its field of the record. A project is the customer; no call is a batch."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two routes: its parameters, and its bucket widths."""

    widths: Mapping[str, tuple[int, int, int]]
    """Each with its length in ms, the default number of buckets of a page, and the highest."""
    groups: tuple[str, ...]
    filters: Mapping[str, str]
    """The parameters that take lists, each with the field of the record that it filters by."""


USAGE = Kind(
    {"1m": (MINUTE_MS, 60, 1_440), "1h": (HOUR_MS, 24, 168), "1d": (DAY_MS, 7, 31)},
    ("project_id", "user_id", "api_key_id", "model", "batch", "service_tier"),
    {"project_ids": "customer", "user_ids": "end_user", "api_key_ids": "key_id", "models": "model"},
)
COSTS = Kind(
    {"1d": (DAY_MS, 7, 180)},
    ("project_id", "user_id", "api_key_id", "line_item"),
    {"project_ids": "customer", "user_ids": "end_user", "api_key_ids": "key_id"},
)


class Sums(Protocol):
    """The sums of one group in one bucket; ``group`` has the values of ``Question.by``."""

    @property
    def start(self) -> int: ...
    @property
    def group(self) -> tuple[str | None, ...]: ...
    @property
    def calls(self) -> int: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def billed_output_tokens(self) -> int: ...
    @property
    def charge_nanousd(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Question:
    """A request: at most ``limit`` buckets of a width, from ``start`` on and before ``end``, in ms."""

    kind: Kind
    width_ms: int
    start: int
    end: int
    limit: int
    group_by: tuple[str, ...]
    only: Mapping[str, tuple[str, ...]]
    is_empty: bool
    """Whether only batches are requested; there are never any."""

    @property
    def by(self) -> tuple[str, ...]:
        """The fields of the record that results are grouped by; line items are grouped by the record's kind, too."""
        fields = [field for name in self.group_by if (field := FIELD_OF[name]) is not None]
        return (*fields, "kind") if "line_item" in self.group_by else tuple(fields)

    @property
    def buckets(self) -> list[int]:
        """The starts of the buckets of this page."""
        first = self.start - self.start % self.width_ms
        return list(range(first, self.end, self.width_ms)[: self.limit])

    @property
    def until(self) -> int:
        """Where the last bucket of this page ends."""
        return min(self.buckets[-1] + self.width_ms, self.end)


def question(kind: Kind, query: str, now_ms: int) -> Question:
    """Return the request in a query string; a list is a repeated parameter, with or without ``[]``, or has commas.

    Raises:
        BadRequest: a value is invalid; ``param`` names its parameter.
        UnknownParameter: the route does not know a parameter.
    """
    parameters = _lists(
        query, {"start_time", "end_time", "bucket_width", "group_by", "limit", "page", *kind.filters} | _batch(kind)
    )
    start, end = _seconds(parameters, "start_time"), _seconds(parameters, "end_time")
    if start is None:
        raise BadRequest("start_time is the first second asked for, since 1970.", param="start_time")
    end = now_ms if end is None else min(end, LAST_MS)
    width = _one(parameters, "bucket_width", "1d")
    if width not in kind.widths:
        raise BadRequest(f"bucket_width is one of {', '.join(kind.widths)}.", param="bucket_width")
    width_ms, usual, most = kind.widths[width]
    limit = _one(parameters, "limit", str(usual))
    if not (limit.isascii() and limit.isdecimal() and len(limit) <= 9 and 1 <= int(limit) <= most):
        raise BadRequest(f"limit is a whole number from 1 to {most}.", param="limit")
    groups = tuple(dict.fromkeys(parameters.get("group_by", ())))
    if unknown := [name for name in groups if name not in kind.groups]:
        raise BadRequest(f"group_by has no {unknown[0][:64]!r}; it has {', '.join(kind.groups)}.", param="group_by")
    if "page" in parameters:
        start = max(start, _page(parameters["page"][0]))
    if end <= start:
        raise BadRequest("end_time is after start_time.", param="end_time")
    only = {field: tuple(parameters[name]) for name, field in kind.filters.items() if name in parameters}
    batch = _one(parameters, "batch", "false")
    if batch not in ("true", "false"):
        raise BadRequest("batch is true or false.", param="batch")
    return Question(kind, width_ms, start, end, int(limit), groups, only, batch == "true")


def page(request: Question, rows: Sequence[Sums], customer: str, currency: str) -> dict[str, Any]:
    """Return the page that answers a request: each bucket with its results, empty buckets included."""
    results: dict[int, list[dict[str, Any]]] = defaultdict(list)
    result = _usage if request.kind is USAGE else _cost(currency)
    for sums in rows:
        names = dict(zip(request.by, sums.group, strict=True))
        results[sums.start].append(result(sums, _labels(request, names, customer)))
    shown = [
        {
            "object": "bucket",
            "start_time": start // 1000,
            "end_time": (start + request.width_ms) // 1000,
            "results": results[start],
        }
        for start in request.buckets
    ]
    has_more = request.until < request.end
    return {
        "object": "page",
        "data": shown,
        "has_more": has_more,
        "next_page": cursor_of(request.until) if has_more else None,
    }


def _labels(request: Question, names: Mapping[str, str | None], customer: str) -> dict[str, Any]:
    """Return the labels of a result's group; a field that results are not grouped by is null."""
    labels: dict[str, Any] = dict.fromkeys(request.kind.groups)
    for name in request.group_by:
        field = FIELD_OF[name]
        labels[name] = customer if field is None else names[field]
    if "batch" in request.group_by:
        labels["batch"] = False
    if "line_item" in request.group_by:
        kind, tier = names["kind"], names["tier"]
        labels["line_item"] = kind if kind in ("fee", "credit") else tier or "no tier"
    return labels


def _usage(sums: Sums, labels: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": sums.input_tokens,
        "input_cached_tokens": sums.cached_tokens,
        "output_tokens": sums.billed_output_tokens,
        "input_audio_tokens": 0,
        "output_audio_tokens": 0,
        "num_model_requests": sums.calls,
        **labels,
    }


def _cost(currency: str) -> Any:
    def result(sums: Sums, labels: Mapping[str, Any]) -> dict[str, Any]:
        amount = {"value": orjson.Fragment(decimal(sums.charge_nanousd)), "currency": currency.lower()}
        return {
            "object": "organization.costs.result",
            "amount": amount,
            "amount_nanousd": sums.charge_nanousd,
            **labels,
        }

    return result


def decimal(nanousd: int) -> str:
    """Return an amount in units of the currency as a JSON number, exact to the nano-unit."""
    units, rest = divmod(abs(nanousd), NANO)
    digits = f"{rest:09d}".rstrip("0") or "0"
    return f"{'-' if nanousd < 0 else ''}{units}.{digits}"


def _batch(kind: Kind) -> set[str]:
    return {"batch"} if kind is USAGE else set()


def _lists(query: str, known: set[str]) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=PAIRS_MOST)
    except ValueError as error:
        raise BadRequest(f"A query has at most {PAIRS_MOST} parameters.") from error
    lists: dict[str, list[str]] = {}
    for written, value in pairs:
        name = written.removesuffix("[]")
        if name not in known:
            raise UnknownParameter(f"This route has no parameter {written[:64]!r}.", param=written[:64])
        is_list = name == "group_by" or name.endswith("s")
        if name in lists and not is_list:
            raise BadRequest(f"The parameter {name} comes twice.", param=name)
        lists.setdefault(name, []).extend(value.split(",") if is_list else [value])
        if len(lists[name]) > VALUES_MOST:
            raise BadRequest(f"{name} has at most {VALUES_MOST} values.", param=name)
    return lists


def _one(parameters: Mapping[str, Sequence[str]], name: str, otherwise: str) -> str:
    return parameters[name][0] if name in parameters else otherwise


def _seconds(parameters: Mapping[str, Sequence[str]], name: str) -> int | None:
    if name not in parameters:
        return None
    text = parameters[name][0]
    if not (text.isascii() and text.isdecimal() and len(text) <= 12 and int(text) * 1000 <= LAST_MS):
        raise BadRequest(f"{name} is whole seconds since 1970.", param=name)
    return int(text) * 1000


def _page(cursor: str) -> int:
    try:
        [start] = position_of(cursor, int)
    except NoCursor as error:
        raise BadRequest("This page is not one that an answer named.", param="page") from error
    return int(start)
