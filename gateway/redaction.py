"""Removes passwords from printed and logged text, and logs plain lines to stderr, for the service manager to collect."""

from __future__ import annotations

import logging
import re

MASK = "…"

CHATTY = ("httpx", "httpcore", "uvicorn", "alembic", "asyncio")

NO_URL = "{} is no URL: in a name or password, write %, /, @ and : as %25, %2F, %40 and %3A."
"""Replaces a parser's message about an invalid URL, which may contain a piece of the password."""

USER = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s\"'<>]*@")
"""Everything before the host, even if a password has an ``@`` or a ``/`` that is not escaped."""

PARAMETER = re.compile(
    r"([?&;][\w.%-]*(?:key|token|secret|passw|pwd|sig|auth|cred|code)[\w.%-]*=)[^&#\s\"'<>]+", re.IGNORECASE
)
HEADER = re.compile(r"\b(Bearer|Basic) [\w.~+/=-]{6,}")
OURS = re.compile(r"\b(tca?-|whsec_)[\w+/=-]{6,}")


def redacted(text: str) -> str:
    """Return a text with passwords, tokens and keys masked: in URLs, in headers, and keys that this gateway issued."""
    text = PARAMETER.sub(rf"\1{MASK}", USER.sub(rf"\1{MASK}@", text))
    return OURS.sub(rf"\1{MASK}", HEADER.sub(rf"\1 {MASK}", text))


class Discreet(logging.Formatter):
    """Formats a log record, with its traceback, without passwords, whichever library wrote them into it."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def log_to_stderr(level: str = "info") -> None:
    """Log to stderr from this level on, but only warnings and errors of chatty libraries."""
    handler = logging.StreamHandler()
    handler.setFormatter(Discreet("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
