"""The lock files cover all requirements of this project, by hash, and name no index or address."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement

from tests.house.files import ROOT
from tests.house.test_project_file import PROJECT

RUNTIME = list(PROJECT["project"]["dependencies"])
EVERYTHING = [
    *RUNTIME,
    *(each for extra in PROJECT["project"]["optional-dependencies"].values() for each in extra),
    *PROJECT["dependency-groups"]["test"],
]
LOCKS = {
    "requirements.lock": RUNTIME,
    "tests/requirements.lock": EVERYTHING,
    "tests/conformance/apart/requirements.lock": PROJECT["dependency-groups"]["clients"],
}


def locked(name: str) -> dict[str, list[str]]:
    """Return the versions in a lock file by name; a name has several where they differ by Python version or system."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / name).read_text("utf-8").splitlines():
        if read := re.match(r"([a-z0-9-]+)(?:\[[a-z,-]+\])?==([^ ;]+)", line):
            found.setdefault(read[1], []).append(read[2])
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", LOCKS)
def test_each_requirement_is_locked_within_its_bounds(name: str) -> None:
    """A change of a bound needs `make lock`."""
    versions = locked(name)
    for text in LOCKS[name]:
        requirement = Requirement(text)
        found = versions.get(canonical(requirement.name), [])
        assert found, f"{requirement.name} is not in {name}"
        within = [version for version in found if requirement.specifier.contains(version, prereleases=True)]
        assert within if requirement.marker else within == found, requirement


@pytest.mark.parametrize("name", LOCKS)
def test_each_file_is_known_by_its_hash_and_nothing_by_its_place(name: str) -> None:
    """The lock files name no index and no address: an installation uses its own index."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    entries = [line for line in lines if not line.startswith("#")]

    assert all(re.match(r"[a-z0-9]|    --hash=sha256:[0-9a-f]{64}( \\)?$", line) for line in entries)
    assert not [line for line in entries if "://" in line or " @ " in line]
    packages = [number for number, line in enumerate(entries) if not line.startswith(" ")]
    assert all(entries[number + 1].startswith("    --hash=") for number in packages)


def test_both_locks_agree() -> None:
    """Production runs the tested versions."""
    tested = locked("tests/requirements.lock")

    assert {name: tested[name] for name in locked("requirements.lock")} == locked("requirements.lock")


@pytest.mark.parametrize("path", ["Makefile", "deploy/Dockerfile"])
def test_what_installs_goes_by_the_lock(path: str) -> None:
    """Each installing line requires hashes, or installs the project alone."""
    lines = (ROOT / path).read_text("utf-8").splitlines()
    installing = [line for line in lines if re.search(r"\$\(INSTALL\) |bin/pip install --no-cache", line)]

    assert len(installing) >= 2
    assert all("--require-hashes" in line or "--no-deps" in line for line in installing)
