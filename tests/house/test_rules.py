"""Every file keeps the rules of ``tests/house/rules.py``, and every rule finds a planted fault."""

from __future__ import annotations

import pytest

from tests.house import rules
from tests.house.files import name_of, python_files

SOURCES = [path for path in python_files() if name_of(path).startswith(("gateway/", "pricing/"))]

PLANTED: dict[rules.Rule, tuple[tuple[str, str], ...]] = {
    rules.no_float_in_money: (
        ("gateway/x.py", "half = price_nanousd / 2"),
        ("gateway/x.py", "more = 1.5 * row.charge_nanousd"),
        ("gateway/x.py", "shown = float(record['charge_nanousd'])"),
    ),
    rules.no_clock_but_clock: (
        ("gateway/x.py", "import time\nat = time.time()"),
        ("gateway/x.py", "clock = time.time_ns"),
        ("pricing/x.py", "from datetime import datetime\nat = datetime.now()"),
        ("gateway/x.py", "at = datetime.datetime.utcnow()"),
    ),
    rules.no_secret_in_a_log: (
        ("gateway/x.py", "log.info('begun with %s', admin_token)"),
        ("gateway/x.py", "log.error(f'refused {self.secret}')"),
        ("gateway/x.py", "logging.debug('as %s', settings.upstream_api_key)"),
    ),
    rules.no_sql_outside_its_rooms: (
        ("gateway/admin/x.py", "from sqlalchemy import Connection, select"),
        ("gateway/cli/x.py", "import sqlalchemy"),
        ("gateway/billing/x.py", "from sqlalchemy.exc import IntegrityError"),
    ),
    rules.no_broad_except_without_a_word: (
        ("gateway/x.py", "try:\n    f()\nexcept Exception:\n    pass"),
        ("gateway/x.py", "try:\n    f()\nexcept:\n    g()"),
    ),
    rules.pricing_is_documented: (
        ("pricing/x.py", "def iron(caps: Floats) -> Floats:\n    return caps"),
        ("pricing/x.py", 'def iron(caps: Floats) -> Floats:\n    """Return the caps."""\n    return caps'),
    ),
}


def test_every_file_keeps_the_rules() -> None:
    """The docstring of each rule states it."""
    texts = ((name_of(path), path.read_text("utf-8")) for path in SOURCES)

    assert [(rule.__name__, name, at) for name, text in texts for rule in rules.RULES for at in rule(name, text)] == []


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_rule_finds_what_is_planted(rule: rules.Rule) -> None:
    """Each form of a planted fault is found exactly once."""
    found = [len(list(rule(path, text))) for path, text in PLANTED[rule]]

    assert found == [1] * len(PLANTED[rule])
