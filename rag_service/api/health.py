"""Is the process alive, and can it serve? Open to everybody."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from rag_service.api.schemas import Service

router = APIRouter(tags=["health"])


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
def readyz(service: Service, response: Response) -> Readiness:
    """Every part that serving needs, and what is wrong with those that are not ready."""
    parts = {name: Part(ready=reason is None, reason=reason) for name, reason in service.parts().items()}
    ready = all(part.ready for part in parts.values())
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, parts=parts)
