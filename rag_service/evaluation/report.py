"""What a query set found out about one way to answer it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rag_service.evaluation.scoring import REPORTED, Answered, Latency, latency, means, scores
from rag_service.types import LabelledQuery


@dataclass(frozen=True, slots=True)
class Result:
    """One question's answer; `found` has the external ids of its documents, best first."""

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
        results=tuple(sorted(results, key=_worst_first)),
    )


def _result(query: LabelledQuery, answer: Answered, measures: Iterable[str]) -> Result:
    found = tuple(one.external_id for one in answer.found)
    return Result(query.id, query.query, scores(query, answer, measures), found, answer.ms)


def _worst_first(result: Result) -> float:
    """By the first measure; what nobody judged comes last."""
    return next(iter(result.scores.values()), 2.0)
