"""What the admin routes work with: everything they need is handed to them in this one record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import redis

from gateway.admin.api.wrong_tokens import WrongTokens
from gateway.catalog.admin_tokens import AdminTokens
from gateway.holds.store.projection import Projection
from gateway.ledger.database import Database
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class AdminServices:
    """``now_ms`` is the time of day, ms since 1970; ``random_bytes`` is where ids and keys come from (os.urandom)."""

    database: Database
    projection: Projection
    redis: redis.Redis
    tokens: AdminTokens
    wrong_tokens: WrongTokens
    now_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    settings: Settings

    def new_id(self, prefix: str) -> str:
        """Return a new id: ``cus_`` or ``key_`` and 96 random bits."""
        return f"{prefix}_{self.random_bytes(12).hex()}"
