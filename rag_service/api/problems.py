"""Every error that leaves the service is made here: RFC 9457, `application/problem+json`.

A problem made here never repeats what was sent: not the input of a validation error, not an id, not a key. What others
raise may name fields, and what the caller's own team has already.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from connectors.errors import SourceError
from rag_service.errors import InvalidRequest, NotAuthenticated, RagError, RetryableError, TooBusy

MEDIA_TYPE = "application/problem+json"
_MOST_ERRORS = 20
_LONGEST_INSTANCE = 500
_PLAIN = re.compile(r"[\w.$-]{1,80}", re.ASCII)

NO_BODY = "Send a JSON body."
# What pydantic says of these names our classes.
_NO_OBJECT = frozenset({"model_type", "model_attributes_type", "dict_type"})

_HTTP = {
    400: ("bad_request", "The body cannot be read. Check that it is complete and that its Content-Type is right."),
    404: ("no_such_route", "There is no such route. `/openapi.json` lists them all."),
    405: ("method_not_allowed", "This route does not know that method. The Allow header names those it knows."),
}


class FieldProblem(BaseModel):
    """What is wrong with one field of the request."""

    location: str = Field(examples=["body"])
    field: str = Field(examples=["acl.users.0"])
    code: str = Field(examples=["string_too_short"])
    message: str


class Problem(BaseModel):
    """An error as in RFC 9457. `code` is for programs, `detail` for people: it names the next step."""

    type: str = Field("about:blank")
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str
    instance: str = Field(examples=["/v1/documents/doc_1"])
    code: str = Field(examples=["not_found"])
    request_id: str
    errors: list[FieldProblem] | None = None
    numbers: dict[str, Any] | None = Field(None, description="What the decision rests on, where it rests on numbers.")


def problem(status: int, code: str, detail: str, errors: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """The members of a problem that do not depend on the request it answers."""
    body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    body |= {"detail": detail, "code": code}
    return {**body, "errors": list(errors)} if errors else body


def problem_of(error: RagError | SourceError) -> dict[str, Any]:
    """A source that cannot be read is the request's fault here: it names the configuration that was sent."""
    status = error.status if isinstance(error, RagError) else InvalidRequest.status
    body = problem(status, error.code, str(error))
    return {**body, "numbers": error.numbers} if isinstance(error, RagError) and error.numbers else body


def respond(scope: Scope, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """The problem as the answer to the request of `scope`."""
    whole = {
        **body,
        "instance": quote(scope["path"][:_LONGEST_INSTANCE]),
        "request_id": scope.get("state", {}).get("request_id", ""),
    }
    return Response(json.dumps(whole), int(body["status"]), headers=dict(headers or {}), media_type=MEDIA_TYPE)


def respond_to(scope: Scope, error: RagError | SourceError) -> Response:
    headers: dict[str, str] = {}
    if isinstance(error, RetryableError | TooBusy):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return respond(scope, problem_of(error), headers)


def unexpected(scope: Scope) -> Response:
    """A defect of ours. What it was stands in the log, under the request id."""
    return respond(scope, problem_of(RagError()))


def install(app: FastAPI) -> None:
    """Make every error inside the routes a problem."""
    app.add_exception_handler(RagError, _on_known)
    app.add_exception_handler(SourceError, _on_known)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def invalid(errors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The problem of errors as pydantic lists them; inputs and contexts are left out."""
    shown = [
        {
            "location": str(error["loc"][0]) if error["loc"] else "body",
            "field": ".".join(_shown(part) for part in error["loc"][1:]),
            "code": str(error["type"]),
            "message": _said(error),
        }
        for error in errors[:_MOST_ERRORS]
    ]
    first = shown[0]
    named = f"{first['field']}: " if first["field"] else ""
    more = f" And {len(errors) - 1} more, see errors." if len(errors) > 1 else ""
    return problem(422, InvalidRequest.default_code, f"{named}{first['message'].rstrip('.')}.{more}", shown)


async def _on_known(request: Request, error: Exception) -> Response:
    if not isinstance(error, RagError | SourceError):
        raise error
    return respond_to(request.scope, error)


async def _on_invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return respond(request.scope, invalid(error.errors()))


async def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if isinstance(error.__cause__, RagError):
        # FastAPI wraps whatever goes wrong while a body is read.
        return respond_to(request.scope, error.__cause__)
    code, detail = _HTTP.get(error.status_code, (f"http_{error.status_code}", HTTPStatus(error.status_code).phrase))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods_here(request))) or headers["Allow"]
    return respond(request.scope, problem(error.status_code, code, detail), headers)


def _methods_here(request: Request) -> set[str]:
    """Every method of this address: each is a route of its own, and the framework names those of the first alone."""
    routes: Iterable[Route] = getattr(request.app.state, "routes", ())
    here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    # An address that is a route's own is no id in another's, and an action at its end no part of one.
    exact = [route for route in here if route.path == request.scope["path"]]
    acting = [route for route in here if "}:" in route.path]
    return {method for route in exact or acting or here for method in route.methods or ()}


def _said(error: Mapping[str, Any]) -> str:
    if error["type"] == "missing" and tuple(error["loc"]) == ("body",):
        return NO_BODY
    if error["type"] in _NO_OBJECT:
        return "Input should be a JSON object"
    return str(error["msg"]).removeprefix("Value error, ")


def _shown(part: object) -> str:
    """A name of a field, as far as it is one: unknown names come from the caller."""
    text = str(part)
    return text if _PLAIN.fullmatch(text) else "(unreadable name)"
