"""One loop for all tests of a file: each test has customers of its own.

A caller who leaves ends its answer there; ``test_nothing_escapes.py`` has what is billed where it does not.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.calls import Faulty, faulty_loop


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with faulty_loop(
        tmp_path_factory.mktemp("faulty"), write_deadline_s=0.5, on_hangup="stop", hangup_bills="visible"
    ) as running:
        yield running
