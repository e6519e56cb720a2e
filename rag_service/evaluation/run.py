"""Questions asked of one index version, each with the rights of whom it names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rag_service.access import Principal
from rag_service.evaluation.scoring import DEPTH, REPORTED, Answered, Found, Latency, latency, means, scores
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


@dataclass(frozen=True, slots=True)
class Result:
    """One question's answer; `found` has the ids of its documents, best first."""

    id: str
    query: str
    scores: dict[str, float]
    found: tuple[str, ...]
    ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """Means by measure, over the questions that have it (`measured`), and every question, the worst first.

    `degraded` answers had to do without something: their scores say little.
    """

    queries: int
    labelled: int
    metrics: dict[str, float]
    measured: dict[str, int]
    latency: Latency
    degraded: int
    results: tuple[Result, ...]


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
    answer = retriever.retrieve(request, _principal(subject.team, query))
    return Answered(_documents(answer.hits), answer.usage.total_ms, degraded=bool(answer.degraded))


def report(queries: Sequence[LabelledQuery], answers: Sequence[Answered], measures: Iterable[str] = REPORTED) -> Report:
    """What the answers, in the order of their questions, are worth."""
    measures = tuple(measures)
    results = [_result(query, answer, measures) for query, answer in zip(queries, answers, strict=True)]
    scored = [one.scores for one in results]
    average = means(scored)
    return Report(
        queries=len(queries),
        labelled=sum(query.is_labelled for query in queries),
        metrics=average,
        measured={name: sum(name in one for one in scored) for name in average},
        latency=latency([answer.ms for answer in answers]),
        degraded=sum(answer.degraded for answer in answers),
        results=tuple(sorted(results, key=lambda one: next(iter(one.scores.values()), 2.0))),
    )


def _result(query: LabelledQuery, answer: Answered, measures: Iterable[str]) -> Result:
    found = tuple(one.external_id for one in answer.found)
    return Result(query.id, query.query, scores(query, answer, measures), found, answer.ms)


def _principal(team: str, query: LabelledQuery) -> Principal:
    """Exactly that person; where none is named, who reads all of the team."""
    if query.as_user is None:
        return Principal(team, manages=True)
    return Principal(team, query.as_user.user, frozenset(query.as_user.groups))


def _documents(hits: Iterable[Hit]) -> tuple[Found, ...]:
    found = [Found(hit.chunk.chunk.document_id, hit.chunk.external_id) for hit in hits]
    return tuple(dict.fromkeys(found))
