"""Documents are worked on anew from what is kept of them: from the stage that was asked for, and never earlier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

import connectors
from rag_service.access import AccessTokens
from rag_service.chunking.structure import StructureChunker
from rag_service.db import collections, jobs, reindexing
from rag_service.db.tables import document_access, indexed_documents
from rag_service.db.tables import documents as document_table
from rag_service.db.tables import jobs as job_table
from rag_service.embedding.hashing import HashingEmbedder
from rag_service.errors import UnsupportedDocument
from rag_service.types import JobState
from tests.conftest import Service, Started, Team, settings_for
from tests.flows.unsteady_source import PLACE, Unsteady


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Started(settings_for(tmp_path_factory.mktemp("reindex")), worker=False) as started:
        yield started


@pytest.fixture(autouse=True)
def _no_open_jobs(service: Service) -> Iterator[None]:
    yield
    service.work()


@contextmanager
def parsing(service: Service, parse: Any) -> Iterator[None]:
    """With another parser meanwhile."""
    indexer = service.runtime.indexer
    real = indexer.parse
    object.__setattr__(indexer, "parse", parse)
    try:
        yield
    finally:
        object.__setattr__(indexer, "parse", real)


@pytest.fixture
def done(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often what was done since: items read, documents parsed and cut, texts embedded."""
    counts: Counter[str] = Counter()

    def counted(owner: type, method: str, name: str, size: Any = lambda *_: 1) -> None:
        original = getattr(owner, method)

        def counting(self: Any, *arguments: Any) -> Any:
            counts[name] += size(*arguments)
            return original(self, *arguments)

        monkeypatch.setattr(owner, method, counting)

    counted(StructureChunker, "chunk", "cut")
    counted(HashingEmbedder, "embed", "embedded", lambda texts, kind: len(texts) if kind == "document" else 0)
    parse = service.runtime.indexer.parse

    def counting_parse(*arguments: Any) -> Any:
        counts["parsed"] += 1
        return parse(*arguments)

    with parsing(service, counting_parse):
        yield counts


