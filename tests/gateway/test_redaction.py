"""No secret of any setting is in what is printed or logged."""

from __future__ import annotations

import logging
import sys

import pytest

from gateway.redaction import Discreet, redacted


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("http://ann:hunter2@model:8000/v1 answers.", "http://…@model:8000/v1 answers."),
        ("rediss://:p@ss/w:rd@cache:6379/0", "rediss://…@cache:6379/0"),
        (
            "postgresql+psycopg://ann:hunter2@db/books?sslmode=require",
            "postgresql+psycopg://…@db/books?sslmode=require",
        ),
        ("https://hunter2@hooks.example/x", "https://…@hooks.example/x"),
        (
            "https://m.example/v1?api-version=1&api-key=hunter2&x=y#z",
            "https://m.example/v1?api-version=1&api-key=…&x=y#z",
        ),
        ("https://hooks.example/?sig=hunter2", "https://hooks.example/?sig=…"),
        ("Authorization: Bearer hunter2hunter2", "Authorization: Bearer …"),
        ("tc-b7f-hunter2hunter2 and tca-hunter2hunter2", "tc-… and tca-…"),
        ("whsec_aHVudGVyMmh1bnRlcjI=", "whsec_…"),
        (
            "Write to ann@example.com, see http://127.0.0.1:8080/x?limit=5.",
            "Write to ann@example.com, see http://127.0.0.1:8080/x?limit=5.",
        ),
    ],
)
def test_a_text_is_told_without_the_secrets_in_it(raw: str, shown: str) -> None:
    assert redacted(raw) == shown


def test_a_log_line_and_its_traceback_have_no_password() -> None:
    try:
        raise ValueError("no way to redis://:hunter2@cache:6379")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "%s failed", ("http://a:hunter2@b",), sys.exc_info())

    line = Discreet("%(message)s").format(record)

    assert line.startswith("http://…@b failed\nTraceback")
    assert "hunter2" not in line
