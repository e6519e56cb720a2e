"""Two index versions of a collection asked the same questions: which answers better, and where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from rag_service.evaluation.metrics import overlap, rank_biased_overlap
from rag_service.evaluation.run import Subject, ask
from rag_service.evaluation.scoring import Answered, Latency, latency, scores
from rag_service.evaluation.significance import paired
from rag_service.retrieval.retriever import Retriever
from rag_service.types import LabelledQuery

# Differences of sums of the same numbers in another order.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Change:
    """A measure of both: means over `queries` questions, and `delta` = candidate - active.

    `low` and `high` are the ends of delta's 95 % interval, `p_value` that of a paired randomisation test. `better` and
    `worse` count questions.
    """

    candidate: float
    active: float
    delta: float
    low: float
    high: float
    p_value: float
    queries: int
    better: int
    worse: int


@dataclass(frozen=True, slots=True)
class QueryChange:
    """One question: `delta` of its first measure (None where nobody judged it), and both rankings by document id."""

    id: str
    query: str
    delta: float | None
    candidate_scores: dict[str, float]
    active_scores: dict[str, float]
    overlap_at_10: float
    rbo: float
    candidate_found: tuple[str, ...]
    active_found: tuple[str, ...]
    candidate_ms: float
    active_ms: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """`metrics` by name, of the questions that somebody judged; overlap and `rbo` are means over all questions.

    `worse` and `better` count questions by their first measure; `changes` has the worst first. `degraded` counts
    answers that had to do without something.
    """

    collection: str
    candidate: str
    active: str
    queries: int
    labelled: int
    metrics: dict[str, Change]
    overlap_at_10: float
    rbo: float
    worse: int
    better: int
    candidate_latency: Latency
    active_latency: Latency
    degraded: int
    changes: tuple[QueryChange, ...]

    def shortened(self, most: int) -> Comparison:
        """With the worst `most` questions only."""
        return replace(self, changes=self.changes[:most])


def compare(  # noqa: PLR0917 - what is asked, of which two, and what; nobody mixes these up
    retriever: Retriever,
    team: str,
    collection: str,
    candidate_id: str,
    active_id: str,
    queries: Sequence[LabelledQuery],
) -> Comparison:
    """Ask every question of two different index versions, in turns, so that what else happens meets both alike.

    Raises what `Retriever.retrieve` raises; InvalidRequest for a filter that is none.
    """
    candidate, active = Subject(team, collection, candidate_id), Subject(team, collection, active_id)
    if queries:
        for subject in (candidate, active):
            ask(retriever, subject, queries[0])  # whatever is loaded at the first question is not its own time
    answers: dict[Subject, list[Answered]] = {candidate: [], active: []}
    for number, query in enumerate(queries):
        for subject in (candidate, active) if number % 2 else (active, candidate):
            answers[subject].append(ask(retriever, subject, query))
    return compared(collection, (candidate_id, answers[candidate]), (active_id, answers[active]), queries)


def compared(
    collection: str,
    candidate: tuple[str, Sequence[Answered]],
    active: tuple[str, Sequence[Answered]],
    queries: Sequence[LabelledQuery],
) -> Comparison:
    """The comparison of two lists of answers, each with the name of who gave them; the same lists give the same."""
    pairs = list(zip(queries, candidate[1], active[1], strict=True))
    changes = sorted((_query_change(*pair) for pair in pairs), key=_worst_first)
    deltas = [change.delta for change in changes if change.delta is not None]
    return Comparison(
        collection=collection,
        candidate=candidate[0],
        active=active[0],
        queries=len(pairs),
        labelled=sum(query.is_labelled for query in queries),
        metrics=_metrics(changes),
        overlap_at_10=fmean(change.overlap_at_10 for change in changes) if changes else 1.0,
        rbo=fmean(change.rbo for change in changes) if changes else 1.0,
        worse=sum(delta < -ROUNDING for delta in deltas),
        better=sum(delta > ROUNDING for delta in deltas),
        candidate_latency=latency([answer.ms for answer in candidate[1]]),
        active_latency=latency([answer.ms for answer in active[1]]),
        degraded=sum(answer.degraded for _, *both in pairs for answer in both),
        changes=tuple(changes),
    )


def _query_change(query: LabelledQuery, candidate: Answered, active: Answered) -> QueryChange:
    new, old = scores(query, candidate), scores(query, active)
    found = tuple(one.document_id for one in candidate.found)
    before = tuple(one.document_id for one in active.found)
    first = next(iter(new), None)
    return QueryChange(
        id=query.id,
        query=query.query,
        delta=None if first is None else new[first] - old[first],
        candidate_scores=new,
        active_scores=old,
        overlap_at_10=overlap(found, before),
        rbo=rank_biased_overlap(found, before),
        candidate_found=found,
        active_found=before,
        candidate_ms=candidate.ms,
        active_ms=active.ms,
    )


def _worst_first(change: QueryChange) -> tuple[bool, float, float, str]:
    """What lost most; then, of those that nobody judged, what changed most."""
    return change.delta is None, change.delta or 0.0, change.rbo, change.id


def _metrics(changes: Sequence[QueryChange]) -> dict[str, Change]:
    names = dict.fromkeys(name for change in changes for name in change.candidate_scores)
    return {
        name: _change(
            [change.candidate_scores[name] for change in changes if name in change.candidate_scores],
            [change.active_scores[name] for change in changes if name in change.active_scores],
        )
        for name in names
    }


def _change(candidate: Sequence[float], active: Sequence[float]) -> Change:
    differences = [_difference(new, old) for new, old in zip(candidate, active, strict=True)]
    tested = paired(differences)
    return Change(
        candidate=fmean(candidate),
        active=fmean(active),
        delta=tested.mean,
        low=tested.low,
        high=tested.high,
        p_value=tested.p_value,
        queries=len(differences),
        better=sum(one > 0 for one in differences),
        worse=sum(one < 0 for one in differences),
    )


def _difference(new: float, old: float) -> float:
    return 0.0 if abs(new - old) <= ROUNDING else new - old
