"""Query sets made of feedback: what people said of answers becomes questions with known answers."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import ConfigDict, Field, StrictBool, StrictInt

from rag_service.api.auth import Manager
from rag_service.api.query_sets import CollectionName, QuerySetRecord, SetName, created
from rag_service.api.schemas import Model, Moment, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import Connection, collections, feedback, queries, query_sets
from rag_service.db.feedback import FeedbackFilter
from rag_service.db.query_sets import MOST_QUERIES
from rag_service.errors import InvalidRequest
from rag_service.evaluation.judgements import from_judgements, only_of
from rag_service.types import LabelledQuery

router = APIRouter(prefix="/v1", tags=["query sets"], route_class=StrictRoute)


class FromFeedback(Model):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "liked-in-may", "collection": "default", "min_likes": 2}]}
    )

    name: SetName
    collection: CollectionName = "default"
    since: Moment | None = Field(None, description="Feedback said from this moment on.")
    min_likes: StrictInt = Field(1, ge=1, le=1_000, description="How many more likes than dislikes a document needs.")
    signals: StrictBool = Field(False, description="Take what was copied or clicked for a document that helps, too.")


@router.post("/query-sets:from-feedback", status_code=201)
def create_query_set_from_feedback(service: Service, caller: Manager, wanted: FromFeedback) -> QuerySetRecord:
    """Make a query set of the feedback on answers from a collection.

    Grade 3 has a document that somebody expected instead, 2 one that was liked, 1 one that was copied or clicked. Each
    question is kept with the rights of its asker. Only feedback on questions whose text was kept can be used.
    """
    with service.database.transaction() as transaction:
        found = _judged(transaction.connection, caller.team, wanted)
        if not found:
            raise InvalidRequest(
                "No feedback on this collection names a document for a question whose text was kept. Set"
                " RAG_TRACE_CONTENT, collect feedback, or ask for an earlier `since`.",
                code="no_feedback",
            )
        newest = found[-MOST_QUERIES:]
        return created(transaction, caller.team, wanted.name, wanted.collection, newest, from_feedback=True)


def _judged(connection: Connection, team: str, wanted: FromFeedback) -> list[LabelledQuery]:
    """The questions that feedback answers, with those documents only that are still there."""
    about = collections.get(connection, team, wanted.collection)
    said = feedback.in_order(connection, team, FeedbackFilter(collection_id=about.id, since=wanted.since))
    askers = queries.askers(connection, team)
    found = from_judgements(said, askers, min_likes=wanted.min_likes, signals=wanted.signals)
    named = {one.document_id for query in found for one in query.expected if one.document_id is not None}
    return only_of(found, query_sets.present(connection, about.id, named))
