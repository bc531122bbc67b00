"""Times in the admin API's requests and answers, as pydantic reads and describes them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from gateway.clock import understood

EXAMPLE = "2026-11-01T00:00:00.000Z"

Moment = Annotated[str, Field(examples=[EXAMPLE], json_schema_extra={"format": "date-time"})]
"""A time in an answer."""

GivenMoment = Annotated[
    int,
    BeforeValidator(understood),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "integer", "minimum": 0, "description": "Milliseconds since 1970, UTC."},
            ],
            "examples": [EXAMPLE],
        }
    ),
]
"""A time in a request."""
