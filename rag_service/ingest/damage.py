"""What can be wrong between catalogue, index and blobs, and how one document is judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from rag_service.access import AccessTokens
from rag_service.db.inventory import DocumentState


class Damage(StrEnum):
    MISSING_POINTS = "missing_points"
    MISSING_CHUNKS = "missing_chunks"
    ORPHAN_POINTS = "orphan_points"
    WRONG_VERSION = "wrong_version"
    WRONG_ACCESS = "wrong_access"
    WRONG_TEAM = "wrong_team"
    UNPURGED = "unpurged"
    MISSING_BLOBS = "missing_blobs"
    MISSING_TEXT = "missing_text"
    ORPHAN_BLOBS = "orphan_blobs"


@dataclass(frozen=True, slots=True)
class Seen:
    """A point of the index, as far as it is compared."""

    chunk_id: str
    version: int
    team: str
    access: AccessTokens


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` is a document id, or an owner of blobs; `mended` says whether its repair is done or queued."""

    damage: Damage
    team: str
    collection: str
    subject: str
    mended: bool = False


def judge(index: str, state: DocumentState, points: Iterable[Seen]) -> set[Damage]:
    """What is wrong with the points that an index holds of a document; nothing while work on it is open."""
    document, points = state.document, list(points)
    if state.busy:
        return set()
    if document is None or (document.is_deleted and state.purged):
        return {Damage.ORPHAN_POINTS} if points else set()
    if document.is_deleted:
        return {Damage.UNPURGED}
    answers = document.indexed_version if document.index_version == index else None
    current = [point for point in points if point.version == answers]
    expected = state.chunk_ids if answers is not None else frozenset()
    held = {point.chunk_id for point in current}
    checks = {
        Damage.WRONG_VERSION: len(current) < len(points),
        Damage.MISSING_POINTS: bool(expected - held),
        Damage.MISSING_CHUNKS: answers is not None and len(expected) != document.chunk_count,
        Damage.ORPHAN_POINTS: len(expected) == document.chunk_count and bool(held - expected),
        Damage.WRONG_ACCESS: any(not _equal(point.access, state.access) for point in current),
        Damage.WRONG_TEAM: any(point.team != document.team_id for point in current),
    }
    return {damage for damage, is_so in checks.items() if is_so}


def _equal(one: AccessTokens, other: AccessTokens) -> bool:
    return set(one.allow) == set(other.allow) and set(one.deny) == set(other.deny)
