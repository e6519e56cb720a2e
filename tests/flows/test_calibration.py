"""The average length is measured and the lexical vectors follow it, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as qdrant
from sqlalchemy import update

from rag_service.chunking.base import lexical_text
from rag_service.db import chunks, collections, documents, jobs, ringing
from rag_service.db.tables import index_versions
from rag_service.embedding.lexical import Bm25Encoder, checked_language
from rag_service.ingest.calibration import FIRST_AFTER
from rag_service.types import IndexVersion, JobKind, SparseVector
from rag_service.vectors.edge import EdgeVectorStore
from tests.conftest import Service, Started, Team, settings_for

ENOUGH = FIRST_AFTER + 4


class Killed(BaseException):
    """The end of a process, as far as one thread can play it."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Started(settings_for(tmp_path_factory.mktemp("calibration")), worker=False) as started:
        yield started


@pytest.fixture(autouse=True)
def _no_open_jobs(service: Service) -> Iterator[None]:
    yield
    service.work()


def fill(team: Team, number: int = ENOUGH, **fields: Any) -> list[str]:
    words = ["whale", "wolf", "eagle", "otter"]
    return [
        team.put(f"The {words[place % 4]} number {place} sleeps.", external_id=f"d{place}", **fields)["id"]
        for place in range(number)
    ]


def active(service: Service, team: Team, name: str = "default") -> IndexVersion:
    with service.runtime.database.read() as connection:
        ((_, index),) = collections.active_indexes(connection, team.id, [name])
    return index


def stored_terms(service: Service, index: str) -> dict[str, dict[int, float]]:
    """The lexical vectors that the store itself holds, read past its port."""
    edge = service.runtime.vectors._shard(index)._edge  # type: ignore[attr-defined] # the port shows no vectors of terms
    page, offset = edge.scroll(qdrant.ScrollRequest(limit=1000, with_payload=False, with_vector=["lexical"]))
    assert offset is None
    return {
        str(record.id): dict(zip(record.vector["lexical"].indices, record.vector["lexical"].values, strict=True))
        for record in page
    }


def out_of_tune(service: Service, team: Team) -> list[str]:
    """Chunks whose stored weights are not those of the index version as it is now."""
    index = active(service, team)
    encoder = Bm25Encoder(index.average_length, checked_language(index.analyser))
    held = stored_terms(service, index.id)
    wrong = []
    with service.runtime.database.read() as connection:
        page = documents.page(connection, team.id, documents.DocumentFilter(), scope=None, limit=200, after=None)
        for document in page.data:
            for chunk in chunks.of_document(
                connection, document.index_version or "", document.id, document.indexed_version or 0
            ):
                (made,) = encoder.encode([lexical_text(document.title, (), chunk.content.text)], "document")
                expected = dict(zip(made.indices, made.values, strict=True))
                found = held.pop(chunk.id)
                same = found.keys() == expected.keys() and all(np.isclose(found[t], expected[t]) for t in found)
                wrong += [] if same else [chunk.content.text]
    return wrong + [f"an extra point {chunk_id}" for chunk_id in held]


def calibrations(team: Team) -> list[str]:
    found = team.manager.get("/v1/jobs?kind=calibrate&limit=100").json()["data"]
    return [job["state"] for job in found]


def test_the_average_is_measured_once_there_is_enough_to_measure(service: Service) -> None:
    team = service.new_team()
    fill(team, FIRST_AFTER - 1)
    service.work()
    assumed = active(service, team)
    assert (assumed.calibration, calibrations(team)) == (0, [])
    fill(team)
    service.work()
    measured = active(service, team)
    assert calibrations(team) == ["succeeded"]
    assert measured.calibration == 1
    assert 4 <= measured.average_length <= 12 < assumed.average_length
    assert out_of_tune(service, team) == []


def test_an_average_that_stays_is_left_alone(service: Service) -> None:
    team = service.new_team()
    fill(team, 3 * FIRST_AFTER)
    service.work()
    assert len(calibrations(team)) >= 2
    assert active(service, team).calibration == 1


