"""What is kept of a question and its answer: ids, scores and times; the question itself only on request."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

from rag_service.api.auth import AsUser, Caller
from rag_service.api.schemas import Model
from rag_service.db.queries import Trace
from rag_service.retrieval.retriever import Hit, Retrieval
from rag_service.runtime import Runtime
from rag_service.types import utc_now

# The parts of a plan that quote the question.
_WORDLESS: dict[str, list[str]] = {"phrases": [], "excluded": []}


def remember(
    service: Runtime, caller: Caller, question: Model, *, query: str, as_user: AsUser | None, answer: Retrieval
) -> None:
    """Count an answer; leave a trace of it, and an entry in the audit log, as the settings say.

    Costs the request an append each.
    """
    service.probing.answers.record(answer)
    kept = query if service.settings.trace_content else None
    documents = [hit.chunk.chunk.document_id for hit in answer.hits]
    service.retrieval_audit.record(answer.query_id, caller.principal(as_user), documents)
    make = partial(_trace, question, answer, at=utc_now(), caller=caller, query=kept, as_user=as_user)
    service.traces.record(answer.query_id, make)


def _trace(
    question: Model, answer: Retrieval, *, at: datetime, caller: Caller, query: str | None, as_user: AsUser | None
) -> Trace:
    return Trace(
        id=answer.query_id,
        team_id=caller.team,
        key_id=caller.key_id,
        key_name=caller.key_name,
        as_user=None if as_user is None else as_user.model_dump(),
        query=query,
        request=question.model_dump(mode="json", exclude={"query", "as_user"}),
        plan=answer.plan if query is not None else {**answer.plan, **_WORDLESS},
        hits=[hit_of(hit) for hit in answer.hits],
        usage=asdict(answer.usage),
        degraded=list(answer.degraded),
        at=at,
    )


def hit_of(hit: Hit) -> dict[str, Any]:
    """A hit without its text."""
    drawn, chunk = hit.candidate, hit.chunk.chunk
    return {
        "rank": hit.rank,
        "score": hit.score,
        "chunk_id": drawn.chunk_id,
        "document_id": chunk.document_id,
        "version": chunk.version,
        "fused": hit.fused,
        "dense": drawn.dense,
        "dense_rank": drawn.dense_rank,
        "lexical": drawn.lexical,
        "lexical_rank": drawn.lexical_rank,
    }
