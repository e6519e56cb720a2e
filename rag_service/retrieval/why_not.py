"""Why a document is, or is not, among the answers to a question: the first obstacle on its way, named.

The question is asked as it would be; then the obstacles are looked at in the order in which a document meets them.
Whether a filter holds is asked of the vector store itself, among the document's own chunks, so that the verdict cannot
differ from what a search does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from rag_service.access import AccessScope, Principal, scope_of
from rag_service.db import Connection, Database, acls, chunks, collections, documents, jobs
from rag_service.db.documents import Document
from rag_service.db.fields import fields_of
from rag_service.db.jobs import JobFilter
from rag_service.errors import Conflict, NotFound
from rag_service.retrieval.clauses import failing, values, written
from rag_service.retrieval.cut_off import cut_off
from rag_service.retrieval.plan import RetrievalRequest
from rag_service.retrieval.retriever import Retriever
from rag_service.retrieval.syntax import Question
from rag_service.types import Filter, IndexVersion, JobKind
from rag_service.vectors.base import SearchRequest, VectorStore

Kind: TypeAlias = Literal[
    "returned",
    "below_cut_off",
    "filtered_out",
    "wording",
    "not_readable",
    "not_searched",
    "not_indexed",
    "failed",
    "deleted",
]

_AT_ONCE = 1_000  # passages read at a time


@dataclass(frozen=True, slots=True)
class Subject:
    """The document asked about: by `document_id`, or by `external_id` in one collection or those that are searched."""

    document_id: str | None = None
    external_id: str | None = None
    collection: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is one sentence for people, `detail` the same for programs. `collection` None: it is gone."""

    kind: Kind
    reason: str
    document: Document
    collection: str | None
    detail: Mapping[str, Any]


class WhyNot:
    """Holds no state of its own; safe to share between threads."""

    def __init__(self, database: Database, vectors: VectorStore, retriever: Retriever) -> None:
        self._database = database
        self._vectors = vectors
        self._retriever = retriever

    def explain(self, subject: Subject, request: RetrievalRequest, principal: Principal, *, tells_all: bool) -> Verdict:
        """What became of `subject` when `principal` asks `request`.

        Raises NotFound for a document that the team does not have. Unless `tells_all`, a document that `principal` may
        not read is exactly that, and nothing further is looked at. Raises Conflict where several sources have a
        document of that external id, and what `Retriever.retrieve` raises.
        """
        scope = scope_of(principal)
        with self._database.read() as connection:
            document = self._find(connection, subject, request, None if tells_all else scope, scope.team)
            collection = _name(connection, document)
            standing = _standing(connection, document, scope)
        if standing is None:
            standing = self._in_search(document, request, principal)
        kind, reason, detail = standing
        return Verdict(kind, reason, document, collection, detail)

    def _find(
        self,
        connection: Connection,
        subject: Subject,
        request: RetrievalRequest,
        readable_by: AccessScope | None,
        team: str,
    ) -> Document:
        places: list[str] = []
        if subject.document_id is None:
            names = (subject.collection,) if subject.collection else request.collections or (collections.DEFAULT,)
            places = [collections.get(connection, team, name).id for name in names]
        found = documents.matching(
            connection,
            team,
            scope=readable_by,
            document_id=subject.document_id,
            external_id=subject.external_id,
            collection_ids=places,
        )
        live = [document for document in found if not document.is_deleted] or found[:1]
        if not live:
            raise NotFound(documents.UNKNOWN)
        if len(live) > 1:
            raise Conflict("Several documents have this external_id. Name one by its document_id.", code="ambiguous")
        return live[0]

    def _in_search(self, document: Document, request: RetrievalRequest, principal: Principal) -> _Standing:
        run = self._retriever.run(request, principal)
        index = next((index for _, index in run.course.indexes if index.collection_id == document.collection_id), None)
        if index is None:
            return "not_searched", "Its collection is not one of those that were searched.", {}
        for hit in run.answer.hits:
            if hit.chunk.chunk.document_id == document.id:
                detail = {"rank": hit.rank, "score": hit.score, "chunk_id": hit.chunk.chunk.id}
                return "returned", f"It is returned, at rank {hit.rank}.", detail
        with self._database.read() as connection:
            own = chunks.ids_of(connection, index.id, document.id)
        scope = scope_of(principal)
        if not self._finds(index, own, None, scope):
            return "not_indexed", "The index has not caught up with its latest change. Ask again shortly.", {}
        if request.filter is not None:
            clause = failing(request.filter, lambda part: self._finds(index, own, part, scope))
            if clause is not None:
                return _filtered(document, clause)
        if run.course.question.demands:
            own, unmet = self._admitted(own, run.course.question, scope)
            if unmet is not None:
                return unmet
        return cut_off(self._vectors, run, request, own, scope)

    def _admitted(
        self, own: frozenset[str], question: Question, scope: AccessScope
    ) -> tuple[frozenset[str], _Standing | None]:
        """The chunks that `question` admits; if it admits none, what the one that comes nearest falls short of."""
        ids, admitted = sorted(own), set()
        nearest: tuple[int, int, _Standing] | None = None
        for at in range(0, len(ids), _AT_ONCE):
            with self._database.read() as connection:
                passages = chunks.confirm(connection, ids[at : at + _AT_ONCE], scope)
            for passage in passages.values():
                missing, unwanted = question.unmet(passage)
                if not missing and not unwanted:
                    admitted.add(passage.chunk.id)
                distance = (len(missing) + len(unwanted), passage.chunk.ordinal)
                if nearest is None or distance < nearest[:2]:
                    nearest = (*distance, _worded(passage.chunk.id, missing, unwanted))
        return frozenset(admitted), None if admitted or nearest is None else nearest[2]

    def _finds(
        self, index: IndexVersion, chunk_ids: frozenset[str], narrowing: Filter | None, scope: AccessScope
    ) -> bool:
        """Whether a search narrowed like this reaches the document at all: any direction finds what is there."""
        if not chunk_ids:
            return False
        direction = np.zeros(index.embedder.dimensions, np.float32)
        direction[0] = 1.0
        wanted = SearchRequest(direction, None, narrowing, limit=1, chunk_ids=chunk_ids)
        return bool(self._vectors.search(index.id, wanted, scope))


