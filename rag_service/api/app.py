"""The HTTP API: one application around one runtime."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from rag_service import __version__
from rag_service.api import (
    audit,
    batch,
    collections,
    dead_letters,
    docs_page,
    document_reads,
    documents,
    feedback,
    health,
    index_versions,
    jobs,
    metrics,
    openapi,
    probes,
    problems,
    queries,
    query_set_files,
    query_sets,
    query_sets_from_feedback,
    reindex,
    retrieve,
    sources,
    teams,
    upkeep,
    watched,
    webhooks,
    why_not,
)
from rag_service.api.auditing import Audited
from rag_service.api.auth import Guard
from rag_service.api.envelope import Envelope
from rag_service.api.limits import BodyLimit, Ceiling, RequestShape
from rag_service.api.meter import Meter
from rag_service.api.questions import QuestionsFirst
from rag_service.api.rates import Kind, RateLimit, Rates, RefusalLimit
from rag_service.api.watching import Watch
from rag_service.runtime import Runtime
from rag_service.settings import Settings

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
        # FastAPI's own spans and logs quote query strings and what exceptions say. Ours are in `watching`.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.runtime = runtime
    resources = (
        retrieve,  # before the others: routes are tried in this order, which takes a tenth of a request
        teams,
        collections,
        batch,
        documents,
        document_reads,
        sources,
        jobs,
        why_not,
        queries,
        query_sets,
        query_set_files,
        query_sets_from_feedback,
        feedback,
        dead_letters,
        index_versions,
        audit,
        upkeep,
        reindex,
        probes,
        watched,
        webhooks,
        health,
        metrics,
        docs_page,
    )
    for resource in resources:
        app.include_router(resource.router)
    app.state.routes = [route for resource in resources for route in resource.router.routes]
    problems.install(app)
    openapi.install(app)
    _guard(app, runtime)
    return app


def _guard(app: FastAPI, runtime: Runtime) -> None:
    """Added from the inside out: a request is watched, gets its id, is measured, shows its key, is counted."""
    settings = runtime.settings
    rates, meter = rates_of(settings), Meter(settings.redis_url)
    app.add_middleware(
        BodyLimit,
        json_bytes=settings.max_batch_bytes,
        upload_bytes=settings.max_upload_bytes,
        timeout_s=settings.client_timeout_s,
    )
    app.add_middleware(QuestionsFirst, precedence=runtime.runner.precedence)
    app.add_middleware(Ceiling, most=settings.max_requests)
    app.add_middleware(RateLimit, meter=meter, rates=rates)
    app.add_middleware(Audited, runtime=runtime)
    app.add_middleware(Guard, runtime=runtime)
    app.add_middleware(RefusalLimit, meter=meter, rates=rates)
    app.add_middleware(RequestShape)
    app.add_middleware(Envelope)
    app.add_middleware(Watch)


def rates_of(settings: Settings) -> Rates:
    by_kind: dict[Kind, int] = {
        "retrieve": settings.rate_retrieve,
        "read": settings.rate_read,
        "write": settings.rate_write,
        "admin": settings.rate_admin,
    }
    return Rates(by_kind, settings.rate_refused, settings.rate_team_factor, settings.rate_teams)


def _operation_id(route: APIRoute) -> str:
    return route.name
