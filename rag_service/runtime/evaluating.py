"""Comparisons of index versions: the questions that they are compared by, and what a gate says to the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rag_service.db import Database, collections, queries
from rag_service.errors import InvalidRequest
from rag_service.evaluation import gate as gates
from rag_service.evaluation.compare import compare
from rag_service.ingest.versions import Asked, Gate, Judge, Judged, Question
from rag_service.retrieval.retriever import Retriever
from rag_service.types import LabelledQuery, Person

# Of the questions one by one, the worst are kept.
_KEPT = 50


def make_judge(database: Database, retriever: Retriever) -> Judge:
    def judge(question: Question, asked: Asked, gate: Gate | None) -> Judged:
        chosen = _queries(database, question, asked)
        compared = compare(
            retriever, question.team_id, question.collection, question.candidate, question.active, chosen
        )
        shown = asdict(compared.shortened(_KEPT))
        if gate is None:
            return Judged(shown)
        verdict = gates.judge(compared, gates.Gate(gate.metric, gate.min_delta, gate.max_worse_queries))
        return Judged(shown, verdict.passed, verdict.reasons)

    return judge


def _queries(database: Database, question: Question, asked: Asked) -> Sequence[LabelledQuery]:
    """Raises NotFound for a query set that there is not, InvalidRequest where there is no question to ask."""
    with database.read() as connection:
        collection = collections.get(connection, question.team_id, question.collection)
        found = _live(queries.kept(connection, question.team_id, (collection.name, collection.id), asked.sample))
    if not found:
        raise InvalidRequest(
            "There are no questions to compare by. Name a query set, or let the service keep the questions that it is"
            " asked: RAG_TRACE_CONTENT.",
            code="no_questions",
        )
    return found


def _live(traces: Sequence[queries.Trace]) -> list[LabelledQuery]:
    """As they were asked; each once, whoever asked it how often."""
    found: dict[tuple[str, str], LabelledQuery] = {}
    for trace in traces:
        who = None if trace.as_user is None else _person(trace)
        key = (trace.query or "", repr(who))
        found.setdefault(key, LabelledQuery(id=trace.id, query=trace.query or "", as_user=who))
    return list(found.values())


def _person(trace: queries.Trace) -> Person:
    named = trace.as_user or {}
    return Person(named.get("user"), tuple(named.get("groups", ())))
