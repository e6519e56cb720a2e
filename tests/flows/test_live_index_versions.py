"""Several index versions of one collection: changes reach all of them, one answers, another takes its place."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rag_service.access import Principal
from rag_service.db import builds, collections, documents, indexed
from rag_service.ingest.removal import Removal
from rag_service.ingest.stages import Stages
from rag_service.retrieval.plan import RetrievalRequest
from rag_service.runtime import Runtime
from rag_service.types import IndexState, IndexVersion, utc_now
from rag_service.vectors.base import IndexSpec
from tests.conftest import Service, Started, Team, settings_for

SMALL = {"embedding": {"embedder": "hashing", "dimensions": 32}, "chunking": {"tokens": 32}}
BARE = {"chunking": {"context": "none"}}
TEXT = "# Leave\n\nEverybody has thirty days of leave.\n\n# Canteen\n\nThe canteen serves soup at noon."


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Service]:
    """A service whose work is done when a test says so."""
    with Started(settings_for(tmp_path), worker=False) as service:
        yield service


def active(team: Team) -> IndexVersion:
    with team.service.runtime.database.read() as connection:
        mine = collections.get(connection, team.id, "default")
        return collections.active_index(connection, mine.id)


def beside(team: Team, pipeline: dict[str, Any]) -> IndexVersion:
    """A new index version of the team's collection, empty."""
    runtime, former = team.service.runtime, active(team)
    shape = IndexVersion(**{**{name: getattr(former, name) for name in former.__slots__}, "pipeline": pipeline})
    embedder, chunker = runtime.pipelines.embedder(shape), runtime.pipelines.chunker(shape)
    with runtime.database.transaction() as transaction:
        made = collections.add_index(
            transaction.connection,
            former.collection_id,
            embedder=embedder.identity,
            chunker=chunker.identity,
            analyser=former.analyser,
            average_length=former.average_length,
            state=IndexState.BUILDING,
            pipeline=pipeline,
        )
    runtime.vectors.create(made.id, IndexSpec(made.embedder.dimensions))
    return made


def catch_up(runtime: Runtime, index: IndexVersion) -> int:
    """Build what `index` lacks; how many documents that were."""
    built = 0
    while True:
        with runtime.database.read() as connection:
            waiting = indexed.outdated(connection, index, 10)
        if not waiting:
            return built
        for document in waiting:
            runtime.indexer.build(document.id, index, Stages("build"))
            built += 1


def switch(runtime: Runtime, former: IndexVersion, target: IndexVersion) -> bool:
    with runtime.database.transaction() as transaction:
        return indexed.switch(transaction.connection, former, target, soak_s=60)


def found(team: Team, query: str, index: IndexVersion | None = None, **who: Any) -> list[str]:
    request = RetrievalRequest(query, index_version=None if index is None else index.id)
    answer = team.service.runtime.retriever.retrieve(request, Principal(team.id, **who))
    return [hit.chunk.external_id for hit in answer.hits]


def points(team: Team, index: IndexVersion, document_id: str) -> set[tuple[str, int]]:
    return {(one.chunk_id, one.version) for one in team.service.runtime.vectors.stored(index.id, document_id)}


def test_another_index_version_is_built_from_what_is_kept_and_takes_over(still: Service) -> None:
    team, runtime = still.new_team(), still.runtime
    ids = [team.put(f"{TEXT}\n\nOffice {n}.", external_id=f"d{n}")["id"] for n in range(5)]
    still.work()
    former, target = active(team), beside(team, SMALL)
    parsed: list[bytes] = []
    object.__setattr__(runtime.indexer, "parse", lambda *_: parsed.append(b"") or pytest.fail("parsed anew"))
    assert catch_up(runtime, target) == 5
    assert not parsed
    before = found(team, "thirty days of leave")
    assert set(found(team, "thirty days of leave", target)) == set(before) == {f"d{n}" for n in range(5)}
    assert switch(runtime, former, target)
    assert active(team).id == target.id
    record = team.document(ids[0])
    assert (record["status"], record["chunk_count"]) == ("ready", len(points(team, target, ids[0])))
    shown = team.manager.get(f"/v1/documents/{ids[0]}/chunks").json()["data"]
    assert {one["id"] for one in shown} == {name for name, _ in points(team, target, ids[0])}
    answer = team.manager.post("/v1/retrieve", json={"query": "soup at noon"}).json()
    assert {hit["provenance"]["index_version"] for hit in answer["results"]} == {target.id}


