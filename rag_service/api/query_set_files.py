"""Query sets in and out as files: BEIR folders, packed, and CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from rag_service.api.auth import Manager
from rag_service.api.limits import is_form
from rag_service.api.query_sets import (
    CollectionName,
    QueriesIn,
    QuerySetRecord,
    SetName,
    created,
    written,
)
from rag_service.api.schemas import Id, Model, Service
from rag_service.api.strict import StrictRoute, loads, validated
from rag_service.api.uploads import File, read_form
from rag_service.db import Connection, collections, query_sets
from rag_service.db.query_sets import QuerySet
from rag_service.errors import Conflict, InvalidRequest, NotFound, UnsupportedDocument
from rag_service.evaluation.files import MEDIA_TYPES, Format, read_file, write_file
from rag_service.types import LabelledQuery

router = APIRouter(prefix="/v1", tags=["query sets"], route_class=StrictRoute)


class ImportForm(Model):
    """A query set as a file: CSV, or a BEIR folder without its corpus as .zip or .tar.gz, told by its content."""

    file: File
    name: SetName
    collection: CollectionName = "default"
    on_conflict: Literal["error", "replace"] = "error"


async def _import_form(request: Request) -> ImportForm:
    """A dependency. Raises InvalidRequest, UnsupportedDocument."""
    if not is_form(request.headers):
        raise UnsupportedDocument("Send multipart/form-data with a file.", code="unsupported_content_type")
    form, _, _ = await read_form(request, ImportForm)
    return form


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": {"$ref": "#/components/schemas/ImportForm"}}},
    }
}


@router.post("/query-sets:import", status_code=201, openapi_extra=_BODY)
def import_query_set(
    service: Service, caller: Manager, form: Annotated[ImportForm, Depends(_import_form)]
) -> QuerySetRecord:
    """Make a query set of a file; with `on_conflict` replace, its queries take the place of those of that name."""
    queries = _checked(read_file(form.file))
    with service.database.transaction() as transaction:
        if form.on_conflict == "replace":
            try:
                found = query_sets.get(transaction.connection, caller.team, form.name)
            except NotFound:
                pass  # then it is new
            else:
                if "collection" in form.model_fields_set:
                    _check_is_about(transaction.connection, found, form.collection)
                return written(transaction, found, queries, replace=True, imported=True)
        return created(transaction, caller.team, form.name, form.collection, queries, imported=True)


@router.get(
    "/query-sets/{query_set}/export",
    response_class=Response,
    responses={200: {"content": {media_type: {} for media_type in MEDIA_TYPES.values()}}},
)
def export_query_set(
    service: Service,
    caller: Manager,
    query_set: Id,
    form: Annotated[Format, Query(alias="format", description="A BEIR folder as zip or tar.gz, or CSV.")] = "zip",
) -> Response:
    """A query set as a file that `POST /v1/query-sets:import` takes in again without loss."""
    with service.database.read() as connection:
        found = query_sets.get(connection, caller.team, query_set)
        queries = query_sets.queries_of(connection, found)
    named = {"Content-Disposition": f'attachment; filename="{found.name}.{form}"'}
    return Response(write_file(queries, form), media_type=MEDIA_TYPES[form], headers=named)


def _check_is_about(connection: Connection, found: QuerySet, collection: str) -> None:
    """Raises Conflict when the set is about another collection, NotFound when there is none of that name."""
    if collections.get(connection, found.team_id, collection).id != found.collection_id:
        raise Conflict(
            f"The query set {found.name!r} is about the collection {found.collection!r}, and stays so when its queries "
            "are replaced. Leave collection out, or choose another name.",
            code="query_set_of_another_collection",
        )


def _checked(queries: Sequence[LabelledQuery]) -> list[LabelledQuery]:
    """By the rules of what is sent as JSON. Raises InvalidRequest."""
    if not queries:
        raise InvalidRequest("The file holds no query with expected documents. Judge some, or expect nothing of some.")
    # The way by JSON finds texts that no database can hold.
    records = loads(json.dumps({"queries": [asdict(query) for query in queries]}))
    return validated(QueriesIn, records).labelled()
