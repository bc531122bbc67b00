"""Lists page by page: an opaque cursor is the position of the last row shown, so new rows never shift a page."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from gateway.catalog.problems import Invalid
from gateway.ledger import cursors
from gateway.ledger.cursors import NoCursor

Row = TypeVar("Row")

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
NOT_OURS = "This is not a next_cursor of this list."

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description=f"The most rows in one answer, up to {MAX_LIMIT}.")]
Cursor = Annotated[
    str | None, Query(max_length=1000, description="The `next_cursor` of the page before; omit it for the first page.")
]


class Page(BaseModel, Generic[Row]):
    """A part of a list."""

    data: list[Row]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last page.")


def position_of(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """Return the position that a cursor encodes; ``kinds`` are the types of the position's parts.

    Raises:
        Invalid: the cursor is not from this list.
    """
    try:
        return cursors.position_of(cursor, *kinds)
    except NoCursor as error:
        raise Invalid.field("cursor", NOT_OURS) from error
