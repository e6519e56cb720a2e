"""Query sets: questions with known answers, by which a collection's retrieval is measured."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Query
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    model_validator,
)

from rag_service.api.auth import AsUser, Manager
from rag_service.api.schemas import After, Id, Limit, Listing, Model, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import Transaction, collections, query_sets
from rag_service.db.query_sets import MOST_QUERIES, QuerySet
from rag_service.errors import RagError
from rag_service.retrieval.filters import parse_filter
from rag_service.retrieval.plan import MAX_QUERY
from rag_service.types import LabelledQuery

router = APIRouter(prefix="/v1/query-sets", tags=["query sets"], route_class=StrictRoute)


def _no_id(name: str) -> str:
    # Routes take a name or an id, so no name may look like an id.
    if name.startswith("qs_"):
        raise ValueError("must not begin with qs_, as ids do")
    return name


def _a_filter(filter_: dict[str, Any]) -> dict[str, Any]:
    try:
        parse_filter(filter_)
    except RagError as error:
        raise ValueError(error.message) from None
    return filter_


def _some_text(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty. Send a question")
    return value


SetName: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"), AfterValidator(_no_id)
]
CollectionName: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Description: TypeAlias = Annotated[str, StringConstraints(max_length=2_000)]


class ExpectedDocument(Model):
    """A document that answers the question, by one of its ids; grade 3: it is the answer, 1: it helps."""

    document_id: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None
    external_id: Annotated[str, StringConstraints(min_length=1, max_length=1_024)] | None = None
    grade: StrictInt = Field(1, ge=1, le=3)

    @model_validator(mode="after")
    def _has_one_id(self) -> ExpectedDocument:
        if (self.document_id is None) == (self.external_id is None):
            raise ValueError("give either document_id or external_id")
        return self


class LabelledQueryIn(Model):
    """A question with `expected` documents, or with `expect_nothing`. All else is sent with the question."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "How long is parental leave?", "expected": [{"external_id": "handbook/leave", "grade": 3}]},
                {"query": "What does the board earn?", "expect_nothing": True, "as_user": {"user": "ada@example.com"}},
            ]
        }
    )

    id: Annotated[str, StringConstraints(max_length=200)] = Field("", description="Yours; made where not given.")
    query: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUERY), AfterValidator(_some_text)]
    expected: list[ExpectedDocument] = Field(default_factory=list, max_length=1_000)
    expect_nothing: StrictBool = False
    as_user: AsUser | None = Field(None, description="Asked for this person; else by who reads the whole team.")
    filter: Annotated[dict[str, Any], AfterValidator(_a_filter)] | None = None
    min_score: StrictFloat | None = None

    @model_validator(mode="after")
    def _expects_something_or_nothing(self) -> LabelledQueryIn:
        if bool(self.expected) == self.expect_nothing:
            raise ValueError("give either expected documents or expect_nothing")
        ids = [(one.document_id, one.external_id) for one in self.expected]
        if len(set(ids)) < len(ids):
            raise ValueError("a document is expected twice")
        return self

    def labelled(self) -> LabelledQuery:
        return LabelledQuery.of(self.model_dump())


Queries: TypeAlias = Annotated[list[LabelledQueryIn], Field(max_length=MOST_QUERIES)]


class QueriesIn(Model):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queries": [{"query": "leave", "expected": [{"external_id": "leave"}]}]}]}
    )

    queries: Queries

    def labelled(self) -> list[LabelledQuery]:
        return [query.labelled() for query in self.queries]


class QuerySetIn(Model):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "handbook-questions",
                    "collection": "default",
                    "queries": [{"query": "parental leave", "expected": [{"external_id": "handbook/leave"}]}],
                }
            ]
        }
    )

    name: SetName
    collection: CollectionName = "default"
    description: Description = ""
    queries: Queries = Field(default_factory=list)


class QuerySetChange(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"description": "Asked in May"}]})

    name: SetName | None = None
    description: Description | None = None


class QuerySetRecord(BaseModel):
    """`collection` is the name of the collection that the set is about."""

    id: str
    name: str
    collection: str
    collection_id: str
    description: str
    query_count: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, query_set: QuerySet) -> QuerySetRecord:
        return cls.model_validate(query_set, from_attributes=True)


class ExpectedRecord(BaseModel):
    document_id: str | None
    external_id: str | None
    grade: int


class LabelledQueryRecord(BaseModel):
    id: str
    query: str
    expected: list[ExpectedRecord]
    expect_nothing: bool
    as_user: AsUser | None
    filter: dict[str, Any] | None
    min_score: float | None

    @classmethod
    def of(cls, query: LabelledQuery) -> LabelledQueryRecord:
        # Sent in, it was checked; read from a file or made from feedback, by the same rules.
        return cls.model_validate(query, from_attributes=True)


