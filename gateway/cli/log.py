"""How the processes log: plain lines on stderr, where the service manager collects them."""

from __future__ import annotations

import logging

CHATTY = ("httpx", "httpcore", "uvicorn", "alembic", "asyncio")


def log_to_stderr() -> None:
    """Log what the operator should know, and of the libraries only what went wrong."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
