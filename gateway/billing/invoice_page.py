"""An invoice as a printable page: HTML that needs no other file. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from pricing.money import written

STYLE = """
@page { size: A4; margin: 20mm }
body { font: 10pt/1.4 system-ui, sans-serif; color: #111; max-width: 180mm; margin: 0 auto }
header { display: flex; justify-content: space-between; gap: 10mm }
h1 { font-size: 18pt; margin: 10mm 0 4mm }
dl { display: grid; grid-template-columns: max-content auto; gap: 0 6mm; margin: 0 0 8mm }
dt { color: #555 } dd { margin: 0 }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: 1.5mm 2mm; border-bottom: .2mm solid #ccc; vertical-align: top }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
tfoot td { font-weight: bold; border-bottom: 0 }
.small { color: #555; font-size: 8pt; overflow-wrap: anywhere }
"""

NAMES = {
    "subscription": "Subscription",
    "conversations": "Conversations",
    "input": "Input tokens",
    "cached_input": "Cached input tokens",
    "output": "Output tokens",
    "reasoning": "Reasoning tokens",
    "fee": "Fees",
    "correction": "Corrections",
    "credit": "Credits",
}


def page(invoice: Mapping[str, Any]) -> str:
    """Return the page of an invoice that has the form the API shows. All typed text is escaped."""
    return "".join(_parts(invoice))


def _parts(invoice: Mapping[str, Any]) -> Iterator[str]:
    title = _title(invoice)
    currency = invoice["currency"]
    yield "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
    yield f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
    yield f"<header><p>{lined(invoice['issuer']['address'])}</p><p>{lined(_customer(invoice))}</p></header>\n"
    yield f"<h1>{escape(title)}</h1>\n<dl>\n"
    period = invoice["period"]
    facts = {
        "Period": f"{period['start']} to {period['end']}, the month {period['month']} in {period['timezone']}",
        "Customer": invoice["customer"],
        "Issued": invoice["created"] or "not yet: this may still change",
    }
    yield from (f"<dt>{name}</dt><dd>{escape(text)}</dd>\n" for name, text in facts.items())
    yield "</dl>\n<table>\n<thead><tr><th>What</th><th>Quantity</th><th>Unit price</th><th>Amount</th></tr></thead>\n<tbody>\n"
    for line in invoice["lines"]:
        yield _row(line, currency)
    yield f"</tbody>\n<tfoot><tr><td>Total</td><td></td><td></td><td>{escape(_money(invoice, currency))}</td></tr></tfoot>\n"
    yield f"</table>\n{_prepaid(invoice)}<p>{lined(invoice['issuer']['tax_lines'])}</p>\n"
    ledger = invoice["ledger"]
    yield (
        f"<p class=small>{invoice['records']} records of the ledger's chain {escape(ledger['chain'])}, "
        f"numbers {ledger['first_seq']} to {ledger['last_seq']}. Each call is rounded down to a whole nano-unit by "
        "itself; nothing else is rounded.</p>\n</html>\n"
    )


def _prepaid(invoice: Mapping[str, Any]) -> str:
    """Return what prepaid credit pays of the total, and what is owed; nothing where the customer has had none."""
    prepaid = invoice.get("prepaid")
    if prepaid is None:
        return ""
    rows = {
        "Prepaid credit at the beginning": prepaid["before_nanousd"],
        "Prepaid credit added": prepaid["added_nanousd"],
        "Paid from prepaid credit": prepaid["drawn_nanousd"],
        "Prepaid credit left": prepaid["left_nanousd"],
        "Due": prepaid["due_nanousd"],
    }
    cells = (
        f"<tr><td>{name}</td><td>{escape(written(amount, invoice['currency']))}</td></tr>\n"
        for name, amount in rows.items()
    )
    return f"<table>\n<tbody>\n{''.join(cells)}</tbody>\n</table>\n"


def _title(invoice: Mapping[str, Any]) -> str:
    kind = "Credit note" if invoice["total_nanousd"] < 0 else "Invoice"
    return f"{kind} {invoice['number']}" if invoice["number"] else f"{kind}, draft"


def _customer(invoice: Mapping[str, Any]) -> list[str]:
    return [text for text in (invoice["name"], invoice["external_id"]) if text]


def lined(texts: list[str]) -> str:
    return "<br>".join(map(escape, texts))


def _money(invoice: Mapping[str, Any], currency: str) -> str:
    return written(invoice["total_nanousd"], currency)


def _row(line: Mapping[str, Any], currency: str) -> str:
    what = " · ".join(text for text in (NAMES[line["kind"]], line["tier"]) if text)
    price = "" if line["unit_nanousd"] is None else written(line["unit_nanousd"], currency)
    per = " a million" if price and line["unit"] == "tokens" else ""
    version = f"menu {line['menu_version']}, " if line["menu_version"] else ""
    records = f"{version}{line['records']} records, {line['first_record']} to {line['last_record']}"
    cells = (str(line["quantity"]), price + per, written(line["amount_nanousd"], currency))
    columns = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr><td>{escape(what)}<div class=small>{escape(records)}</div></td>{columns}</tr>\n"