@router.post("", status_code=201)
def create_query_set(service: Service, caller: Manager, wanted: QuerySetIn) -> QuerySetRecord:
    """Make a query set for a collection, with up to 10,000 queries or none yet."""
    queries = [query.labelled() for query in wanted.queries]
    with service.database.transaction() as transaction:
        return created(
            transaction, caller.team, wanted.name, wanted.collection, queries, description=wanted.description
        )


def created(
    transaction: Transaction,
    team: str,
    name: str,
    collection: str,
    queries: list[LabelledQuery],
    *,
    description: str = "",
    **told: Any,
) -> QuerySetRecord:
    """A new set, with `told` in the audit log. Raises NotFound for the collection, Conflict for the name."""
    connection = transaction.connection
    about = collections.get(connection, team, collection)
    made = query_sets.create(connection, team, about.id, name, description=description)
    made = query_sets.add_queries(connection, made, queries)
    after = {"name": made.name, "collection": about.name, "queries": made.query_count}
    transaction.audit("query_set.created", made.id, team=team, after=after, **told)
    return QuerySetRecord.of(made)


@router.get("")
def list_query_sets(
    service: Service,
    caller: Manager,
    *,
    collection: Annotated[str | None, Query(max_length=100, description="Only of this collection.")] = None,
    limit: Limit = 50,
    after: After = None,
) -> Listing[QuerySetRecord]:
    """List the team's query sets, newest first."""
    with service.database.read() as connection:
        about = None if collection is None else collections.get(connection, caller.team, collection).id
        page = query_sets.page(connection, caller.team, collection_id=about, limit=limit, after=after)
    return Listing[QuerySetRecord].of(page, QuerySetRecord.of)


@router.get("/{query_set}")
def get_query_set(service: Service, caller: Manager, query_set: Id) -> QuerySetRecord:
    """One query set, by name or id."""
    with service.database.read() as connection:
        return QuerySetRecord.of(query_sets.get(connection, caller.team, query_set))


@router.patch("/{query_set}")
def update_query_set(service: Service, caller: Manager, query_set: Id, change: QuerySetChange) -> QuerySetRecord:
    """Change the name or the description."""
    values = change.model_dump(exclude_none=True)
    with service.database.transaction() as transaction:
        found = query_sets.get(transaction.connection, caller.team, query_set)
        changed = query_sets.change(transaction.connection, found, **values)
        _audit_change(transaction, found, changed, fields=sorted(values))
    return QuerySetRecord.of(changed)


@router.delete("/{query_set}")
def delete_query_set(service: Service, caller: Manager, query_set: Id) -> QuerySetRecord:
    """Delete a query set with its queries; returns what it was."""
    with service.database.transaction() as transaction:
        found = query_sets.get(transaction.connection, caller.team, query_set)
        query_sets.remove(transaction.connection, found)
        transaction.audit("query_set.deleted", found.id, team=caller.team, before=_told(found))
    return QuerySetRecord.of(found)


@router.get("/{query_set}/queries")
def list_labelled_queries(
    service: Service, caller: Manager, query_set: Id, limit: Limit = 50, after: After = None
) -> Listing[LabelledQueryRecord]:
    """The queries of a set, in their order."""
    with service.database.read() as connection:
        found = query_sets.get(connection, caller.team, query_set)
        page = query_sets.query_page(connection, found, limit=limit, after=after)
    return Listing[LabelledQueryRecord].of(page, LabelledQueryRecord.of)


@router.post("/{query_set}/queries")
def add_labelled_queries(service: Service, caller: Manager, query_set: Id, wanted: QueriesIn) -> QuerySetRecord:
    """Append queries; a set holds up to 10,000."""
    with service.database.transaction() as transaction:
        found = query_sets.get(transaction.connection, caller.team, query_set)
        return written(transaction, found, wanted.labelled(), replace=False)


@router.put("/{query_set}/queries")
def replace_labelled_queries(service: Service, caller: Manager, query_set: Id, wanted: QueriesIn) -> QuerySetRecord:
    """Put these queries in place of all there are."""
    with service.database.transaction() as transaction:
        found = query_sets.get(transaction.connection, caller.team, query_set)
        return written(transaction, found, wanted.labelled(), replace=True)


def written(
    transaction: Transaction, found: QuerySet, queries: list[LabelledQuery], *, replace: bool, **told: Any
) -> QuerySetRecord:
    """The set with these queries added, or in place of its own; on record in the audit log with `told`."""
    changed = query_sets.add_queries(transaction.connection, found, queries, replace=replace)
    _audit_change(transaction, found, changed, replaced=replace, **told)
    return QuerySetRecord.of(changed)


def _audit_change(transaction: Transaction, before: QuerySet, after: QuerySet, **detail: Any) -> None:
    transaction.audit(
        "query_set.changed", before.id, team=before.team_id, before=_told(before), after=_told(after), **detail
    )


def _told(query_set: QuerySet) -> dict[str, Any]:
    return {"name": query_set.name, "queries": query_set.query_count}
