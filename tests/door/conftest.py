"""One house behind its front ends, for all door tests that a process runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.door.house import House, house


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("door")) as running:
        yield running
