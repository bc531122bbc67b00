"""``tokencap customers credit``, ``fee`` and ``prepaid``: an amount on a customer's bill, over the admin API."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.admin_api import Token, Url, admin_client, refusal, send_request

Customer = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id.")]
Amount = Annotated[int, typer.Option("--amount-nanousd", min=1, help="In nano-units: 10^9 are 1 USD.")]
Reason = Annotated[str, typer.Option(help="The reason: one line, stored beside the record.")]
Key = Annotated[str | None, typer.Option("--idempotency-key", help="A repetition with the same key changes nothing.")]


def credit(
    customer: Customer,
    amount: Amount,
    reason: Reason,
    url: Url,
    token: Token,
    record: Annotated[str | None, typer.Option(help="The record to credit, by at most its charge.")] = None,
    invoice: Annotated[str | None, typer.Option(help="The final invoice to credit, by at most its total.")] = None,
    key: Key = None,
) -> None:
    """Credit a customer: a record with a negative charge, printed as it is in the ledger."""
    targets = {"record": record, "invoice": invoice}
    body = {
        "amount_nanousd": amount,
        "reason": reason,
        **{name: target for name, target in targets.items() if target is not None},
    }
    _put(url, token, f"/admin/customers/{quote(customer, safe='')}/credits", body, key)


def fee(customer: Customer, amount: Amount, reason: Reason, url: Url, token: Token, key: Key = None) -> None:
    """Charge a customer a fee: a record of its own, printed as it is in the ledger."""
    body = {"amount_nanousd": amount, "reason": reason}
    _put(url, token, f"/admin/customers/{quote(customer, safe='')}/fees", body, key)


def prepaid(customer: Customer, amount: Amount, reason: Reason, url: Url, token: Token, key: Key = None) -> None:
    """Add prepaid credit, from which a customer's charges are drawn; the record is printed as it is in the ledger."""
    body = {"amount_nanousd": amount, "reason": reason}
    _put(url, token, f"/admin/customers/{quote(customer, safe='')}/prepaid", body, key)


def _put(url: str, token: str, path: str, body: dict[str, Any], key: str | None) -> None:
    with admin_client(url, token) as client:
        answer = send_request(client, "POST", path, body, **({} if key is None else {"idempotency-key": key}))
    if not answer.is_success:
        raise refusal(answer)
    print(json.dumps(answer.json(), ensure_ascii=False))
