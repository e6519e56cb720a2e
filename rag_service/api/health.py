"""Is the process alive, and can it serve? Open to everybody."""

from __future__ import annotations

from functools import cache
from typing import Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Response
from pydantic import BaseModel

from rag_service.api.schemas import Service

router = APIRouter(tags=["health"])


@cache
def _threads() -> CapacityLimiter:
    return CapacityLimiter(4)


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Part(BaseModel):
    ready: bool
    reason: str | None = None


class Readiness(BaseModel):
    ready: bool
    parts: dict[str, Part]


@router.get("/livez")
async def livez() -> Alive:
    """The process answers. Looks at nothing else."""
    return Alive()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "A part is not ready; it says why."}})
async def readyz(service: Service, response: Response) -> Readiness:
    """Every part that serving needs, and what is wrong with those that are not ready."""
    # In threads of its own: those of the other routes may all be waiting for the very part that is not ready.
    looks = await to_thread.run_sync(service.parts, limiter=_threads())
    parts = {name: Part(ready=reason is None, reason=reason) for name, reason in looks.items()}
    ready = all(part.ready for part in parts.values())
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, parts=parts)
