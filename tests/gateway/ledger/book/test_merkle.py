"""Claims about the trees, with RFC 6962's own definition and the vectors of Certificate Transparency as witnesses."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.book.merkle import climbed, hash_of_leaf, path_to, root_of

# The leaves and roots of google/certificate-transparency's tests of its Merkle tree.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

leaves = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70)


def defined_root(leaves: list[bytes]) -> bytes:
    """Return the root as section 2.1 of RFC 6962 defines it, of leaves that are hashed already."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + defined_root(leaves[:split]) + defined_root(leaves[split:])).digest()


def defined_path(leaves: list[bytes], place: int) -> list[bytes]:
    """Return the audit path as section 2.1.1 defines it."""
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if place < split:
        return [*defined_path(leaves[:split], place), defined_root(leaves[split:])]
    return [*defined_path(leaves[split:], place - split), defined_root(leaves[:split])]


@pytest.mark.parametrize("count", range(1, 9))
def test_a_root_is_the_one_that_certificate_transparency_publishes(count: int) -> None:
    assert root_of([hash_of_leaf(bytes.fromhex(leaf)) for leaf in LEAVES[:count]]).hex() == ROOTS[count - 1]


@given(leaves)
def test_a_root_is_the_one_that_the_rfc_defines(leaves: list[bytes]) -> None:
    assert root_of(leaves) == defined_root(leaves)


@given(leaves)
def test_every_leaf_has_the_path_that_the_rfc_defines_and_it_leads_to_the_root(leaves: list[bytes]) -> None:
    for place, leaf in enumerate(leaves):
        path = path_to(leaves, place)

        assert [step.hash for step in path] == defined_path(leaves, place)
        assert climbed(leaf, path) == root_of(leaves)


@given(leaves, st.data())
def test_another_leaf_does_not_climb_to_the_root(leaves: list[bytes], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(leaves) - 1))
    other = data.draw(st.binary(min_size=32, max_size=32).filter(lambda leaf: leaf != leaves[place]))

    assert climbed(other, path_to(leaves, place)) != root_of(leaves)
