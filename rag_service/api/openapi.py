"""The OpenAPI document: what FastAPI derives, with our errors, security and two-bodied routes filled in."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from rag_service.api.auth import OPEN
from rag_service.api.problems import MEDIA_TYPE, Problem
from rag_service.api.query_set_files import ImportForm
from rag_service.api.uploads import ContentForm, ContentIn, DocumentForm, DocumentIn

_REF = "#/components/schemas/{model}"
# What a route makes, and the routes that take its id: (maker, where the id stands, parameter, takers).
_LINKS = (
    ("create_collection", "id", "collection", ("get_collection", "update_collection", "delete_collection")),
    ("create_document", "id", "document_id", ("get_document", "get_document_text", "delete_document")),
    ("create_document", "job_id", "job_id", ("get_job", "cancel_job")),
    ("create_source", "id", "source_id", ("get_source", "update_source", "sync_source", "delete_source")),
    ("create_probe", "id", "probe_id", ("get_probe", "update_probe", "run_probe", "list_probe_runs", "delete_probe")),
    ("create_query_set", "id", "query_set", ("get_query_set", "list_labelled_queries", "delete_query_set")),
    ("retrieve", "query_id", "query_id", ("get_query", "replay_query")),
    ("give_feedback", "id", "feedback_id", ("delete_feedback",)),
    ("create_webhook", "id", "webhook_id", ("get_webhook", "update_webhook", "recover_webhook", "delete_webhook")),
)
# Models of bodies that routes read by themselves.
_DESCRIBED = (DocumentIn, DocumentForm, ContentIn, ContentForm, ImportForm, Problem)
_OF_NO_TEAM = ("/v1/teams", "/metrics")
_METHODS = frozenset({"get", "post", "put", "patch", "delete"})
_WHY = {
    "400": "The body is not what its Content-Type says.",
    "401": "No valid key was sent.",
    "403": "The key may not do this.",
    "404": "There is nothing here under that id that the key may see.",
    "408": "The request did not arrive in time.",
    "409": "The request collides with what is already there.",
    "413": "The body is too large.",
    "415": "The body is of a kind, or packed in a way, that this route does not take.",
    "414": "The address is too long.",
    "422": "The request cannot be understood; errors names the fields.",
    "429": "Too many requests of this kind; Retry-After says when there is room again.",
    "431": "The headers are too many or too large.",
    "500": "A defect of the service; its log has it under the request id.",
    "503": "A part of the service does not answer; Retry-After says when to try again.",
}
_LATER = frozenset({"429", "503"})
_RETRY_AFTER = {
    "description": "Seconds to wait before trying again.",
    "required": True,
    "schema": {"type": "integer", "minimum": 0},
}
_TEAM_HEADER = {
    "name": "X-Rag-Team",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The team to act for, with an admin key. The key of a team implies its team.",
}


def install(app: FastAPI) -> None:
    """Replace the application's OpenAPI document by ours; made at the first request for it."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # the way FastAPI documents


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    components = document["components"]
    described = [
        (model, "validation") for model in (DocumentIn, DocumentForm, ContentIn, ContentForm, ImportForm, Problem)
    ]
    _, schemas = models_json_schema(described, ref_template=_REF)  # type: ignore[arg-type] # it infers str for the mode
    components["schemas"].update(schemas["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "A key of a team."}}
    components["headers"] = {"RetryAfter": _RETRY_AFTER}
    components["parameters"] = {"Team": _TEAM_HEADER}
    components["responses"] = {status: _problem_response(status, why) for status, why in _WHY.items()}
    for path, item in document["paths"].items():
        if path not in OPEN:
            for method in _METHODS & item.keys():
                _complete(path, method, item[method])
    _link(document)
    return document


def _link(document: dict[str, Any]) -> None:
    """Say which answer holds the id that another route takes."""
    found = [operation for item in document["paths"].values() for operation in item.values()]
    operations = {operation["operationId"]: operation for operation in found}
    for maker, member, parameter, takers in _LINKS:
        made = next(answer for status, answer in operations[maker]["responses"].items() if status.startswith("2"))
        for taker in takers:
            value = {parameter: f"$response.body#/{member}"}
            made.setdefault("links", {})[taker] = {"operationId": taker, "parameters": value}


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    operation["security"] = [{"key": []}]
    if not path.startswith(_OF_NO_TEAM):
        operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/Team"})
    # Whoever sends a GET with a body is told the same about it.
    statuses = {"401", "403", "413", "414", "415", "422", "429", "431", "500", "503"}
    if method != "get":
        statuses |= {"400", "408", "409"}
    if "{" in path or not path.endswith(("/teams", "/source-types", "/metrics")):
        statuses.add("404")
    for status in sorted(statuses):
        operation["responses"][status] = {"$ref": f"#/components/responses/{status}"}


def _problem_response(status: str, why: str) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": why,
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
    }
    if status in _LATER:
        response["headers"] = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
    return response
