"""Many documents in one request; each is taken in or refused for itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field

from rag_service.api import problems
from rag_service.api.auth import Ingester
from rag_service.api.documents import Accepted
from rag_service.api.schemas import Model, Service
from rag_service.api.strict import StrictRoute, validated
from rag_service.api.uploads import DocumentIn, upload_of
from rag_service.db import collections
from rag_service.errors import RagError
from rag_service.ingest.intake import Incoming, OnConflict, Target
from rag_service.runtime import Runtime

router = APIRouter(prefix="/v1", tags=["documents"], route_class=StrictRoute)

# Documents per transaction: enough to share a commit, few enough to let others write in between.
_TOGETHER = 50


class BatchIn(Model):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"documents": [{"external_id": "a", "text": "One."}, {"text": "Two."}]}]}
    )

    documents: Annotated[list[Any], Field(min_length=1, max_length=1_000)] = Field(
        description="Documents as `POST /v1/documents` takes them in JSON."
    )


class BatchItem(BaseModel):
    """What became of the document at `index`: taken in (202), or a problem."""

    index: int
    status: int
    document: Accepted | None = None
    problem: dict[str, Any] | None = None


class BatchResult(BaseModel):
    results: list[BatchItem]


@dataclass(frozen=True, slots=True)
class _Ready:
    index: int
    collection_id: str
    on_conflict: OnConflict
    incoming: Incoming


@dataclass(slots=True)
class _Group:
    """Neighbours that one call of the intake can take: same place, same rule, no external id twice."""

    members: list[_Ready] = field(default_factory=list)

    def takes(self, item: _Ready) -> bool:
        if not self.members:
            return True
        first = self.members[0]
        return (
            len(self.members) < _TOGETHER
            and item.on_conflict == first.on_conflict != "error"
            and item.collection_id == first.collection_id
            and all(item.incoming.external_id != other.incoming.external_id for other in self.members)
        )


@router.post("/documents:batch")
def create_documents(service: Service, caller: Ingester, batch: BatchIn) -> BatchResult:
    """Put up to 1,000 documents in, in order. Answers 200 with a result for each; one that fails costs no other."""
    results: dict[int, BatchItem] = {}
    ready: list[_Ready] = []
    known: dict[str, str] = {}
    for index, given in enumerate(batch.documents):
        try:
            ready.append(_prepare(service, caller.team, index, given, known))
        except RequestValidationError as error:
            results[index] = _refused(index, problems.invalid(error.errors()))
        except RagError as error:
            results[index] = _refused(index, problems.problem_of(error))
    for group in _groups(ready):
        results.update((item.index, item) for item in _take_in(service, caller.team, group))
    return BatchResult(results=[results[index] for index in range(len(batch.documents))])


def _prepare(service: Runtime, team: str, index: int, given: object, known: dict[str, str]) -> _Ready:
    upload = upload_of(validated(DocumentIn, given))
    if upload.collection not in known:
        with service.database.read() as connection:
            known[upload.collection] = collections.get(connection, team, upload.collection).id
    incoming = upload.incoming(service.settings.max_upload_bytes)
    return _Ready(index, known[upload.collection], upload.on_conflict, incoming)


def _groups(ready: list[_Ready]) -> Iterator[list[_Ready]]:
    group = _Group()
    for item in ready:
        if not group.takes(item):
            yield group.members
            group = _Group()
        group.members.append(item)
    if group.members:
        yield group.members


def _take_in(service: Runtime, team: str, group: list[_Ready]) -> list[BatchItem]:
    target = Target(team, group[0].collection_id, bulk=len(group) > 1)
    try:
        receipts = service.intake.accept(target, [item.incoming for item in group], on_conflict=group[0].on_conflict)
    except RagError as error:
        return [_refused(item.index, problems.problem_of(error)) for item in group]
    return [
        BatchItem(index=item.index, status=202, document=Accepted.of(receipt))
        for item, receipt in zip(group, receipts, strict=True)
    ]


def _refused(index: int, problem: dict[str, Any]) -> BatchItem:
    return BatchItem(index=index, status=problem["status"], problem=problem)