def test_calibration_embeds_nothing_and_keeps_vectors(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    team = service.new_team()
    fill(team)
    run_all(service, JobKind.INDEX)
    index = active(service, team).id
    before = {point.chunk_id: point.dense for point in service.runtime.vectors.stored(index, vectors=True)}

    def refuse(*_: object) -> None:
        raise AssertionError("embedded")

    monkeypatch.setattr(type(service.runtime.embedder), "embed", refuse)
    service.work()
    after = {point.chunk_id: point.dense for point in service.runtime.vectors.stored(index, vectors=True)}
    assert active(service, team).calibration == 1
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)  # type: ignore[arg-type] # asked for


def run_all(service: Service, kind: JobKind) -> None:
    with service.runtime.database.transaction() as transaction:
        ringing.forget_all(transaction.connection)
        due = ringing.fill(transaction.connection, ringing.Limits(jobs=1000, syncs=1000))
    for bell in due:
        if bell.kind == kind:
            service.runtime.runner.run(bell.job_id)


def test_calibration_leaves_everybody_with_what_they_may_read(service: Service) -> None:
    team = service.new_team()
    fill(team, 10, acl={"users": ["ann"]})
    for place in range(ENOUGH):
        team.put(f"The whale of bob, number {place}.", external_id=f"b{place}", acl={"users": ["bob"]})
    service.work()
    assert active(service, team).calibration == 1
    found = {
        name: len(team.retrieve("whale", team.client("query", user=name), mode="lexical", top_k=100))
        for name in ("ann", "bob", "eve")
    }
    assert found == {"ann": 3, "bob": ENOUGH, "eve": 0}


@pytest.mark.parametrize("moment", ["before it is due", "while it waits"])
def test_the_first_question_settles_the_average_so_that_no_score_moves(service: Service, moment: str) -> None:
    team = service.new_team()
    fill(team, 10, acl={"users": ["ann"]})
    service.work()
    ann = team.client("query", user="ann")

    def scores() -> list[Any]:
        return [(hit["external_id"], hit["scores"]) for hit in team.retrieve("whale", ann, top_k=20)]

    before = scores() if moment == "before it is due" else []
    for place in range(ENOUGH):
        team.put(f"The whale of bob, number {place}.", external_id=f"b{place}", acl={"users": ["bob"]})
    run_all(service, JobKind.INDEX)
    before = before or scores()
    service.work()
    assert scores() == before
    assert active(service, team).settled
    assert active(service, team).calibration == 0
    assert out_of_tune(service, team) == []


