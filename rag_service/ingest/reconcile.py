"""Comparing catalogue, index and blobs with each other, beside whatever else the service does.

A first look over everything finds suspects. Each of them is looked at once more by itself, between two looks at its
row: only what is wrong while the row stays as it is and no job on it is open counts as found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from typing import Any, TypeAlias

from rag_service.access import AccessTokens
from rag_service.blobs import BlobStore
from rag_service.db import Database, collections, inventory
from rag_service.db.documents import Document
from rag_service.db.inventory import DocumentState
from rag_service.errors import NotFound
from rag_service.ingest.damage import Damage, Finding, Seen, judge
from rag_service.ingest.repair import Repair
from rag_service.types import IndexVersion, utc_now
from rag_service.vectors.base import VectorStore

Progress: TypeAlias = Callable[[str, int, int | None], None]

_PAGE = 500
_SAMPLES = 10
# Bytes are put before any row names them; a batch that took longer than this has been given up.
GRACE_S = 3600.0


@dataclass(frozen=True)
class Reconciler:
    database: Database
    blobs: BlobStore
    vectors: VectorStore
    repair: Repair
    grace_s: float = GRACE_S

    def run(self, progress: Progress, *, mend: bool) -> dict[str, Any]:
        """The report: what was compared, and per team and collection what is wrong. Raises PutOffError (mend only)."""
        with self.database.read() as connection:
            indexes = collections.all_active(connection)
        found: list[Finding] = []
        compared = {"points": 0, "documents": 0, "blob_owners": 0}
        for number, index in enumerate(indexes):
            progress("index", number, len(indexes))
            found += _Index(self, index, mend).findings(compared)
        progress("blobs", 0, None)
        found += self._missing_blobs(compared, mend)
        found += self._orphan_blobs(compared, mend)
        return report(found, compared)

    def look(self, index: str, document_id: str) -> tuple[DocumentState, list[Seen]]:
        """A document between two looks at its row; busy unless both looks agree."""
        before = self._state(document_id)
        try:
            points = [seen(point) for point in self.vectors.stored(index, document_id)]
        except NotFound:
            points = []
        after = self._state(document_id)
        return (after if _same(before, after) else replace(after, busy=True)), points

    def _state(self, document_id: str) -> DocumentState:
        with self.database.read() as connection:
            return inventory.states(connection, [document_id])[document_id]

    def _missing_blobs(self, compared: dict[str, int], mend: bool) -> Iterator[Finding]:
        with self.database.read() as connection:
            for page in inventory.live_documents(connection):
                compared["documents"] += len(page)
                for document in page:
                    for damage in self._lost(document):
                        yield from self._lost_again(document, damage, mend)

    def _lost(self, document: Document) -> list[Damage]:
        keys = {Damage.MISSING_BLOBS: document.blob_key, Damage.MISSING_TEXT: document.text_key}
        return [damage for damage, key in keys.items() if key and not self.blobs.has(key)]

    def _lost_again(self, document: Document, damage: Damage, mend: bool) -> Iterator[Finding]:
        state = self._state(document.id)
        now = state.document
        if state.busy or now is None or now.is_deleted or damage not in self._lost(now):
            return
        mended = False
        if mend and damage == Damage.MISSING_BLOBS:
            mended = self.repair.lost_bytes(now)
        elif mend and self.blobs.has(now.blob_key):
            self.repair.index_again(now)
            mended = True
        yield Finding(damage, now.team_id, now.collection_id, now.id, mended)

    def _orphan_blobs(self, compared: dict[str, int], mend: bool) -> Iterator[Finding]:
        owners = self.blobs.owners()
        youngest = utc_now() - timedelta(seconds=self.grace_s)
        while page := list(islice(owners, _PAGE)):
            compared["blob_owners"] += len(page)
            for name in self._unneeded(owner.name for owner in page if owner.written_at < youngest):
                if mend:
                    self.repair.orphan_blobs(name)
                state = self._state(name.rpartition(".")[0])
                team, collection = ("", "") if state.document is None else _place(state.document)
                yield Finding(Damage.ORPHAN_BLOBS, team, collection, name, mend)

    def _unneeded(self, owners: Iterable[str]) -> list[str]:
        by_document = defaultdict(list)
        for name in owners:
            by_document[name.rpartition(".")[0]].append(name)
        with self.database.read() as connection:
            known = inventory.states(connection, list(by_document))
        return [name for one, names in by_document.items() for name in names if not _needed(known[one], name)]


@dataclass(frozen=True)
class _Index:
    """One index version in comparison."""

    parts: Reconciler
    index: IndexVersion
    mend: bool

    def findings(self, compared: dict[str, int]) -> Iterator[Finding]:
        held = self._held()
        compared["points"] += sum(map(len, held.values()))
        for document_id in self._suspects(held):
            state, points = self.parts.look(self.index.id, document_id)
            damages = judge(self.index.id, state, points)
            if not damages:
                continue
            mended = self.mend and self.parts.repair.document(self.index.id, document_id, state, points, damages)
            team, collection = self._place if state.document is None else _place(state.document)
            for damage in sorted(damages):
                yield Finding(damage, team, collection, document_id, mended)

    @property
    def _place(self) -> tuple[str, str]:
        with self.parts.database.read() as connection:
            return collections.team_of(connection, self.index), self.index.collection_id

    def _held(self) -> dict[str, list[Seen]]:
        """All points by document. Equal tokens are kept once: a million points take some 200 MB."""
        held: dict[str, list[Seen]] = defaultdict(list)
        shared: dict[AccessTokens, AccessTokens] = {}
        try:
            for point in self.parts.vectors.stored(self.index.id):
                access = shared.setdefault(point.access, point.access)
                held[point.document_id].append(Seen(point.chunk_id, point.version, point.team, access))
        except NotFound:
            held.clear()  # the store has lost the whole index, or it was deleted a moment ago
        return held

    def _suspects(self, held: Mapping[str, list[Seen]]) -> list[str]:
        suspects = []
        visited: set[str] = set()
        with self.parts.database.read() as connection:
            for page in inventory.live_documents(connection, self.index.id):
                ids = [document.id for document in page]
                visited.update(ids)
                suspects += self._first_look(ids, held)
            others = iter(held.keys() - visited)
            while part := list(islice(others, _PAGE)):
                suspects += self._first_look(part, held)
            in_this = [one for one in inventory.unpurged(connection) if one not in held]
            for start in range(0, len(in_this), _PAGE):
                suspects += self._first_look(in_this[start : start + _PAGE], held, of_collection=True)
        return suspects

    def _first_look(self, ids: list[str], held: Mapping[str, list[Seen]], *, of_collection: bool = False) -> list[str]:
        with self.parts.database.read() as connection:
            known = inventory.states(connection, ids)
        wrong = [one for one in ids if judge(self.index.id, known[one], held.get(one, ()))]
        if not of_collection:
            return wrong
        return [one for one in wrong if (row := known[one].document) and row.collection_id == self.index.collection_id]


def seen(point: Any) -> Seen:
    return Seen(point.chunk_id, point.version, point.team, point.access)


def report(found: Iterable[Finding], compared: Mapping[str, int]) -> dict[str, Any]:
    """Findings by place and kind, each with how many, how many of them are mended, and some to look at."""
    places: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    total = mended = 0
    for finding in found:
        kinds = places[finding.team, finding.collection]
        kind = kinds.setdefault(finding.damage.value, {"count": 0, "mended": 0, "samples": []})
        kind["count"] += 1
        kind["mended"] += finding.mended
        if len(kind["samples"]) < _SAMPLES:
            kind["samples"].append(finding.subject)
        total, mended = total + 1, mended + finding.mended
    listed = [{"team": team, "collection": one, "findings": kinds} for (team, one), kinds in sorted(places.items())]
    return {"found": total, "mended": mended, "compared": dict(compared), "collections": listed}


def _same(before: DocumentState, after: DocumentState) -> bool:
    revisions = [None if state.document is None else state.document.revision for state in (before, after)]
    return revisions[0] == revisions[1] and not before.busy and not after.busy


def _needed(state: DocumentState, owner: str) -> bool:
    document, version = state.document, owner.rpartition(".")[2]
    if state.busy:
        return True
    if document is None:
        return False
    if document.is_deleted:
        return not state.purged
    return version in (str(document.version), str(document.indexed_version))


def _place(document: Document) -> tuple[str, str]:
    return document.team_id, document.collection_id
