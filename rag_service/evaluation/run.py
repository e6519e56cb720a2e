"""Questions asked of one index version, each with the rights of whom it names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rag_service.access import principal_for
from rag_service.evaluation.report import Report, report
from rag_service.evaluation.scoring import DEPTH, Answered, Found
from rag_service.retrieval.filters import parse_filter
from rag_service.retrieval.plan import RetrievalRequest
from rag_service.retrieval.retriever import Hit, Retriever
from rag_service.types import LabelledQuery


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked: an index version of a team's collection (by name or id); None: the one that is active."""

    team: str
    collection: str
    index_version: str | None = None


def run(retriever: Retriever, subject: Subject, queries: Sequence[LabelledQuery]) -> Report:
    """Ask all of `queries`. Raises what `Retriever.retrieve` raises, InvalidRequest for a filter that is none."""
    return report(queries, [ask(retriever, subject, query) for query in queries])


def ask(retriever: Retriever, subject: Subject, query: LabelledQuery) -> Answered:
    """Ask one question as `POST /v1/retrieve` does, for the person that it names."""
    request = RetrievalRequest(
        query=query.query,
        collections=(subject.collection,),
        top_k=DEPTH,
        filter=parse_filter(query.filter),
        min_score=query.min_score,
        max_chunks_per_document=1,
        index_version=subject.index_version,
    )
    answer = retriever.retrieve(request, principal_for(subject.team, query.as_user))
    return Answered(_documents(answer.hits), answer.usage.total_ms, degraded=bool(answer.degraded))


def _documents(hits: Iterable[Hit]) -> tuple[Found, ...]:
    found = [Found(hit.chunk.chunk.document_id, hit.chunk.external_id) for hit in hits]
    return tuple(dict.fromkeys(found))
