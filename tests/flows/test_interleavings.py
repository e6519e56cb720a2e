"""Whatever happens to a document while a worker indexes it, the index ends up saying what the catalogue says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rag_service.db import chunks, documents
from rag_service.db.documents import Document
from rag_service.errors import RetryableError
from rag_service.ingest import build
from rag_service.ingest.intake import Intake
from rag_service.types import utc_now
from rag_service.vectors.base import VectorPoint
from rag_service.vectors.edge import EdgeVectorStore
from tests.conftest import Service, Started, Team, settings_for

Action = Callable[[Team, str], object]

ACTIONS: dict[str, Action] = {
    "acl narrowed": lambda team, name: patch_acl(team, name, {"users": ["bob"]}),
    "acl widened": lambda team, name: patch_acl(team, name, {"public": True}),
    "metadata changed": lambda team, name: team.manager.patch(f"/v1/documents/{name}/metadata", json={"kind": "new"}),
    "content replaced": lambda team, name: replace_content(team, name, "Entirely other words."),
    "deleted": lambda team, name: team.manager.delete(f"/v1/documents/{name}"),
    "deleted and back": lambda team, name: (team.manager.delete(f"/v1/documents/{name}"), upload(team, "Back again.")),
    "replaced and closed": lambda team, name: (
        replace_content(team, name, "Entirely other words."),
        patch_acl(team, name, {"users": ["bob"]}),
    ),
}


def patch_acl(team: Team, document_id: str, acl: dict[str, Any]) -> None:
    assert team.manager.patch(f"/v1/documents/{document_id}/acl", json=acl).status_code == 202


def replace_content(team: Team, document_id: str, text: str) -> None:
    assert team.manager.put(f"/v1/documents/{document_id}/content", json={"text": text}).status_code == 202


def upload(team: Team, text: str) -> str:
    return str(team.put(text, external_id="the-document", acl={"users": ["ann"]})["id"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Started(settings_for(tmp_path_factory.mktemp("interleavings")), worker=False) as started:
        yield started


def interfere(monkeypatch: pytest.MonkeyPatch, team: Team, action: Action, moment: str) -> list[str]:
    """Let `action` happen once, right before or right after the worker's write. Returns what was done."""
    write = EdgeVectorStore.upsert
    done: list[str] = []

    def upsert(store: EdgeVectorStore, index: str, points: Sequence[VectorPoint]) -> None:
        if moment == "after":
            write(store, index, points)
        if not done:
            done.append(moment)
            action(team, points[0].document_id)
        if moment == "before":
            write(store, index, points)

    monkeypatch.setattr(EdgeVectorStore, "upsert", upsert)
    return done


def disagreements(service: Service, document_id: str) -> list[str]:
    """Where the index says something else of a document than the catalogue."""
    runtime = service.runtime
    with runtime.database.read() as connection:
        row = documents.load(connection, document_id)
        assert row is not None
        listed = [chunk.id for chunk in chunks.page(connection, document_id, limit=1000, after=None).data]
        index = row.index_version or str(_active(connection, row))
        tokens = documents.tokens(connection, row)
    held = [point.chunk_id for point in runtime.vectors.stored(index, document_id)]
    wrong = [] if sorted(held) == sorted(listed) else [f"points {held}, chunks {listed}"]
    if row.is_deleted:
        return wrong + [f"still {row.chunk_count} chunks" for _ in listed]
    payload = stored_payload(runtime.vectors, index, document_id)
    wrong += [f"{name} of a point" for name, value in payload.items() if list(value) != list(getattr(tokens, name))]
    return wrong


def _active(connection: Any, row: Document) -> str:
    from rag_service.db import collections

    return collections.active_index(connection, row.collection_id).id


def stored_payload(store: Any, index: str, document_id: str) -> dict[str, Any]:
    """The access tokens that the store itself holds, read past its port."""
    import qdrant_edge as qdrant

    where = qdrant.Filter(must=[qdrant.FieldCondition("document_id", match=qdrant.MatchValue(document_id))])
    page, _ = store._shard(index)._edge.scroll(
        qdrant.ScrollRequest(filter=where, limit=10, with_payload=["allow", "deny"])
    )
    return dict(page[0].payload) if page else {}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("first", [True, False], ids=["first version", "second version"])
def test_the_index_agrees_with_the_catalogue_in_the_end(
    service: Service, monkeypatch: pytest.MonkeyPatch, first: bool, name: str, moment: str
) -> None:
    team = service.new_team()
    document_id = upload(team, "The first words.")
    if not first:
        service.work()
        replace_content(team, document_id, "The second words.")
    done = interfere(monkeypatch, team, ACTIONS[name], moment)
    service.work()
    assert done == [moment]
    assert disagreements(service, document_id) == []