def ask(at: Team, from_stage: str, *, dry_run: bool = False, key: str | None = None, **scope: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    body = {"scope": scope, "from_stage": from_stage, "dry_run": dry_run}
    return at.admin.post("/v1/admin/reindex", json=body, headers=headers)


def plan(team: Team, from_stage: str, **scope: Any) -> dict[str, Any]:
    answer = ask(team, from_stage, dry_run=True, **scope)
    assert answer.status_code == 200, answer.text
    assert answer.json()["jobs"] == []
    told: dict[str, Any] = answer.json()["plan"]
    return told


def start(team: Team, from_stage: str, **more: Any) -> str:
    answer = ask(team, from_stage, **more)
    assert answer.status_code == 202, answer.text
    assert answer.json()["plan"] is None
    (begun,) = answer.json()["jobs"]
    assert begun["team"] == team.id
    return str(begun["job_id"])


def job_of(team: Team, job_id: str) -> dict[str, Any]:
    record: dict[str, Any] = team.manager.get(f"/v1/jobs/{job_id}").json()
    return record


def reindex(team: Team, from_stage: str, **scope: Any) -> dict[str, Any]:
    """To the end; returns the job."""
    job_id = start(team, from_stage, **scope)
    team.service.work()
    return job_of(team, job_id)


def children(team: Team, job_id: str) -> list[Any]:
    query = select(job_table).where(job_table.c.parent_id == job_id)
    with team.service.runtime.database.read() as connection:
        return list(connection.execute(query).all())


def filled(team: Team, number: int = 5, **fields: Any) -> list[str]:
    names = [
        team.put(f"# Page {place}\n\nWhat page {place} says.", external_id=f"p{place}", **fields)["id"]
        for place in range(number)
    ]
    team.service.work()
    return names


def rows_of(team: Team) -> list[Any]:
    query = select(document_table).where(document_table.c.team_id == team.id)
    with team.service.runtime.database.read() as connection:
        return list(connection.execute(query).all())


def lose_bytes(team: Team, row: Any) -> int:
    """Remove a document's raw bytes from the disk, and nothing else."""
    found = team.service.runtime.settings.data_dir.rglob(row.content_hash)
    held = [path for path in found if row.id in str(path)]
    for path in held:
        path.unlink()
    return len(held)


def answers(team: Team) -> list[tuple[Any, ...]]:
    hits = team.retrieve("what does the page say", top_k=50)
    return [(hit["chunk_id"], hit["text"], hit["score"], hit["position"]) for hit in hits]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    root.mkdir()
    for name in ("a", "b", "c"):
        (root / f"{name}.md").write_text(f"# {name}\n\nThe file {name}.")
    return root


def source_of(team: Team, folder: Path) -> str:
    body = {"name": "s", "type": "files", "config": {"root": str(folder)}, "acl": {"public": True}}
    source = str(team.admin.post("/v1/sources", json=body).json()["id"])
    sync(team, source)
    return source


def sync(team: Team, source: str) -> None:
    assert team.manager.post(f"/v1/sources/{source}/sync").status_code == 202
    team.service.work()


class TestStages:
    @pytest.mark.parametrize(
        ("from_stage", "expected"),
        [
            ("permissions", {}),
            ("metadata", {}),
            ("embed", {}),
            ("chunk", {"cut": 5}),
            ("parse", {"parsed": 5, "cut": 5}),
        ],
    )
    def test_work_begins_at_its_stage_and_what_is_the_same_is_not_embedded(
        self, team: Team, done: Counter[str], from_stage: str, expected: dict[str, int]
    ) -> None:
        filled(team)
        before = answers(team)
        done.clear()
        job = reindex(team, from_stage)
        assert (job["kind"], job["state"]) == ("reindex", "succeeded")
        assert job["progress"] == {"done": 5, "total": 5, "percent": 100.0}
        assert +done == expected
        assert answers(team) == before
        assert {row.queue for row in children(team, job["id"])} == {"bulk"}

    def test_what_the_store_lost_is_computed_and_nothing_else(self, team: Team, done: Counter[str]) -> None:
        lost, *_ = filled(team)
        before = answers(team)
        with team.service.runtime.database.read() as connection:
            ((_, index),) = collections.active_indexes(connection, team.id, ["default"])
        team.service.runtime.vectors.delete(index.id, lost)
        done.clear()
        assert plan(team, "embed")["documents"] == 5
        reindex(team, "embed")
        assert done["embedded"] == 1
        assert answers(team) == before

    def test_a_changed_chunker_is_taken_up_from_the_text_that_is_kept(
        self, team: Team, done: Counter[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        same = "# Part\n\n" + "A paragraph that stays as it is. " * 3
        long = "\n\n# Whole\n\n" + " ".join(f"Sentence number {place} of a long page." for place in range(40))
        document = team.put(same + long, external_id="page")["id"]
        team.service.work()
        monkeypatch.setattr("rag_service.runtime.pipelines.make_chunker", smaller)
        chunks_before = team.manager.get(f"/v1/documents/{document}/chunks").json()["data"]
        done.clear()
        reindex(team, "chunk")
        chunks = team.manager.get(f"/v1/documents/{document}/chunks").json()["data"]
        assert len(chunks) > len(chunks_before)
        known = {chunk["text"] for chunk in chunks_before}
        assert +done == {"cut": 1, "embedded": len([chunk for chunk in chunks if chunk["text"] not in known])}
        assert known & {chunk["text"] for chunk in chunks}

    def test_work_from_the_chunks_reads_neither_bytes_nor_source(self, team: Team, folder: Path) -> None:
        source = source_of(team, folder)
        for file in folder.iterdir():
            file.unlink()
        for row in rows_of(team):
            assert lose_bytes(team, row) == 1
        for stage in ("embed", "chunk"):
            assert reindex(team, stage, source=source)["counters"]["scanned"] == 3
        assert len(team.retrieve("file")) == 3


def smaller(_settings: object, embedder: Any, _spec: object) -> StructureChunker:
    return StructureChunker(embedder.token_spans, 64)


class TestReuse:
    def test_a_moved_document_is_not_embedded_again(self, team: Team, done: Counter[str]) -> None:
        text = "# Leave\n\nEverybody has thirty days."
        first = team.put(text, external_id="old/leave.md", title="Leave")["id"]
        team.service.work()
        done.clear()
        team.put(text, external_id="new/leave.md", title="Leave")
        assert team.manager.delete(f"/v1/documents/{first}").status_code == 202
        team.service.work()
        assert done["embedded"] == 0
        (hit,) = team.retrieve("thirty days")
        assert hit["external_id"] == "new/leave.md"

    def test_another_model_is_another_matter(
        self, team: Team, done: Counter[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The counter of this file can count: without the look at what is held, everything is embedded again."""
        filled(team)
        monkeypatch.setattr("rag_service.ingest.build.Build._known", lambda *_: {})
        done.clear()
        reindex(team, "embed")
        assert done["embedded"] == 5

    def test_two_index_versions_of_one_model_share_what_is_the_same(self, team: Team, done: Counter[str]) -> None:
        runtime = team.service.runtime
        text = "# A\n\nShort and sweet.\n\n# B\n\n" + " ".join(f"Long sentence number {n} goes on." for n in range(60))
        document = team.put(text, external_id="x")["id"]
        team.service.work()
        with runtime.database.transaction() as transaction:
            ((collection, active),) = collections.active_indexes(transaction.connection, team.id, ["default"])
            other = collections.add_index(
                transaction.connection,
                collection.id,
                embedder=active.embedder,
                chunker="smaller",
                analyser=active.analyser,
                average_length=active.average_length,
                state=type(active.state).BUILDING,
                pipeline={"chunking": {"tokens": 48}},
            )
        from rag_service.ingest.stages import Stages
        from rag_service.vectors.base import IndexSpec

        runtime.vectors.create(other.id, IndexSpec(active.embedder.dimensions))
        done.clear()
        stages = Stages("build")
        runtime.indexer.build(document, other, stages)
        held = {point.text_hash for point in runtime.vectors.stored(active.id)}
        made = {point.text_hash for point in runtime.vectors.stored(other.id)}
        assert held & made
        assert made - held
        assert done["parsed"] == 0
        assert done["embedded"] == stages.sizes["embedded"] == len(made - held)


class TestScope:
    def test_all_conditions_narrow(self, service: Service, team: Team, folder: Path) -> None:
        team.manager.post("/v1/collections", json={"name": "other"}).raise_for_status()
        filled(team, 3, metadata={"year": 2020})
        filled(team, 2, collection="other", metadata={"year": 2024, "tags": ["x"]})
        source = source_of(team, folder)
        counted = {
            "all": plan(team, "embed")["documents"],
            "collection": plan(team, "embed", collection="other")["documents"],
            "source": plan(team, "embed", source=source)["documents"],
            "filter": plan(team, "embed", filter={"year": {"$gte": 2021}})["documents"],
            "both": plan(team, "embed", collection="default", filter={"tags": "x"})["documents"],
            "source by filter": plan(team, "embed", filter={"source": source})["documents"],
        }
        assert counted == {"all": 8, "collection": 2, "source": 3, "filter": 2, "both": 0, "source by filter": 3}
        job = reindex(team, "metadata", filter={"year": {"$gte": 2021}})
        assert job["counters"]["scanned"] == len(children(team, job["id"])) == 2

    def test_only_what_failed(self, team: Team, done: Counter[str]) -> None:
        filled(team, 2)
        with parsing(team.service, _refuse):
            bad = team.put("# Page\n\nWhat the bad page says.", external_id="bad")["id"]
            team.service.work()
        assert team.document(bad)["status"] == "failed"
        assert plan(team, "parse", failed_only=True)["documents"] == 1
        letters = team.service.admin.get("/v1/admin/dead-letters", params={"document": bad}).json()["data"]
        assert len(letters) == 1
        done.clear()
        job = reindex(team, "parse", failed_only=True)
        assert job["counters"]["scanned"] == done["parsed"] == 1
        assert team.document(bad)["status"] == "ready"
        assert team.service.admin.get("/v1/admin/dead-letters", params={"document": bad}).json()["data"] == []

    def test_every_team_has_a_job_of_its_own(self, tmp_path: Path) -> None:
        with Started(settings_for(tmp_path), worker=False) as service:
            one, two, empty = service.new_team(), service.new_team(), service.new_team()
            filled(one, 1)
            filled(two, 2)
            begun = service.admin.post("/v1/admin/reindex", json={"scope": {}, "from_stage": "metadata"}).json()["jobs"]
            service.work()
            scanned = {
                Team(service, each["team"]).id: job_of(Team(service, each["team"]), each["job_id"])["counters"][
                    "scanned"
                ]
                for each in begun
            }
            assert scanned == {one.id: 1, two.id: 2}
            assert (
                one.manager.get(f"/v1/jobs/{begun[0]['job_id']}").status_code
                + two.manager.get(f"/v1/jobs/{begun[0]['job_id']}").status_code
                == 200 + 404
            )
            assert empty.manager.get("/v1/jobs?kind=reindex").json()["data"] == []

    def test_what_another_team_has_is_unknown(self, team: Team, other_team: Team, folder: Path) -> None:
        other_team.manager.post("/v1/collections", json={"name": "theirs"}).raise_for_status()
        source = source_of(other_team, folder)
        for scope in ({"collection": "theirs"}, {"source": source}):
            (name,) = scope
            for dry_run in (True, False):
                foreign = ask(team, "embed", dry_run=dry_run, **scope)
                unknown = ask(team, "embed", dry_run=dry_run, **{name: "x" * len(scope[name])})
                assert foreign.status_code == unknown.status_code == 404
                assert foreign.json()["detail"] == unknown.json()["detail"]
        assert team.manager.get("/v1/jobs?kind=reindex").json()["data"] == []

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"scope": {}}, 422),
            ({"scope": {}, "from_stage": "read"}, 422),
            ({"from_stage": "embed"}, 422),
            ({"scope": {"tean": "hr"}, "from_stage": "embed"}, 422),
            ({"scope": {"failed_only": "yes"}, "from_stage": "embed"}, 422),
            ({"scope": {"filter": {"$where": "1"}}, "from_stage": "embed"}, 422),
            ({"scope": {"filter": {"title": {"$gt": 3}}}, "from_stage": "embed"}, 422),
            ({"scope": {"team": "no-such-team"}, "from_stage": "embed"}, 404),
            ({"scope": {"collection": "default"}, "from_stage": "embed"}, 422),
            ({"scope": {"source": "src_x"}, "from_stage": "embed"}, 422),
        ],
    )
    def test_what_cannot_be_understood_is_refused_before_anything_is_done(
        self, service: Service, body: dict[str, Any], status: int
    ) -> None:
        for dry_run in (True, False):
            answer = service.admin.post("/v1/admin/reindex", json={**body, "dry_run": dry_run})
            assert answer.status_code == status, answer.text

    def test_a_scope_that_contradicts_the_header_is_refused(self, team: Team, other_team: Team) -> None:
        assert ask(team, "embed", team=other_team.id).status_code == 422
        assert ask(team, "embed", team=team.id).status_code == 202


def _refuse(*_: object) -> None:
    raise UnsupportedDocument("No.", code="corrupt")


class TestSkipping:
    def test_what_is_not_kept_is_skipped_and_said_so(self, team: Team, done: Counter[str]) -> None:
        old, *_ = filled(team, 3)
        with team.service.runtime.database.transaction() as transaction:
            # As a version of the service left it that did not keep what the parser told.
            mine = indexed_documents.c.document_id == old
            transaction.connection.execute(update(indexed_documents).where(mine).values(outline=None))
        done.clear()
        for stage, lacks in (("embed", "chunks"), ("chunk", "parsed_text")):
            told = plan(team, stage)
            assert (told["documents"], told["skipped"]) == (2, {lacks: 1})
            assert reindex(team, stage)["counters"] | {} == _counted(scanned=3, skipped=1)
        assert done["parsed"] == 0
        assert plan(team, "parse")["documents"] == 3
        told = plan(team, "fetch")
        assert (told["documents"], told["skipped"]) == (0, {"source": 3})

    def test_a_document_under_way_is_left_to_its_own_job(self, team: Team) -> None:
        filled(team, 2)
        team.put("Not indexed yet.", external_id="new")
        assert plan(team, "embed")["skipped"] == {"chunks": 1}
        assert plan(team, "metadata")["skipped"] == {"index": 1}
        reindex(team, "embed")
        assert len(team.retrieve("page")) == 3

    def test_a_document_that_goes_meanwhile_stays_gone(self, team: Team) -> None:
        first, second, _ = filled(team, 3)
        job_id = start(team, "parse")
        team.manager.delete(f"/v1/documents/{first}")
        team.manager.put(f"/v1/documents/{second}/content", json={"text": "Something else."})
        team.service.work()
        assert job_of(team, job_id)["state"] == "succeeded"
        assert sorted(hit["external_id"] for hit in team.retrieve("page")) == ["p1", "p2"]


def _counted(**counts: int) -> dict[str, int]:
    names = ("scanned", "new", "modified", "metadata_modified", "deleted", "skipped", "failed")
    return {**dict.fromkeys(names, 0), **counts}


class TestPermissionsAndMetadata:
    def test_access_that_was_spoilt_is_written_anew(self, team: Team) -> None:
        document = team.put("For ann alone.", acl={"users": ["ann"]})["id"]
        team.service.work()
        runtime = team.service.runtime
        with runtime.database.transaction() as transaction:
            ((_, index),) = collections.active_indexes(transaction.connection, team.id, ["default"])
            mine = document_access.c.document_id == document
            transaction.connection.execute(delete(document_access).where(mine))
            transaction.connection.execute(
                document_access.insert().values(document_id=document, deny=False, token="user:bob")
            )
        runtime.vectors.update(index.id, document, access=AccessTokens(("user:bob",), ()))
        ann, bob = team.client("query", user="ann"), team.client("query", user="bob")
        assert [len(team.retrieve("alone", who)) for who in (ann, bob)] == [0, 1]
        before = team.document(document)
        reindex(team, "permissions")
        assert [len(team.retrieve("alone", who)) for who in (ann, bob)] == [1, 0]
        assert team.document(document) == before

    def test_a_change_of_access_while_they_are_renewed_wins(self, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also where the change comes between our look at a document and our write."""
        document = team.put("A secret.", acl={"public": True})["id"]
        team.service.work()
        renew, stale = reindexing.renew_access, []

        def late(connection: Any, seen: Any) -> Any:
            stale.append(seen)
            return None

        with monkeypatch.context() as patch:
            patch.setattr(reindexing, "renew_access", late)
            reindex(team, "permissions")
        team.manager.patch(f"/v1/documents/{document}/acl", json={"users": ["ann"]})
        with team.service.runtime.database.transaction() as transaction:
            assert renew(transaction.connection, stale[0]) is None
        team.service.work()
        assert team.retrieve("secret", team.client("query", user="bob")) == []
        assert len(team.retrieve("secret", team.client("query", user="ann"))) == 1

    def test_fields_that_the_store_lost_are_written_anew(self, team: Team) -> None:
        document = filled(team, 1, metadata={"year": 2020})[0]
        runtime = team.service.runtime
        with runtime.database.read() as connection:
            ((_, index),) = collections.active_indexes(connection, team.id, ["default"])
        runtime.vectors.update(index.id, document, fields={})
        assert team.retrieve("page", filter={"year": 2020}) == []
        reindex(team, "metadata")
        assert len(team.retrieve("page", filter={"year": 2020})) == 1


class TestFetching:
    def test_every_item_is_read_again_whatever_its_version_tag(
        self, team: Team, folder: Path, done: Counter[str]
    ) -> None:
        source_of(team, folder)
        filled(team, 2)
        lost = next(row for row in rows_of(team) if row.external_id == "a.md")
        assert lose_bytes(team, lost) == 1
        done.clear()
        job = reindex(team, "fetch")
        assert job["state"] == "succeeded"
        assert job["counters"] | {} == _counted(scanned=1, skipped=2)
        assert [row.kind for row in children(team, job["id"])] == ["sync"]
        assert +done == {"parsed": 3, "cut": 3}
        assert team.manager.get(f"/v1/documents/{lost.id}").json()["version"] == 1

    def test_a_usual_sync_reads_nothing_that_has_not_changed(
        self, team: Team, folder: Path, done: Counter[str]
    ) -> None:
        source = source_of(team, folder)
        done.clear()
        sync(team, source)
        assert not +done

    def test_it_waits_for_a_sync_that_is_on_its_way(self, team: Team, folder: Path, done: Counter[str]) -> None:
        source = source_of(team, folder)
        team.manager.post(f"/v1/sources/{source}/sync")
        job_id = start(team, "fetch")
        _run_only(team, job_id)
        assert (job_of(team, job_id)["state"], children(team, job_id)) == ("queued", [])
        done.clear()
        team.service.work()
        _due_now(team)
        team.service.work()
        assert job_of(team, job_id)["state"] == "succeeded"
        assert done["parsed"] == 3

    def test_a_paused_source_is_skipped(self, team: Team, folder: Path, done: Counter[str]) -> None:
        source = source_of(team, folder)
        team.manager.post(f"/v1/sources/{source}/pause")
        done.clear()
        assert reindex(team, "fetch")["counters"]["skipped"] == 1
        assert not +done

    def test_a_source_that_fails_makes_it_a_failure_in_part(self, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
        from connectors.errors import FatalSourceError

        monkeypatch.setitem(connectors.REGISTRY, "unsteady", PLACE)
        monkeypatch.setattr(Unsteady, "breaks", {})
        body = {"name": "unsteady", "type": "unsteady", "config": {}, "acl": {"public": True}}
        source = team.admin.post("/v1/sources", json=body).json()["id"]
        sync(team, source)
        monkeypatch.setattr(Unsteady, "breaks", {5: [FatalSourceError("gone")]})
        job = reindex(team, "fetch")
        assert (job["state"], job["counters"]["failed"]) == ("completed_with_errors", 1)

    def test_cancelling_reaches_the_documents_of_its_syncs(self, team: Team, folder: Path, done: Counter[str]) -> None:
        source_of(team, folder)
        job_id = start(team, "fetch")
        _run_only(team, job_id)
        (reading,) = children(team, job_id)
        _run_only(team, reading.id)
        assert len(children(team, reading.id)) == 3
        done.clear()
        assert team.manager.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "canceled"
        team.service.work()
        assert not +done
        assert {row.state for row in [*children(team, job_id), *children(team, reading.id)]} == {"canceled"}
        assert len(team.retrieve("file")) == 3


def _run_only(team: Team, job_id: str) -> None:
    team.service.runtime.runner.run(job_id)


def _due_now(team: Team) -> None:
    from rag_service.types import utc_now

    with team.service.runtime.database.transaction() as transaction:
        transaction.connection.execute(
            update(job_table).where(job_table.c.state == "queued").values(run_after=utc_now(), rung_at=None)
        )


class Killed(BaseException):
    """The end of a process, as far as one thread can play it."""


class TestListing:
    @pytest.fixture(autouse=True)
    def few_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rag_service.ingest.reindex._AT_ONCE", 4)

    def test_it_goes_on_in_slices(self, team: Team) -> None:
        filled(team, 10)
        job_id = start(team, "metadata")
        work = team.service.runtime.reindex
        object.__setattr__(work, "slice_s", 0.0)
        _run_only(team, job_id)
        object.__setattr__(work, "slice_s", 20.0)
        record = job_of(team, job_id)
        assert (record["state"], record["counters"]["scanned"]) == ("queued", 4)
        assert record["progress"]["done"] == 0
        team.service.work()
        assert job_of(team, job_id)["progress"] == {"done": 10, "total": 10, "percent": 100.0}

    def test_a_kill_in_the_middle_neither_repeats_nor_skips_a_document(
        self, team: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = filled(team, 10)
        job_id = start(team, "embed")
        add, seen = type(team.service.runtime.doorbell).add, []

        def dying(bell: Any, *arguments: Any, **more: Any) -> str:
            seen.append(more.get("document_id"))
            if len(seen) == 7:
                raise Killed
            return add(bell, *arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(type(team.service.runtime.doorbell), "add", dying)
            with pytest.raises(Killed):
                _run_only(team, job_id)
        assert len(children(team, job_id)) == 4
        with team.service.runtime.database.transaction() as transaction:
            jobs.release_all(transaction.connection)
        team.service.work()
        assert sorted(row.document_id for row in children(team, job_id)) == sorted(names)
        assert job_of(team, job_id)["state"] == "succeeded"

    def test_a_holder_that_was_taken_over_leaves_nothing_behind(self, team: Team) -> None:
        filled(team, 3)
        job_id = start(team, "metadata")
        with team.service.runtime.database.transaction() as transaction:
            held = jobs.claim(transaction.connection, job_id, 60)
            assert held is not None
            transaction.connection.execute(update(job_table).where(job_table.c.id == job_id).values(fence=9))
        assert team.service.runtime.reindex.run(held) is None
        assert children(team, job_id) == []
        with team.service.runtime.database.transaction() as transaction:
            jobs.release_all(transaction.connection)

    def test_a_listing_that_is_cancelled_stops(self, team: Team) -> None:
        filled(team, 10)
        job_id = start(team, "parse")
        with team.service.runtime.database.transaction() as transaction:
            held = jobs.claim(transaction.connection, job_id, 60)
            assert held is not None
        assert team.manager.post(f"/v1/jobs/{job_id}/cancel").json()["cancel_requested"]
        assert team.service.runtime.reindex.run(held) == "canceled"
        assert children(team, job_id) == []
        with team.service.runtime.database.transaction() as transaction:
            assert jobs.finish(transaction.connection, held, JobState.CANCELED)

    def test_documents_that_came_after_it_was_asked_for_are_not_listed(self, team: Team) -> None:
        filled(team, 3)
        job_id = start(team, "parse")
        team.put("A late one.", external_id="late")
        team.service.work()
        assert job_of(team, job_id)["counters"]["scanned"] == 3

    def test_a_document_that_fails_makes_it_a_failure_in_part(self, team: Team) -> None:
        filled(team, 3)
        job_id = start(team, "parse")
        with parsing(team.service, _refuse):
            team.service.work()
        record = job_of(team, job_id)
        assert (record["state"], record["counters"]["failed"]) == ("completed_with_errors", 3)
        assert len(team.retrieve("page")) == 3


class TestSendingItAgain:
    def test_the_same_key_and_body_is_the_same_job(self, team: Team) -> None:
        filled(team, 1)
        first, second = (ask(team, "metadata", key="k1") for _ in range(2))
        assert first.status_code == second.status_code == 202
        assert first.json() == second.json()
        assert len(team.manager.get("/v1/jobs?kind=reindex").json()["data"]) == 1
        assert ask(team, "metadata", key="k2").json() != first.json()
        assert ask(team, "metadata").json() != first.json()

    def test_the_same_key_with_another_body_is_refused(self, team: Team, other_team: Team) -> None:
        ask(team, "metadata", key="k3")
        for other in (ask(team, "permissions", key="k3"), ask(other_team, "metadata", key="k3")):
            assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")

    def test_what_was_refused_or_only_planned_takes_no_key(self, team: Team) -> None:
        assert ask(team, "metadata", key="k4", collection="nope").status_code == 404
        assert ask(team, "metadata", key="k4", dry_run=True).status_code == 200
        assert ask(team, "metadata", key="k4").status_code == 202
