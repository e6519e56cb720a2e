"""Verifying the audit log: which entries were changed, removed or put in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from rag_service.db.audit import BEFORE_ALL, GENESIS, AuditFilter, Recorded, head_of, in_order


@dataclass(slots=True)
class Chain:
    """Walks entries, oldest first, and remembers what does not fit.

    `noted` holds heads (number of entries -> hash) that somebody wrote down elsewhere: who rewrites the whole log, with
    all its hashes, cannot rewrite these. `gaps` counts the faults that are entries left out.
    """

    noted: Mapping[int, str] = field(default_factory=dict)
    seq: int = 0
    hash: str = GENESIS
    faults: list[str] = field(default_factory=list)
    gaps: int = 0

    def follow(self, entries: Iterable[Recorded]) -> Chain:
        for entry in entries:
            self._step(entry)
        return self

    def ends_at(self, seq: int, hash_: str) -> Chain:
        """Compare the end with the head that the service keeps."""
        if (self.seq, self.hash) != (seq, hash_):
            self.faults.append(f"the log ends with entry {self.seq} {self.hash[:12]}, its head says {seq} {hash_[:12]}")
        self.faults += [f"entry {noted}, whose hash was noted, is missing" for noted in self.noted if noted > self.seq]
        return self

    def _step(self, entry: Recorded) -> None:
        expected = self.seq + 1
        if entry.seq > expected:
            which = f"entry {expected} is" if entry.seq == expected + 1 else f"entries {expected}-{entry.seq - 1} are"
            self.faults.append(f"{which} missing")
            self.gaps += 1
        elif entry.seq < expected:
            self.faults.append(f"entry {entry.seq} stands after entry {self.seq}")
        elif entry.after_hash(self.hash) != entry.hash:
            self.faults.append(f"entry {entry.seq} was changed or put in")
        if self.noted.get(entry.seq, entry.hash) != entry.hash:
            self.faults.append(f"entry {entry.seq} has another hash than was noted")
        self.seq, self.hash = entry.seq, entry.hash


def verify(connection: Connection, noted: Mapping[int, str] | None = None) -> Chain:
    """Walk the whole log; others may append meanwhile. Memory does not grow with it."""
    chain, last = Chain(noted or {}), BEFORE_ALL
    while True:
        chain.follow(in_order(connection, AuditFilter(), last=last))
        seq, hash_ = head_of(connection)
        if chain.seq >= seq or chain.seq == last:
            return chain.ends_at(seq, hash_)
        last = chain.seq
