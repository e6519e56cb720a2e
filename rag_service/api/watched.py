"""How a collection's answers are, and whether embedding models are still what they were."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rag_service.api.auth import Administrator, Manager
from rag_service.api.schemas import Id, Model, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import collections, freshness, probes
from rag_service.db.answers import Counts
from rag_service.db.probes import Probe
from rag_service.retrieval.probing.checks import is_critical
from rag_service.retrieval.probing.drift import Comparison
from rag_service.retrieval.probing.fingerprints import Verdict
from rag_service.types import ProbeState, utc_now

router = APIRouter(prefix="/v1", tags=["probes"], route_class=StrictRoute)


class FailingProbe(BaseModel):
    id: str
    name: str
    since: datetime
    severity: Literal["critical", "warning"]
    checks: list[str]


class ProbesHealth(BaseModel):
    """`recall`: the mean over probes that expect documents, of their newest results. Paused ones are left out."""

    ok: int
    failing: int
    unknown: int
    paused: int
    recall: float | None
    failures: list[FailingProbe]

    @classmethod
    def of(cls, found: list[Probe]) -> ProbesHealth:
        active = [probe for probe in found if not probe.paused]
        recalls = [probe.last.recall for probe in active if probe.last is not None and probe.last.recall is not None]
        states = [probe.state for probe in active]
        return cls(
            ok=states.count(ProbeState.OK),
            failing=states.count(ProbeState.FAILING),
            unknown=states.count(ProbeState.UNKNOWN),
            paused=len(found) - len(active),
            recall=sum(recalls) / len(recalls) if recalls else None,
            failures=[_failing(probe) for probe in active if probe.state == ProbeState.FAILING],
        )


class Drifted(BaseModel):
    """`measured` null, and `state` unknown: too few answers to say anything."""

    state: ProbeState
    measured: float | None
    bound: float


class Window(BaseModel):
    answers: int
    empty: int
    empty_rate: float | None

    @classmethod
    def of(cls, counts: Counts) -> Window:
        rate = counts.empty / counts.answers if counts.answers else None
        return cls(answers=counts.answers, empty=counts.empty, empty_rate=rate)


class AnswersHealth(BaseModel):
    """The active index version's answers to live questions: the newest hours against those before them.

    `scores` measures the population stability index of the best scores, `empties` the change of the share of answers
    without a hit.
    """

    newest: Window
    reference: Window
    scores: Drifted
    empties: Drifted

    @classmethod
    def of(cls, seen: Comparison) -> AnswersHealth:
        empties, scores = (Drifted(state=one.state, measured=one.measured, bound=one.bound) for one in seen.verdicts)
        newest, reference = Window.of(seen.newest), Window.of(seen.reference)
        return cls(newest=newest, reference=reference, scores=scores, empties=empties)


class FingerprintRecord(BaseModel):
    """`cosine`: the least likeness of what the model makes of the probe texts to what it made of them at first."""

    model: str
    revision: str
    dimensions: int
    computation: str
    cosine: float
    moved: bool
    known_since: datetime
    looked_at: datetime

    @classmethod
    def of(cls, verdict: Verdict) -> FingerprintRecord:
        return cls(
            model=verdict.embedder.name,
            revision=verdict.embedder.revision,
            dimensions=verdict.embedder.dimensions,
            computation=verdict.computation,
            cosine=verdict.cosine,
            moved=verdict.moved,
            known_since=verdict.known_since,
            looked_at=verdict.looked_at,
        )


class Fingerprints(BaseModel):
    data: list[FingerprintRecord]


class CollectionHealth(BaseModel):
    """`state` failing: a probe fails, answers have drifted, or the embedding model has moved."""

    collection: str
    index_version: str
    state: ProbeState
    probes: ProbesHealth
    answers: AnswersHealth
    newest_document_at: datetime | None
    newest_document_age_s: float | None
    fingerprint: FingerprintRecord | None = Field(description="Null until this process has looked.")


class AcceptIn(Model):
    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "text-embedding-3-small"}]})

    model: Annotated[str, StringConstraints(min_length=1, max_length=300)] = Field(
        description="The name of the model, as `GET /v1/admin/fingerprints` has it."
    )


@router.get("/collections/{collection}/health")
def get_collection_health(service: Service, caller: Manager, collection: Id) -> CollectionHealth:
    """How a collection is: its probes, its answers against those of the days before, its newest document, its model."""
    with service.database.read() as connection:
        place = collections.get(connection, caller.team, collection)
        index = collections.active_index(connection, place.id)
        found = ProbesHealth.of(probes.of_collection(connection, place.id))
        answers = AnswersHealth.of(service.probing.watch.comparison(connection, index.id))
        newest = freshness.newest(connection, place.id)
    model = next((one for one in service.probing.fingerprints.verdicts() if one.embedder == index.embedder), None)
    return CollectionHealth(
        collection=place.name,
        index_version=index.id,
        state=_state(found, answers, model),
        probes=found,
        answers=answers,
        newest_document_at=newest,
        newest_document_age_s=None if newest is None else (utc_now() - newest).total_seconds(),
        fingerprint=None if model is None else FingerprintRecord.of(model),
    )


@router.get("/admin/fingerprints")
def list_fingerprints(service: Service, _: Administrator) -> Fingerprints:
    """Look now at what the embedding models of this process make of the probe texts."""
    return Fingerprints(data=[FingerprintRecord.of(verdict) for verdict in service.probing.fingerprints.look()])


@router.post("/admin/fingerprints:accept")
def accept_fingerprint(service: Service, _: Administrator, accepted: AcceptIn) -> Fingerprints:
    """Take what a model gives now for right, knowing that vectors made before do not fit to it.

    Build its collections anew afterwards: until then, questions are compared with vectors of what the model was.
    """
    service.probing.fingerprints.accept(accepted.model)
    return Fingerprints(data=[FingerprintRecord.of(verdict) for verdict in service.probing.fingerprints.verdicts()])


def _failing(probe: Probe) -> FailingProbe:
    failures = probe.last.failures if probe.last is not None else ()
    return FailingProbe(
        id=probe.id,
        name=probe.name,
        since=probe.since,
        severity="critical" if is_critical(failures) else "warning",
        checks=[failure["check"] for failure in failures],
    )


def _state(found: ProbesHealth, answers: AnswersHealth, model: Verdict | None) -> ProbeState:
    states = {answers.scores.state, answers.empties.state}
    if found.failing or ProbeState.FAILING in states or (model is not None and model.moved):
        return ProbeState.FAILING
    return ProbeState.OK if found.ok or ProbeState.OK in states else ProbeState.UNKNOWN
