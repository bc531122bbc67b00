"""Reads seals that were stored outside the ledger, for ``tokencap ledger verify``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.errors import StartupError
from gateway.ledger.book.seals import Seal

_HASH = re.compile(r"[0-9a-f]{64}")


def kept_seals(path: Path) -> list[Seal]:
    """Return the seals in a file: one JSON object a line, or an answer of ``GET /v1/ledger/seals``.

    Raises:
        StartupError: the file cannot be read, or a line is no seal.
    """
    try:
        return [Seal.from_json(fields) for fields in _objects(path.read_text("utf-8"))]
    except OSError as error:
        raise StartupError(f"The seals in {path} cannot be read: {error.strerror}.", exit_code=2) from error
    except ValueError as error:
        raise StartupError(
            f"{path} has something that is no seal, or was changed since it was published.", 2
        ) from error


def seal_hash(text: str) -> str:
    """Return the hash of a seal.

    Raises:
        StartupError: the text is not a hash.
    """
    if not _HASH.fullmatch(text):
        raise StartupError(
            f"{text[:80]!r} is no hash of a seal: it is 64 hexadecimal digits in lower case.", exit_code=2
        )
    return text


def _objects(text: str) -> Iterator[Any]:
    for line in text.splitlines():
        if line.strip():
            value = json.loads(line)
            yield from value["data"] if isinstance(value, dict) and isinstance(value.get("data"), list) else [value]
