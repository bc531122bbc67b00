"""Takes passwords out of what is printed and logged, as plain lines on stderr where the service manager collects them."""

from __future__ import annotations

import logging
import re

MASK = "…"

CHATTY = ("httpx", "httpcore", "uvicorn", "alembic", "asyncio")

NO_URL = "{} is no URL: in a name or password, write %, /, @ and : as %25, %2F, %40 and %3A."
"""Said in place of what a parser says of a URL, which may have a piece of the password in it."""

USER = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s\"'<>]*@")
"""All that stands before the host, also where a password has an ``@`` or a ``/`` that nobody escaped."""

PARAMETER = re.compile(
    r"([?&;][\w.%-]*(?:key|token|secret|passw|pwd|sig|auth|cred|code)[\w.%-]*=)[^&#\s\"'<>]+", re.IGNORECASE
)
HEADER = re.compile(r"\b(Bearer|Basic) [\w.~+/=-]{6,}")
OURS = re.compile(r"\b(tca?-|whsec_)[\w+/=-]{6,}")


def redacted(text: str) -> str:
    """Return a text without the passwords, tokens and keys in the URLs, headers and keys of ours that are in it."""
    text = PARAMETER.sub(rf"\1{MASK}", USER.sub(rf"\1{MASK}@", text))
    return OURS.sub(rf"\1{MASK}", HEADER.sub(rf"\1 {MASK}", text))


class Discreet(logging.Formatter):
    """A line, and a traceback under it, without passwords, whichever library put them there."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def log_to_stderr(level: str = "info") -> None:
    """Log what the operator should know, from a level on, and of the libraries only what went wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(Discreet("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
