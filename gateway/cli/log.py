"""How the processes log: plain lines on stderr, where the service manager collects them."""

from __future__ import annotations

import logging

from gateway.redaction import redacted

CHATTY = ("httpx", "httpcore", "uvicorn", "alembic", "asyncio")


class Discreet(logging.Formatter):
    """A line, and a traceback under it, without passwords, whichever library put them there."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def log_to_stderr() -> None:
    """Log what the operator should know, and of the libraries only what went wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(Discreet("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
