"""Names in a caller's body, at an upstream where all customers share one account: each must be the customer's own."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from gateway.errors import BadRequest
from gateway.serving.caller.json_body import Body

OWN = ("prompt_cache_key", "cache_salt", "user", "safety_identifier")
"""Fields whose value only has to be stable for a customer and different from every other customer's."""

CHOSEN = frozenset({*OWN, "metadata"})

KEPT = frozenset({"container", "prompt"})

HOLDERS = frozenset({"content", "output", "file", "source"})
"""Fields of messages and items that may have a file inside."""

DEPTH_MOST = 6


def make_own(body: Body, customer: str) -> None:
    """Replace each name that a customer may choose by a digest that only this customer's calls have."""
    if CHOSEN.isdisjoint(body):
        return
    for name in OWN:
        if isinstance(value := body.get(name), str) and value:
            body[name] = of_customer(value, customer)
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and isinstance(value := metadata.get("user_id"), str) and value:
        body["metadata"] = {**metadata, "user_id": of_customer(value, customer)}


def of_customer(name: str, customer: str) -> str:
    """Return the upstream's digest for a name: nobody can read the name in it, and no two customers share it."""
    text = name.encode("utf-8", "surrogatepass")
    return blake2b(text, key=customer.encode()[:64], person=b"own name", digest_size=16).hexdigest()


def refuse_upstream_names(body: Body, allowed: frozenset[str]) -> None:
    """Refuse names of things that the upstream keeps and that no customer received through this gateway.

    Files, containers and prompts are made outside this gateway, under the operator's account; ``allowed`` are the
    fields that the operator lets pass.

    Raises:
        BadRequest: there is such a name; ``param`` says where.
    """
    for name in sorted(KEPT.intersection(body) - allowed):
        value = body[name]
        reference = value.get("id") if isinstance(value, dict) else value
        if isinstance(reference, str) and not (name == "prompt" and isinstance(value, str)):
            raise _unknown(name, reference, name)
    if "file_id" in allowed:
        return
    for field in ("messages", "input", "system"):
        if field in body and (reference := _file_in(body[field], DEPTH_MOST)) is not None:
            raise _unknown("file", reference, field)


def _unknown(kind: str, reference: str, param: str) -> BadRequest:
    return BadRequest(
        f"There is no {kind} {reference[:64]!r} that was given to you: what the model's endpoint keeps is the house's.",
        code="not_given",
        param=param,
    )


def _file_in(part: Any, depth: int) -> str | None:
    """Return the id of a file in messages or items, or None where there is none."""
    if isinstance(part, list):
        for item in part:
            if (file_id := _file_in(item, depth)) is not None:
                return file_id
    elif isinstance(part, dict) and depth:
        for name, value in part.items():
            if isinstance(value, str):
                if name == "file_id":
                    return value
            elif name in HOLDERS and (file_id := _file_in(value, depth - 1)) is not None:
                return file_id
    return None
