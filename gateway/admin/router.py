"""Builds the admin API: its resources, access to them, its refusals and its description."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.admin.api.access import guarded, refuse_unknown
from gateway.admin.api.idempotency import Replies
from gateway.admin.api.problem_json import response_to, schemas, translated
from gateway.admin.api.request_bounds import Heads
from gateway.admin.api.routes import AdminServices, LateRoute, Routes
from gateway.admin.billing.credit_notes import CreditNotes
from gateway.admin.billing.credits_and_fees import Adjustments
from gateway.admin.billing.invoice_routes import Invoices
from gateway.admin.billing.period_routes import Periods
from gateway.admin.billing.totals_route import Totals
from gateway.admin.customers.api_keys import Keys
from gateway.admin.customers.bulk import Bulk
from gateway.admin.customers.customers import Customers
from gateway.admin.customers.increases import Increases
from gateway.admin.menus.certificate_check import Checker
from gateway.admin.menus.pricing_runs import PricingRuns
from gateway.admin.menus.published_menus import Menus
from gateway.admin.menus.tiers import HandTypedTiers
from gateway.admin.records.audit import Audit
from gateway.admin.records.exports import Exports
from gateway.admin.records.refused_calls import CustomerRefusals
from gateway.admin.records.usage_records import Usage
from gateway.catalog.problems import Invalid, MethodNotAllowed, NotFound
from gateway.errors import HouseError, TokencapError

DESCRIPTION = """
The operator's side of tokencap: who may buy, what is sold, what was used.

* **Who may**: send the admin token as `Authorization: Bearer tca-…`.
* **Money** is in whole nano-units of the installation's currency: 10^9 are 1 USD. **Tokens** are whole numbers.
* **Times** in answers are RFC 3339 in UTC; requests may also have milliseconds since 1970. Usage records keep
  milliseconds: they are hashed as they are.
* **Lists** come page by page: pass `next_cursor` on as `cursor`.
* **Refusals** are `application/problem+json`; `code` is for programs, `detail` for people.
* **Repeating** a `POST` with the same `Idempotency-Key` changes nothing and returns the first answer again.
* Every change takes effect at once, and writes a row to `/admin/audit`. Where Redis cannot be reached the answer is
  503 and says whether the change is saved; if so it takes effect as soon as Redis is back.
"""

TAGS = [
    {"name": "customers", "description": "Customers: their tier, period and own limits."},
    {"name": "keys", "description": "API keys: the text is shown once, only its SHA-256 is stored."},
    {"name": "tiers", "description": "Tiers typed by hand; each change is a new, immutable menu version."},
    {"name": "menus", "description": "Menus with a certificate: posted, put in force, taken back."},
    {
        "name": "pricing",
        "description": "The menu recomputed from what customers did: runs in the background, and their drafts.",
    },
    {
        "name": "billing",
        "description": "The amounts that customers owe: credits and fees, sums, months that close, invoices.",
    },
    {"name": "usage", "description": "What was used, record by record."},
    {"name": "refusals", "description": "Calls that were refused, and by which limit."},
    {"name": "exports", "description": "Usage as files for billing."},
    {"name": "audit", "description": "Who changed what, before and after."},
]


def build_admin(app: FastAPI, services: AdminServices) -> None:
    """Add to an app the admin API under ``/admin``, its description at ``/openapi.json`` and its refusals."""
    app.add_exception_handler(TokencapError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(Exception, _refuse)
    app.add_middleware(Heads)
    app.router.routes.extend(admin_routes(services))
    _describe(app)


def admin_routes(services: AdminServices) -> list[LateRoute]:
    """Return every route of the admin API."""
    routes = list[LateRoute]()
    of = partial(Routes, routes, guarded(services.tokens, services.wrong_tokens, services.settings.body_max))
    replies = Replies(services.database, services.now_ms)
    customers, keys = Customers(services, replies), Keys(services, replies)
    customers.add_to(of("customers"))
    Bulk(services, replies, customers, keys).add_to(of("customers"))
    CustomerRefusals(services).add_to(of("refusals"))
    keys.add_to(of("keys"))
    Increases(services).add_to(of("customers"))
    Adjustments(services, replies).add_to(of("billing"))
    HandTypedTiers(services).add_to(of("tiers"))
    Menus(services, replies, Checker()).add_to(of("menus"))
    PricingRuns(services, replies).add_to(of("pricing"))
    Usage(services).add_to(of("usage"))
    Totals(services).add_to(of("billing"))
    Periods(services, replies).add_to(of("billing"))
    Invoices(services).add_to(of("billing"))
    CreditNotes(services).add_to(of("billing"))
    Exports(services).add_to(of("exports"))
    Audit(services).add_to(of("audit"))
    return routes


def _describe(app: FastAPI) -> None:
    """Add to the OpenAPI description, in FastAPI's own way of extending it."""
    app.version, app.description, app.openapi_tags = version("tokencap"), DESCRIPTION, TAGS
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        app.router.routes[:] = [route.made if isinstance(route, LateRoute) else route for route in app.router.routes]
        schema = generate()
        schema["components"]["schemas"].update(schemas())
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
    if app.openapi_url is None:

        def description(request: Request) -> JSONResponse:
            refuse_unknown(request)
            return JSONResponse(app.openapi())

        app.add_route("/openapi.json", description, include_in_schema=False)


def _refuse(request: Request, error: Exception) -> JSONResponse:
    """Answer with a problem, whatever went wrong."""
    if isinstance(error, RequestValidationError):
        return response_to(translated(error))
    if isinstance(error, HTTPException):
        return response_to(_of_http(request, error))
    if isinstance(error, TokencapError):
        return response_to(error)
    return response_to(HouseError("Something went wrong on our side; the log says what."))


def _of_http(request: Request, error: HTTPException) -> TokencapError:
    """Return FastAPI's own refusal as a refusal of this API."""
    path = request.url.path[:200]
    if error.status_code == NotFound.status:
        return NotFound(f"There is nothing at {path}.")
    if error.status_code == MethodNotAllowed.status:
        return MethodNotAllowed(f"{path} does not take {request.method}.", headers=dict(error.headers or {}))
    return Invalid.field("", "The body cannot be read as JSON.")