@pytest.mark.parametrize("back", [False, True], ids=["gone", "back"])
@pytest.mark.parametrize("killed", [False, True], ids=["and goes on", "and its worker dies"])
@pytest.mark.parametrize("stage", ["_embed", "_points"])
def test_nothing_is_left_of_a_version_that_was_purged_while_it_was_indexed(
    service: Service, monkeypatch: pytest.MonkeyPatch, stage: str, killed: bool, back: bool
) -> None:
    team = service.new_team()
    document_id, canary = upload(team, f"A canary, {stage} {killed} {back}."), f"canary, {stage} {killed} {back}"
    job, done = first_job(service, team), list[str]()
    work, commit = getattr(build.Build, stage), build.Build._commit

    def interrupted(self: build.Build, *rest: Any) -> Any:
        if not done:
            removal = team.manager.delete(f"/v1/documents/{document_id}").json()["job_id"]
            service.runtime.runner.run(removal)
            done.append(upload(team, "Back again.") if back else document_id)
            service.work()
        return work(self, *rest)

    def commits(self: build.Build, *rest: Any) -> Any:
        if killed and self.job is not None and self.job.id == job and done[-1] != "killed":
            done.append("killed")
            raise RetryableError("As if the worker had died here.")
        return commit(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(build.Build, stage, interrupted)
        patch.setattr(build.Build, "_commit", commits)
        service.runtime.runner.run(job)
    requeue(service, job)
    service.runtime.runner.run(job)
    service.work()
    assert held_with(service, canary) == []
    assert disagreements(service, document_id) == []


def test_bytes_of_a_new_document_are_kept_once_where_another_one_was_first(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    team, look_up, overtaken = service.new_team(), Intake._look_up, list[str]()

    def late(self: Intake, *rest: Any) -> Any:
        found = look_up(self, *rest)
        if not overtaken:
            overtaken.append("now")
            upload(team, "Somebody else's.")
        return found

    monkeypatch.setattr(Intake, "_look_up", late)
    document_id = upload(team, "A canary, late.")
    (kept,) = held_with(service, "canary, late")
    service.work()
    team.manager.delete(f"/v1/documents/{document_id}").raise_for_status()
    service.work()
    assert not kept.exists()
    assert held_with(service, "canary, late") == []


def held_with(service: Service, words: str) -> list[Path]:
    held = [path for path in (service.runtime.settings.data_dir / "blobs").rglob("*") if path.is_file()]
    return [path for path in held if words.encode() in path.read_bytes()]


def test_an_indexer_that_does_not_look_again_is_caught(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken variant: commits whatever has happened since it looked."""
    take = build.Build._take

    def careless(self: build.Build, connection: Any, document: Document, *rest: Any) -> Any:
        now = documents.load(connection, document.id)
        return take(self, connection, document if now is None else now, *rest)

    monkeypatch.setattr(build.Build, "_take", careless)
    found = []
    for name, action in ACTIONS.items():
        team = service.new_team()
        document_id = upload(team, "The first words.")
        with monkeypatch.context() as patch:
            interfere(patch, team, action, "after")
            service.runtime.runner.run(first_job(service, team))
        found += [f"{name}: {problem}" for problem in disagreements(service, document_id)]
    assert found


def first_job(service: Service, team: Team) -> str:
    (job,) = team.manager.get("/v1/jobs").json()["data"]
    return str(job["id"])


@pytest.mark.parametrize("name", ACTIONS)
def test_repeating_every_job_changes_nothing(service: Service, name: str) -> None:
    team = service.new_team()
    document_id = upload(team, "The first words.")
    service.work()
    ACTIONS[name](team, document_id)
    service.work()
    before = team.retrieve("words again", top_k=100)
    for job in team.manager.get("/v1/jobs?limit=100").json()["data"]:
        requeue(service, job["id"])
        service.runtime.runner.run(job["id"])
    assert disagreements(service, document_id) == []
    assert team.retrieve("words again", top_k=100) == before


def requeue(service: Service, job_id: str) -> None:
    from sqlalchemy import update

    from rag_service.db.tables import jobs

    with service.runtime.database.transaction() as transaction:
        again = update(jobs).where(jobs.c.id == job_id).values(state="queued", run_after=utc_now())
        transaction.connection.execute(again)
