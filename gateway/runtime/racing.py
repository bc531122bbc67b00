"""Work that something else may end before it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def finished(work: Coroutine[Any, Any, object], *, unless: Coroutine[Any, Any, object]) -> bool:
    """Do the work and return True; or stop it half-way once ``unless`` is over, and return False."""
    working, other = asyncio.create_task(work), asyncio.create_task(unless)
    try:
        await asyncio.wait([working, other], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
            return True
        working.cancel()
        await asyncio.wait([working])
        return False
    finally:
        working.cancel()
        other.cancel()