_Standing: TypeAlias = tuple[Kind, str, Mapping[str, Any]]


def _standing(connection: Connection, document: Document, scope: AccessScope) -> _Standing | None:
    """What keeps a document out of every answer to this asker, whatever the question; None when nothing does."""
    if document.is_deleted:
        return "deleted", "It has been deleted.", {"deleted_at": document.deleted_at}
    if not acls.still_readable(connection, [document.id], scope):
        barred = acls.barring(connection, [document.id], scope).get(document.id, [])
        because = "is on its deny list" if barred else "is not on its allow list"
        return "not_readable", f"Whoever asks here {because}.", {"denied_by": barred}
    if document.indexed_version is not None:
        return None
    if document.error is not None:
        failure = document.error
        return "failed", f"It could not be indexed: {failure.message}", {"failure": failure}
    page = jobs.page(
        connection, document.team_id, JobFilter(None, JobKind.INDEX, None, document.id), limit=1, after=None
    )
    detail = {"job": {"id": page.data[0].id, "state": page.data[0].state}} if page.data else {}
    return "not_indexed", "It is not indexed yet.", detail


def _filtered(document: Document, clause: Filter) -> _Standing:
    detail = {"clause": written(clause), "values": values(clause, fields_of(document))}
    return "filtered_out", "This condition of the filter does not hold for it.", detail


def _worded(chunk_id: str, missing: tuple[str, ...], unwanted: tuple[str, ...]) -> _Standing:
    told = [f"lacks “{phrase}”" for phrase in missing] + [f"has the excluded “{phrase}”" for phrase in unwanted]
    detail = {"chunk_id": chunk_id, "missing": list(missing), "unwanted": list(unwanted)}
    return "wording", f"No passage of it is worded as demanded: the nearest {' and '.join(told)}.", detail


def _name(connection: Connection, document: Document) -> str | None:
    try:
        return collections.get(connection, document.team_id, document.collection_id).name
    except NotFound:
        return None
