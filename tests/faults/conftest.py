"""One loop for all tests of a file: each test has customers of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.calls import Faulty, faulty_loop


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with faulty_loop(tmp_path_factory.mktemp("faulty"), write_deadline_s=0.5) as running:
        yield running
