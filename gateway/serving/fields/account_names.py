"""Keeps customers' names apart at an upstream where all share one account: a body has only its customer's names."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from gateway.errors import BadRequest
from gateway.serving.caller.json_body import Body

OWN = ("prompt_cache_key", "cache_salt", "user", "safety_identifier")
"""Fields whose value only has to be stable for a customer and different from other customers' values."""

CHOSEN = frozenset({*OWN, "metadata"})

KEPT = frozenset({"container", "prompt"})

HOLDERS = frozenset({"content", "output", "file", "source"})
"""Fields of messages and items that may contain a file."""

DEPTH_MOST = 6


def make_own(body: Body, customer: str) -> None:
    """Replace each name that a customer may choose with a digest that only this customer's calls have."""
    if CHOSEN.isdisjoint(body):
        return
    for name in OWN:
        if isinstance(value := body.get(name), str) and value:
            body[name] = of_customer(value, customer)
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and isinstance(value := metadata.get("user_id"), str) and value:
        body["metadata"] = {**metadata, "user_id": of_customer(value, customer)}


def of_customer(name: str, customer: str) -> str:
    """Return the digest that the upstream is sent for a name: it hides the name, and no two customers share it."""
    text = name.encode("utf-8", "surrogatepass")
    return blake2b(text, key=customer.encode()[:64], person=b"own name", digest_size=16).hexdigest()


def refuse_upstream_names(body: Body, allowed: frozenset[str]) -> None:
    """Refuse ids of objects that the upstream stores and that no customer received through this gateway.

    Files, containers and prompts are created outside this gateway, under the operator's account. ``allowed`` has the
    fields that the operator lets pass.

    Raises:
        BadRequest: the body has such an id; ``param`` is its field.
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
        f"There is no {kind} {reference[:64]!r} of yours: those that the model's endpoint stores are the operator's.",
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
