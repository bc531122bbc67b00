"""Times are read from RFC 3339 or milliseconds and written as RFC 3339 in UTC."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import LAST_MS, understood, written


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-01T12:00:00Z", 1_793_534_400_000),
        ("2026-11-01t12:00:00.5z", 1_793_534_400_500),
        ("2026-11-01T13:00:00.0019+01:00", 1_793_534_400_001),
        ("2026-11-01T13:00:00 01:00", 1_793_534_400_000),
        ("2026-11-01 04:30:00-07:30", 1_793_534_400_000),
        ("2026-11-01", 1_793_491_200_000),
        ("1793534400000", 1_793_534_400_000),
        (1_793_534_400_000, 1_793_534_400_000),
        ("0", 0),
    ],
)
def test_a_time_is_rfc_3339_or_milliseconds(value: Any, ms: int) -> None:
    assert understood(value) == ms


@pytest.mark.parametrize(
    "value",
    [
        *("", "now", "2026-11-01T12:00", "2026-11-01T12:00:00", "2026-13-01", "2026-02-30T00:00:00Z", "01.11.2026"),
        *(
            "-1",
            "1e3",
            "²",
            "9" * 40,
            -1,
            LAST_MS + 1,
            1.5,
            True,
            None,
            "1969-12-31T23:59:59Z",
            "9999-12-31T23:59:59-01:00",
        ),
    ],
)
def test_anything_else_is_no_time(value: Any) -> None:
    with pytest.raises(ValueError, match="A time"):
        understood(value)


@given(st.integers(0, LAST_MS))
def test_what_is_written_is_read_as_the_same_moment(ms: int) -> None:
    assert understood(written(ms)) == ms
    assert understood(str(ms)) == ms
    assert written(ms).endswith("Z")
    assert len(written(ms)) == len("2026-11-01T00:00:00.000Z")
