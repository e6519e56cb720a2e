"""The HTTP API: one application around one runtime."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from rag_service import __version__
from rag_service.api import (
    batch,
    collections,
    dead_letters,
    docs_page,
    document_reads,
    documents,
    health,
    jobs,
    openapi,
    problems,
    queries,
    retrieve,
    sources,
    teams,
    why_not,
)
from rag_service.api.auth import Guard
from rag_service.api.envelope import Envelope
from rag_service.api.limits import BodyLimit
from rag_service.runtime import Runtime

_DESCRIPTION = """
Documents in, permission-filtered hybrid answers out.

Send `Authorization: Bearer <key>`. Errors are `application/problem+json`. Lists are `{data, has_more, next_cursor}`.
"""


def create_app(runtime: Runtime) -> FastAPI:
    """The application over `runtime`, which its caller opens before the first request and closes after the last."""
    app = FastAPI(
        title="rag-service",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
    )
    app.state.runtime = runtime
    resources = (
        teams,
        collections,
        batch,
        documents,
        document_reads,
        sources,
        jobs,
        retrieve,
        why_not,
        queries,
        dead_letters,
        health,
        docs_page,
    )
    for resource in resources:
        app.include_router(resource.router)
    problems.install(app)
    openapi.install(app)
    settings = runtime.settings
    # Added from the inside out: every request gets its id, then shows its key, then is measured.
    app.add_middleware(BodyLimit, json_bytes=settings.max_batch_bytes, upload_bytes=settings.max_upload_bytes)
    app.add_middleware(Guard, runtime=runtime)
    app.add_middleware(Envelope)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