def test_a_question_ends_on_the_index_version_that_it_began_on(still: Service) -> None:
    team, runtime = still.new_team(), still.runtime
    team.put(TEXT, external_id="d")
    still.work()
    former, target = active(team), beside(team, SMALL)
    catch_up(runtime, target)
    search = runtime.vectors.search

    def switching(index: str, *rest: Any) -> Any:
        drawn = search(index, *rest)
        assert switch(runtime, former, target) or active(team).id == target.id
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime.vectors, "search", switching)
        answer = runtime.retriever.retrieve(RetrievalRequest("leave"), Principal(team.id))
    assert [hit.chunk.index_version for hit in answer.hits] == [former.id] * len(answer.hits) != []
    assert found(team, "leave") == ["d"] * len(points(team, target, answer.hits[0].chunk.chunk.document_id))


def test_a_switch_waits_for_what_is_not_built_yet(still: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    team, runtime = still.new_team(), still.runtime
    monkeypatch.setitem(runtime.indexer.__dict__, "written", lambda *_: None)  # nobody is told to build it
    team.put(TEXT, external_id="old")
    still.work()
    former, target = active(team), beside(team, SMALL)
    catch_up(runtime, target)
    team.put("Bicycles stand in the yard.", external_id="new")
    still.work()
    assert not switch(runtime, former, target)
    assert (active(team).id, found(team, "bicycles")[0]) == (former.id, "new")
    assert catch_up(runtime, target) == 1
    assert switch(runtime, former, target)
    assert found(team, "bicycles")[0] == "new"


@pytest.mark.parametrize("back", [False, True], ids=["forward", "and back"])
def test_changes_reach_every_live_index_version(still: Service, back: bool) -> None:
    team, runtime = still.new_team(), still.runtime
    ids = {name: team.put(f"{TEXT} {name}", external_id=name)["id"] for name in ("a", "b", "c", "d")}
    still.work()
    former, target = active(team), beside(team, SMALL)
    catch_up(runtime, target)
    if back:
        assert switch(runtime, former, target)
        former, target = target, former
    team.manager.put(f"/v1/documents/{ids['a']}/content", json={"text": "The porter keeps the keys."})
    team.manager.patch(f"/v1/documents/{ids['b']}/acl", json={"users": ["ann"]})
    team.manager.delete(f"/v1/documents/{ids['c']}")
    # At once, and before anybody has worked on it.
    assert "c" not in found(team, "leave", target)
    assert "b" not in found(team, "leave", target)
    still.work()
    assert not points(team, target, ids["c"])
    assert not points(team, former, ids["c"])
    catch_up(runtime, target)
    assert {version for _, version in points(team, target, ids["a"])} == {2}
    assert found(team, "porter keys", target)[0] == "a"
    assert "b" in found(team, "leave", target, user="ann")
    with runtime.database.read() as connection:
        left, held = builds.left(connection, target), builds.held(connection, [target.id])[target.id]
        assert (left.documents, left.waiting, held.documents) == (3, 0, 3)
        assert builds.failures(connection, target.id, 1) == (0, [])
    assert switch(runtime, former, target)
    assert set(found(team, "leave")) == {"a", "d"}
    assert found(team, "porter keys")[0] == "a"


def test_a_removal_that_forgot_an_index_version_would_be_seen(still: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    team, runtime = still.new_team(), still.runtime
    document = team.put(TEXT, external_id="d")["id"]
    still.work()
    former, target = active(team), beside(team, SMALL)
    catch_up(runtime, target)
    monkeypatch.setattr("rag_service.ingest.removal.collections.all_indexes", lambda *_: [former.id])
    assert isinstance(runtime.removal, Removal)
    team.manager.delete(f"/v1/documents/{document}")
    still.work()
    assert points(team, target, document)
    assert not found(team, "leave", target)


def test_vectors_of_equal_texts_are_taken_over_where_the_model_is_the_same(
    still: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    team, runtime = still.new_team(), still.runtime
    team.put("First thing.\n\n" + TEXT, external_id="d", title="Things")
    still.work()
    asked: list[str] = []
    embed = runtime.embedder.embed

    def counting(texts: Sequence[str], kind: Any) -> Any:
        asked.extend(texts if kind == "document" else ())
        return embed(texts, kind)

    monkeypatch.setattr(runtime.embedder, "embed", counting)
    catch_up(runtime, beside(team, {"language": "english"}))
    assert asked == []
    team.put("First thing.\n\n" + TEXT, external_id="moved", title="Things")
    still.work()
    assert asked == []
    catch_up(runtime, beside(team, BARE))
    assert asked != []


def test_a_document_that_cannot_be_built_is_left_out_openly_and_comes_back(still: Service) -> None:
    team, runtime = still.new_team(), still.runtime
    document = team.put(TEXT, external_id="d")["id"]
    team.put(TEXT, external_id="other")
    still.work()
    former, target = active(team), beside(team, SMALL)
    with runtime.database.transaction() as transaction:
        row = documents.load(transaction.connection, document)
        assert row is not None
        indexed.note_failed(transaction.connection, target, row, indexed._LEFT_OUT)
    assert catch_up(runtime, target) == 1
    assert switch(runtime, former, target)
    record = team.document(document)
    assert (record["status"], record["error"]["code"]) == ("failed", "left_out")
    assert set(found(team, "leave")) == {"other"}
    assert switch(runtime, target, former)
    assert team.document(document)["status"] == "ready"
    assert set(found(team, "leave")) == {"d", "other"}


def test_commits_to_a_held_index_version_wait(still: Service) -> None:
    team, runtime = still.new_team(), still.runtime
    team.put(TEXT, external_id="d")
    with runtime.database.transaction() as transaction:
        indexed.hold(transaction.connection, active(team), utc_now() + timedelta(seconds=60))
    working = threading.Thread(target=still.work)
    working.start()
    working.join(0.5)
    assert working.is_alive()
    assert not found(team, "leave")
    with runtime.database.transaction() as transaction:
        indexed.hold(transaction.connection, active(team), None)
    working.join(10)
    assert found(team, "leave")


def test_collections_of_different_models_are_asked_together(still: Service) -> None:
    team, runtime = still.new_team(), still.runtime
    team.manager.post("/v1/collections", json={"name": "other"})
    for name in ("default", "other"):
        for n in range(12):
            team.put(f"Note {n} of {name}: parking space number {n}.", external_id=f"{name}-{n}", collection=name)
        team.put("The canteen serves soup at noon.", external_id=f"{name}-soup", collection=name)
    still.work()
    former, target = active(team), beside(team, {"embedding": {"embedder": "hashing", "dimensions": 512}})
    catch_up(runtime, target)
    assert switch(runtime, former, target)
    for mode in ("hybrid", "dense"):
        wanted = {"query": "canteen soup noon", "collections": ["default", "other"], "mode": mode}
        answer = team.manager.post("/v1/retrieve", json=wanted)
        assert answer.status_code == 200, answer.text
        first = [hit["external_id"] for hit in answer.json()["results"]]
        assert set(first[:2]) == {"default-soup", "other-soup"}
        assert len({hit["provenance"]["embedding_model"] for hit in answer.json()["results"]}) >= 1
