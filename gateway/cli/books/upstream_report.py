"""Fetches the usage that the model's endpoint reports: OpenAI's ``/organization/usage/…``, by day and model."""

from __future__ import annotations

from typing import Any

import httpx

from gateway.billing.reconciliation import DAY_MS
from gateway.errors import StartupError
from gateway.serving.upstream.endpoint import Endpoint

ROUTES = ("/organization/usage/completions", "/organization/usage/embeddings")
DAYS_A_PAGE = 31
PAGES_MOST = 1_000
ANSWER_S = 60.0


def fetched(endpoint: Endpoint, since_ms: int, until_ms: int, *, embeds: bool) -> list[Any]:
    """Return the pages of the report of some whole days.

    Args:
        endpoint: where the routes are, and the key that they take.
        embeds: whether embeddings are reported, too.

    Raises:
        StartupError: the endpoint is unavailable or refuses, or its answer is no page of a report.
    """
    with httpx.Client(headers=dict(endpoint.headers), timeout=ANSWER_S, trust_env=False) as client:
        return [
            page
            for route in (ROUTES if embeds else ROUTES[:1])
            for page in _pages(client, endpoint.at(route), since_ms, until_ms)
        ]


def _pages(client: httpx.Client, url: str, since_ms: int, until_ms: int) -> list[Any]:
    days = (until_ms - since_ms) // DAY_MS
    query: dict[str, str | int] = {
        **{"start_time": since_ms // 1000, "end_time": until_ms // 1000},
        **{"bucket_width": "1d", "group_by": "model", "limit": min(days, DAYS_A_PAGE)},
    }
    pages: list[Any] = []
    while len(pages) < PAGES_MOST:
        page = _page(client, url, query)
        pages.append(page)
        if not page.get("has_more"):
            return pages
        query["page"] = str(page.get("next_page"))
    raise StartupError(f"{url} has more than {PAGES_MOST} pages.", exit_code=3)


def _page(client: httpx.Client, url: str, query: dict[str, str | int]) -> dict[str, Any]:
    try:
        answer = client.get(httpx.URL(url).copy_merge_params(query))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StartupError(f"{url} is unavailable: {error or type(error).__name__}.", exit_code=3) from error
    if not answer.is_success:
        advice = " It takes an admin key: name its variable with --key-env." if answer.status_code in (401, 403) else ""
        raise StartupError(f"{url} answers {answer.status_code}.{advice}", exit_code=3)
    try:
        page = answer.json()
    except ValueError as error:
        raise StartupError(f"{url} answers no JSON.", exit_code=3) from error
    if not isinstance(page, dict) or not isinstance(page.get("data"), list):
        raise StartupError(f"{url} answers no page of a report.", exit_code=3)
    return page
