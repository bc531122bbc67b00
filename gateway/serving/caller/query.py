"""The query of a customer's request, read strictly."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from urllib.parse import parse_qsl

from gateway.clock import understood
from gateway.errors import BadRequest, UnknownParameter
from gateway.serving.caller.exchange import Exchange
from pricing.usage import END_USER_MOST

NONE: frozenset[str] = frozenset()

PARAMETERS_MOST = 100

RECORDS_MOST = 1000
"""The most usage records in one answer."""

OF_CALLS = frozenset({"api-version", "beta"})
"""Parameters that clients add to the routes of calls; the gateway ignores them."""

OF_MODELS = OF_CALLS | {"after_id", "before_id", "client_version", "limit"}
"""Parameters that clients add to the list of models, which is always complete."""

OF_USAGE = frozenset({"from", "to", "limit", "cursor", "end_user"})

OF_PAGES = frozenset({"limit", "cursor"})


def check_head(exchange: Exchange, known: Set[str] | None = NONE) -> dict[str, str]:
    """Return a request's parameters, after checking its head and that its query has only ``known`` parameters.

    With ``None`` the route reads the parameters itself, and none are returned.

    Raises:
        BadRequest: a header of ``single_headers.ONCE``, or a parameter, comes twice, or there are too many parameters.
        UnknownParameter: the route does not know a parameter.
    """
    if exchange.repeated is not None:
        raise BadRequest(f"{exchange.repeated} comes twice.", param=exchange.repeated)
    return parameters(exchange.query, known) if exchange.query and known is not None else {}


def parameters(query: str, known: Set[str]) -> dict[str, str]:
    """Return the parameters of a query string, each of which is ``known`` and comes once.

    Raises:
        BadRequest: a parameter comes twice, or there are too many.
        UnknownParameter: a parameter is not known.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=PARAMETERS_MOST)
    except ValueError as error:
        raise BadRequest(f"A query has at most {PARAMETERS_MOST} parameters.") from error
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise UnknownParameter(f"This route has no parameter {name[:64]!r}.", param=name[:64])
        if name in values:
            raise BadRequest(f"The parameter {name} comes twice.", param=name)
        values[name] = value
    return values


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """The page of usage records that a customer requests."""

    since: int | None
    until: int | None
    limit: int
    cursor: str | None
    end_user: str | None

    @classmethod
    def read(cls, values: dict[str, str]) -> UsageQuery:
        """Return the query in the parameters; a time that is absent leaves that end open.

        Raises:
            BadRequest: a value is invalid; ``param`` names its parameter.
        """
        times: dict[str, int | None] = {}
        for name in ("from", "to"):
            try:
                times[name] = understood(values[name]) if name in values else None
            except ValueError as error:
                raise BadRequest(str(error), param=name) from error
        limit = values.get("limit", "100")
        if not (limit.isascii() and limit.isdecimal() and len(limit) <= 9 and 1 <= int(limit) <= RECORDS_MOST):
            raise BadRequest(f"limit is a whole number from 1 to {RECORDS_MOST}.", param="limit")
        end_user = values.get("end_user")
        if end_user is not None and not (0 < len(end_user) <= END_USER_MOST and end_user.isprintable()):
            raise BadRequest(f"end_user is 1 to {END_USER_MOST} printed characters.", param="end_user")
        return cls(times["from"], times["to"], int(limit), values.get("cursor"), end_user)
