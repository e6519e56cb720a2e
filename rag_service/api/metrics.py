"""The metrics of this process, and of what all processes share, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from rag_service.api.auth import Watcher
from rag_service.api.schemas import Service
from rag_service.observe.state import CONTENT_TYPE_LATEST, exposition

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(service: Service, caller: Watcher) -> Response:
    """Counters, gauges and histograms in Prometheus' text format.

    For an admin key of the service, or the key that `RAG_METRICS_KEY` sets for this route alone.
    """
    return Response(exposition(service.state), media_type=CONTENT_TYPE_LATEST)
