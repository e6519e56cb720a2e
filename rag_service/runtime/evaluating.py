"""Comparisons of index versions: the questions that they are compared by, and what a gate says to the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rag_service.db import Database, collections, queries, query_sets
from rag_service.errors import InvalidRequest
from rag_service.evaluation import gate as gates
from rag_service.evaluation.compare import compare
from rag_service.ingest.versions import MOST, Asked, Gate, Judge, Judged, Question
from rag_service.retrieval.retriever import Retriever
from rag_service.types import LabelledQuery

# Of the questions one by one, the worst are kept.
_KEPT = 50
_SAMPLE = 300


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
        if asked.query_set is None:
            found = queries.recently_asked(connection, question.team_id, collection, limit=asked.sample or _SAMPLE)
        else:
            named = query_sets.get(connection, question.team_id, asked.query_set)
            if named.collection_id != collection.id:
                raise InvalidRequest("The query set is about another collection.", code="other_collection")
            found = query_sets.queries_of(connection, named)[: asked.sample or MOST]
    if not found:
        raise InvalidRequest(
            "There are no questions to compare by. Name a query set, or let the service keep the questions that it is"
            " asked: RAG_TRACE_CONTENT.",
            code="no_questions",
        )
    return found
