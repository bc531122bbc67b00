"""One loop for all tests of a file and one way of asking: each test has customers of its own.

In this loop a caller who leaves ends its answer; ``test_nothing_escapes.py`` tests the bill where the answer goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.faults.calls import ALWAYS, Faulty, faulty_loop


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """How the upstream is asked: as the test chooses, else always to stream."""
    return str(getattr(request, "param", ALWAYS))


@pytest.fixture(scope="module")
def loop_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Faulty]]:
    with ExitStack() as stack:

        @cache
        def start(way: str) -> Faulty:
            settings = {
                "write_deadline_s": 0.5,
                "on_hangup": "stop",
                "hangup_bills": "visible",
                "upstream_streams": way,
            }
            return stack.enter_context(faulty_loop(tmp_path_factory.mktemp(way), **settings))

        yield start


@pytest.fixture
def faulty(loop_of: Callable[[str], Faulty], way: str) -> Faulty:
    return loop_of(way)