def test_a_killed_calibration_goes_on_where_it_died(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    team = service.new_team()
    fill(team)
    run_all(service, JobKind.INDEX)
    write, written = EdgeVectorStore.set_lexical, []

    def dying(store: EdgeVectorStore, index: str, document_id: str, vectors: Mapping[str, SparseVector]) -> None:
        written.append(document_id)
        if len(written) == 7:
            raise Killed
        write(store, index, document_id, vectors)

    with monkeypatch.context() as patch:
        patch.setattr(EdgeVectorStore, "set_lexical", dying)
        with pytest.raises(Killed):
            run_all(service, JobKind.CALIBRATE)
    assert out_of_tune(service, team)
    with service.runtime.database.transaction() as transaction:
        jobs.release_all(transaction.connection)
    again: list[str] = []
    monkeypatch.setattr(
        EdgeVectorStore,
        "set_lexical",
        lambda store, index, name, vectors: (again.append(name), write(store, index, name, vectors)),
    )
    service.work()
    assert out_of_tune(service, team) == []
    assert len(again) == ENOUGH - 6


def test_a_long_calibration_goes_on_in_slices(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    team = service.new_team()
    fill(team, 2 * ENOUGH)
    run_all(service, JobKind.INDEX)
    monkeypatch.setattr("rag_service.ingest.calibration._SLICE", 5)
    object.__setattr__(service.runtime.calibration, "slice_s", 0.0)
    service.work()
    object.__setattr__(service.runtime.calibration, "slice_s", 20.0)
    assert out_of_tune(service, team) == []


def recalibrated(service: Service, team: Team) -> None:
    """What another worker's calibration commits, and its pass over the documents there are."""
    index = active(service, team)
    with service.runtime.database.transaction() as transaction:
        collections.recalibrate(
            transaction.connection, index, analyser=index.analyser, average_length=index.average_length * 2
        )
    with service.runtime.database.transaction() as transaction:
        job_id = jobs.add(transaction.connection, JobKind.CALIBRATE, team.id, payload={"index": index.id})
    service.runtime.runner.run(job_id)


def during(monkeypatch: pytest.MonkeyPatch, method: str, action: Callable[[], object], moment: str) -> None:
    """Let `action` happen once, right before or right after the store's `method`."""
    write = getattr(EdgeVectorStore, method)
    done: list[object] = []

    def interrupted(store: EdgeVectorStore, index: str, *rest: Any) -> None:
        if moment == "after":
            write(store, index, *rest)
        if not done:
            done.append(moment)
            action()
        if moment == "before":
            write(store, index, *rest)

    monkeypatch.setattr(EdgeVectorStore, method, interrupted)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_is_indexed_beside_a_calibration_follows_it(
    service: Service, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    team = service.new_team()
    fill(team, 5)
    service.work()
    team.put("A late otter.", external_id="late")
    during(monkeypatch, "upsert", lambda: recalibrated(service, team), moment)
    service.work()
    assert out_of_tune(service, team) == []


def test_an_indexer_that_does_not_look_at_the_calibration_is_caught(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken variant: commits what it encoded with the former average."""
    team = service.new_team()
    fill(team, 5)
    service.work()
    team.put("A late otter.", external_id="late")
    with monkeypatch.context() as patch:
        patch.setattr(type(service.runtime.calibration), "note_written", lambda *_: True)
        during(patch, "upsert", lambda: recalibrated(service, team), "after")
        service.work()
        assert any("late otter" in text for text in out_of_tune(service, team))


ACTIONS: dict[str, Callable[[Team, str], object]] = {
    "replaced": lambda team, name: team.manager.put(f"/v1/documents/{name}/content", json={"text": "An ibex stands."}),
    "deleted": lambda team, name: team.manager.delete(f"/v1/documents/{name}"),
    "closed": lambda team, name: team.manager.patch(f"/v1/documents/{name}/acl", json={"users": ["bob"]}),
}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("action", ACTIONS)
def test_documents_that_change_beside_a_calibration_end_in_tune(
    service: Service, monkeypatch: pytest.MonkeyPatch, action: str, moment: str
) -> None:
    team = service.new_team()
    names = fill(team)
    run_all(service, JobKind.INDEX)

    def change() -> None:
        for name in names[:3]:
            assert ACTIONS[action](team, name).status_code == 202  # type: ignore[attr-defined] # an HTTP answer
        for kind in (JobKind.INDEX, JobKind.REMOVE, JobKind.REFRESH):
            run_all(service, kind)

    during(monkeypatch, "set_lexical", change, moment)
    service.work()
    assert active(service, team).calibration >= 1
    assert out_of_tune(service, team) == []


def test_a_collection_deleted_before_it_was_calibrated_is_no_failure(service: Service) -> None:
    team = service.new_team()
    team.manager.post("/v1/collections", json={"name": "short"})
    fill(team, collection="short")
    run_all(service, JobKind.INDEX)
    assert team.manager.delete("/v1/collections/short").status_code == 202
    service.work()
    assert calibrations(team) == ["succeeded"]


def test_what_an_older_version_encoded_is_encoded_again_at_the_start(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with Started(settings, worker=False) as service:
        team = service.new_team()
        fill(team, 5)
        service.work()
        index = active(service, team).id
        foreign = {name: SparseVector((1,), (1.0,)) for name in stored_terms(service, index)}
        for document in team.manager.get("/v1/documents").json()["data"]:
            service.runtime.vectors.set_lexical(index, document["id"], foreign)
        with service.runtime.database.transaction() as transaction:
            transaction.connection.execute(update(index_versions).values(analyser="auto"))
    with Started(settings, worker=False) as service:
        team = Team(service, team.id)
        service.work()
        assert active(service, team).analyser == "auto/3"
        assert out_of_tune(service, team) == []
        assert len(team.retrieve("otter", mode="lexical")) == 1
