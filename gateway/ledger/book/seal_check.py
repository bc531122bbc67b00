"""Checks the rows of a chain, during a recount, against the ledger's seals and seals stored elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from gateway.ledger.book.chain import GENESIS, BadRow
from gateway.ledger.book.merkle import hash_of_leaf, root_of
from gateway.ledger.book.seals import Seal, digest_of


class SealCheck:
    """A walk along a chain: each row that is sound in itself is passed to ``fault`` once, in order.

    Args:
        sealed: the ledger's seals, oldest first, each with its leaves.
        erased: by number, the leaves that the erased rows among those being checked had; None for a row that was erased
            by a version without seals.
        published: seals stored out of reach of anyone who rewrites the ledger.
        hashes: hashes of such seals.
    """

    def __init__(
        self,
        sealed: Iterator[tuple[Seal, list[bytes]]],
        erased: Mapping[int, bytes | None],
        published: Collection[Seal] = (),
        hashes: Collection[str] = (),
    ) -> None:
        self._sealed = sealed
        self._erased = erased
        self._published = {seal.seq: seal for seal in published}
        self.unseen = set(hashes)
        """The hashes that none of the seals read so far has."""
        self.last: Seal | None = None
        """The last seal that was read."""
        self.count = 0
        self._leaves: list[bytes] = []
        self._are_more = True

    def fault(self, seq: int, spelled: bytes) -> str | None:
        """Return how a row, as canonical JSON, contradicts its seal; None if it does not."""
        while self._are_more and seq > self._upto:
            if reason := self._advance():
                return reason
        if self.last is None or seq > self._upto:
            return None
        leaf = self._erased[seq] if seq in self._erased else hash_of_leaf(spelled)
        if leaf is not None and self._leaves[seq - self.last.first_seq] != leaf:
            return f"seal {self.last.seq} covers another row in its place"
        return None

    def fault_at_the_end(self, head: int) -> BadRow | None:
        """Return the first row that a seal covers and that the chain, which ends at ``head``, lacks; None if none."""
        while self._are_more and self._upto <= head:
            if reason := self._advance():
                return BadRow(self._upto + 1, None, reason)
        if self.last is not None and self._upto > head:
            return BadRow(head + 1, None, f"it is missing, and seal {self.last.seq} covers it")
        if self._published:
            first = self._published[min(self._published)]
            reason = f"the ledger has no seal {first.seq}, which was published and covers the rows from here to {first.last_seq}"
            return BadRow(first.first_seq, None, reason)
        return None

    @property
    def _upto(self) -> int:
        return self.last.last_seq if self.last else 0

    def _advance(self) -> str | None:
        """Read the next seal; return what is wrong with it, if anything."""
        found = next(self._sealed, None)
        if found is None:
            self._are_more = False
            return None
        before, (seal, leaves) = self.last, found
        if reason := _unlike(before, seal, leaves, self._published.pop(seal.seq, None)):
            self._are_more = False
            return reason
        self.last, self._leaves = seal, leaves
        self.count += 1
        self.unseen.discard(seal.hash)
        return None


def _unlike(before: Seal | None, seal: Seal, leaves: list[bytes], published: Seal | None) -> str | None:
    """Return how a seal fails to follow ``before``, or differs from the seal published in its place; None if sound."""
    seq, first, prev = (before.seq + 1, before.last_seq + 1, before.hash) if before else (1, 1, GENESIS)
    if seal.seq != seq:
        return f"seal {seq}, which covers it, is missing"
    if published is not None and published.hash != seal.hash:
        return (
            f"seal {seq}, which was published and covers the rows from here to {published.last_seq}, is another one now"
        )
    if digest_of(seal) != seal.hash or seal.first_seq != first or seal.rows < 1:
        return f"seal {seq}, which covers it, was changed"
    if seal.prev != prev:
        return f"seal {seq}, which covers it, does not name the hash of the seal before it"
    if len(leaves) != seal.rows or root_of(leaves).hex() != seal.root:
        return f"the leaves that are kept with seal {seq}, which covers it, do not have its root"
    return None
