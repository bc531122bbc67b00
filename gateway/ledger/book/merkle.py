"""Merkle trees over the book, hashed as in RFC 6962: the leaf of a record, the root over leaves, the path to a root."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.ledger.book.chain import canonical
from pricing.usage import UsageRecord

HASH_BYTES = 32

LEAF, NODE = b"\x00", b"\x01"
"""The byte that precedes the hashed bytes, so that a node cannot pass for a leaf."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a path: the hash to join, and its side of the hash computed so far."""

    side: Literal["left", "right"]
    hash: bytes


def leaf_of(record: UsageRecord) -> bytes:
    """Return the leaf of a record that has its ``hash``."""
    return hash_of_leaf(canonical(record))


def hash_of_leaf(data: bytes) -> bytes:
    """Return SHA-256 of 0x00 and the data."""
    return hashlib.sha256(LEAF + data).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over at least one leaf.

    A level is joined in pairs from the left, and a last node without a partner moves up unchanged. The result is RFC
    6962's tree, which splits at the largest power of two.
    """
    level = list(leaves)
    while len(level) > 1:
        level = _above(level)
    return level[0]


def path_to(leaves: Sequence[bytes], place: int) -> list[Step]:
    """Return the path from the leaf at ``place`` up to the root: one step for each level that has a node beside it."""
    level, steps = list(leaves), []
    while len(level) > 1:
        if place % 2:
            steps.append(Step("left", level[place - 1]))
        elif place + 1 < len(level):
            steps.append(Step("right", level[place + 1]))
        level, place = _above(level), place // 2
    return steps


def climbed(leaf: bytes, path: Iterable[Step]) -> bytes:
    """Return the root to which a path leads from a leaf."""
    at = leaf
    for step in path:
        at = _joined(step.hash, at) if step.side == "left" else _joined(at, step.hash)
    return at


def _above(level: list[bytes]) -> list[bytes]:
    sha256 = hashlib.sha256
    above = [sha256(NODE + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
    return above if len(level) % 2 == 0 else [*above, level[-1]]


def _joined(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(NODE + left + right).digest()
