"""Writes the tables of each field's fate: ``python -m gateway.serving.fields.field_tables > docs/fields.md``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator

from gateway.serving.fields.field_filter import Sieve
from gateway.serving.fields.guarded_fields import COSTLY, HOUSES, OURS
from gateway.serving.fields.known_fields import KNOWN
from gateway.serving.fields.tools import HOSTED_FIELDS
from gateway.serving.upstream.profiles import PROFILES, Profile

HEAD = """# What becomes of each field of a body

The tables are by format and by the profile of the upstream (`TOKENCAP_UPSTREAM_PROFILE`). `python -m gateway.serving.fields.field_tables` writes this page from the tables that the gateway itself uses.

* **passes**: the field reaches the upstream unchanged.
* **rewritten**: the gateway reads the field and writes it anew. The limits become the grant; the choices and the stream become what the call was admitted with; names such as `user` and `prompt_cache_key` become a digest that only this customer's calls have.
* **refused**: no token count shows the cost of the field. The answer is 400 and names the field. The reason, and the values with which the field is like any other field, are below.
* **dropped**: the field does not reach the upstream, and its name is in the answer's header `x-tokencap-dropped` and in the metric `tokencap_dropped_fields_total`. A field in no table here is dropped too, unless `TOKENCAP_PASSED_FIELDS` lists it. With `TOKENCAP_UNKNOWN_FIELDS=refuse` the answer is 400 `unknown_parameter` and names the field; with `pass` the field passes.
* Thinking budgets pass, and so do the objects that have a budget (`thinking`, `reasoning`, `chat_template_kwargs`, …). A budget that is not below the grant is brought below it, or dropped where the endpoint accepts no budget so small.
* –: the upstream does not speak this format.
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for endpoint in KNOWN:
        parts += [f"## `POST {endpoint}`\n", "\n".join(_table(endpoint)) + "\n"]
    parts += ["## Refused, and why\n", "\n".join(_refusals()) + "\n"]
    parts += [
        "## The house's own\n",
        "These fields affect other customers' calls, the model or the operator's account. They are dropped, also with "
        "`TOKENCAP_UNKNOWN_FIELDS=pass`; only `TOKENCAP_PASSED_FIELDS` lets such a field pass.\n",
        _codes(HOUSES) + "\n",
    ]
    return "\n".join(parts)


def fates(endpoint: str) -> dict[str, tuple[str, ...]]:
    """Return what becomes of each field in a table, by profile."""
    sieves = [_sieve(endpoint, profile) for profile in PROFILES.values()]
    names = OURS[endpoint].union(*KNOWN[endpoint].values())
    return {name: tuple("–" if sieve is None else sieve.fate(name) for sieve in sieves) for name in names}


def _sieve(endpoint: str, profile: Profile) -> Sieve | None:
    return Sieve(endpoint, profile) if endpoint in profile.speaks else None


def _table(endpoint: str) -> Iterator[str]:
    yield f"| fields | {' | '.join(PROFILES)} |"
    yield "|---|" + "---|" * len(PROFILES)
    by_fate: dict[tuple[str, ...], list[str]] = {}
    for name, fate in fates(endpoint).items():
        by_fate.setdefault(fate, []).append(name)
    for fate, names in sorted(
        by_fate.items(), key=lambda row: (row[0][0] == "refused", row[0].count("passes"), row), reverse=True
    ):
        yield f"| {_codes(names)} | {' | '.join(fate)} |"


def _refusals() -> Iterator[str]:
    yield "| field | why | with these values it is like any other field |"
    yield "|---|---|---|"
    for name, costly in COSTLY.items():
        yield f"| `{name}` | {costly.why} | {', '.join(f'`{json.dumps(harmless)}`' for harmless in costly.harmless)} |"
    why = "no count shows the cost of what the upstream runs; with `TOKENCAP_HOSTED_TOOLS=drop` the field is dropped"
    yield f"| {_codes(HOSTED_FIELDS)} | {why} | `null`, `false`, `[]` |"
    yield (
        "| `container`, a `prompt` with an id, a `file_id` in a message or an item | the upstream stores the object"
        " under one account for all customers; `TOKENCAP_PASSED_FIELDS` with the field's name lets it pass | |"
    )
    yield "| `context_management` | no limit bounds a summary | edits that clear tool uses or thinking |"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


if __name__ == "__main__":
    sys.stdout.write(page())
