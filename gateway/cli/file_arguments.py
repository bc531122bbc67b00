"""Reads and writes the files that commands name; - is standard input and output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gateway.errors import StartupError

STANDARD = Path("-")


def read_object(path: Path, option: str) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        StartupError: the file cannot be read, or holds no JSON object.
    """
    try:
        text = sys.stdin.read() if path == STANDARD else path.read_text("utf-8")
        content = parsed(text)
    except OSError as error:
        raise StartupError(f"{name_of(path)}: {error.strerror}.", exit_code=2) from error
    except json.JSONDecodeError as error:
        raise StartupError(f"{name_of(path)}: line {error.lineno} is not JSON: {error.msg}.", exit_code=2) from error
    except (ValueError, RecursionError) as error:
        raise StartupError(f"{name_of(path)} is not JSON that can be read: {error}.", exit_code=2) from error
    if not isinstance(content, dict):
        raise StartupError(f"{name_of(path)} holds no JSON object, which {option} must be.", exit_code=2)
    return content


def parsed(text: str) -> Any:
    """Parse JSON that can be written again: its numbers are finite, its text is UTF-8.

    Raises:
        ValueError: the text is not such JSON, or its numbers are too long.
        RecursionError: the JSON is nested too deeply.
    """
    value = json.loads(text, parse_constant=_refuse_constant)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is refused here
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def name_of(path: Path) -> str:
    """Return a file's name for a sentence."""
    return "Standard input" if path == STANDARD else str(path)


def replace_file(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def records_in(paths: Iterable[Path], open_file: Callable[[Path], Iterable[str]]) -> Iterator[dict[str, Any]]:
    """Yield the usage records of files, a JSON object a line.

    Raises:
        StartupError: a file cannot be read, or a line is no JSON object.
    """
    for path in paths:
        try:
            for number, line in enumerate(open_file(path), start=1):
                if line.strip():
                    yield _object(path, number, line)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise StartupError(f"{name_of(path)}: {reason}.", exit_code=2) from error


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = parsed(line)
    except (ValueError, RecursionError) as error:
        raise StartupError(f"{name_of(path)}: line {number} is not JSON.", exit_code=2) from error
    if not isinstance(record, dict):
        raise StartupError(f"{name_of(path)}: line {number} is not a usage record, a JSON object.", exit_code=2)
    return record
