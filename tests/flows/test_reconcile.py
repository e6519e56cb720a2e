"""Reconciling: every kind of damage is found and mended, and a healthy service is left alone, however busy it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from rag_service.access import AccessTokens
from rag_service.db import collections, documents, jobs, operations
from rag_service.db.documents import Document
from rag_service.db.operations import OperationKind
from rag_service.ingest import reconcile
from rag_service.ingest.blob_names import owner
from rag_service.ingest.hold import PutOffError
from rag_service.ingest.reconcile import Reconciler
from rag_service.types import SparseVector
from rag_service.vectors.base import VectorPoint
from tests.churn import NAMES, churning, text_of
from tests.conftest import Service, Started, Team, settings_for


def quietly(_stage: str, _done: int, _total: int | None) -> None:
    pass


class Ward:
    """A service that works when it is told to, with eight documents, and what is done to them."""

    def __init__(self, service: Service) -> None:
        self.service, self.runtime = service, service.runtime
        self.team = service.new_team()
        self.ids = {
            name: self.team.put(text_of(number), external_id=name)["id"] for number, name in enumerate(NAMES[:8])
        }
        service.work()
        with self.runtime.database.read() as connection:
            (self.index,) = [index.id for index in collections.all_active(connection)]

    def row(self, name: str = NAMES[0]) -> Document:
        with self.runtime.database.read() as connection:
            row = documents.load(connection, self.ids[name])
        assert row is not None
        return row

    def sql(self, statement: str, **values: object) -> None:
        with self.runtime.database.transaction() as transaction:
            transaction.connection.execute(text(statement), values)

    def points(self, name: str = NAMES[0]) -> list[VectorPoint]:
        """The points of a document, as they could be written again."""
        held = self.runtime.vectors.stored(self.index, self.ids[name], vectors=True)
        return [
            VectorPoint(
                chunk_id=point.chunk_id,
                team=point.team,
                document_id=point.document_id,
                version=point.version,
                text_hash=point.text_hash,
                dense=point.dense,
                lexical=point.lexical or SparseVector((), ()),
                access=point.access,
                fields={},
            )
            for point in held
            if point.dense is not None
        ]

    def write(self, points: list[VectorPoint]) -> None:
        self.runtime.vectors.upsert(self.index, points)

    def reconciler(self) -> Reconciler:
        """Blobs of any age are looked at."""
        return replace(self.runtime.upkeep.reconciler, grace_s=-1.0)

    def found(self, *, mend: bool = False) -> dict[str, tuple[int, int]]:
        """Damage -> (how many, how many mended); the work that mending queued is done before this returns."""
        told = self.reconciler().run(quietly, mend=mend)
        if mend:
            self.service.work()
        kinds: dict[str, tuple[int, int]] = {}
        for place in told["collections"]:
            for damage, found in place["findings"].items():
                kinds[damage] = (found["count"], found["mended"])
                assert len(found["samples"]) == found["count"]
        return kinds


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    with Started(settings_for(tmp_path / "data"), worker=False) as service:
        yield Ward(service)


def lose_all_points(ward: Ward) -> None:
    ward.runtime.vectors.delete(ward.index, ward.row().id)


def lose_one_point(ward: Ward) -> None:
    points = ward.points()
    ward.runtime.vectors.delete(ward.index, ward.row().id)
    ward.write(points[1:])


def lose_the_index(ward: Ward) -> None:
    ward.runtime.vectors.drop(ward.index)
    ward.runtime.catalogue.make_indexes()  # as the next start does


def lose_chunk_rows(ward: Ward) -> None:
    ward.sql("DELETE FROM chunks WHERE document_id = :id AND ordinal = 0", id=ward.row().id)


def keep_points_of_nobody(ward: Ward) -> None:
    ward.write([replace(point, chunk_id=str(other), document_id="doc_unknown") for other, point in _others(ward)])


def keep_points_of_a_deleted_document(ward: Ward) -> None:
    points = ward.points()
    ward.team.manager.delete(f"/v1/documents/{ward.row().id}").raise_for_status()
    ward.service.work()
    ward.write(points)


def keep_points_of_another_version(ward: Ward) -> None:
    ward.write([replace(point, chunk_id=str(other), version=7) for other, point in _others(ward)])


def show_it_to_others(ward: Ward) -> None:
    ward.runtime.vectors.update(ward.index, ward.row().id, access=AccessTokens(("public", "user:eve"), ()))


def forget_a_denial(ward: Ward) -> None:
    ward.team.manager.patch(f"/v1/documents/{ward.row().id}/acl", json={"public": True, "deny_users": ["eve"]})
    ward.service.work()
    ward.runtime.vectors.update(ward.index, ward.row().id, access=AccessTokens(("manage", "public"), ()))


def show_it_to_another_team(ward: Ward) -> None:
    ward.write([replace(point, team="others", revision=ward.row().revision) for point in ward.points()])


def lose_the_text(ward: Ward) -> None:
    ward.team.put("<h1>Leave</h1><p>Twenty days of leave.</p>", external_id=NAMES[0], media_type="text/html")
    ward.service.work()
    row = ward.row()
    assert row.text_key != row.blob_key
    content = ward.runtime.blobs.get(row.blob_key)
    ward.runtime.blobs.delete(owner(row.id, row.version))
    ward.runtime.blobs.put(owner(row.id, row.version), content)


def keep_blobs_of_nobody(ward: Ward) -> None:
    ward.runtime.blobs.put("doc_unknown.1", b"left behind")


def keep_blobs_of_an_old_version(ward: Ward) -> None:
    ward.runtime.blobs.put(owner(ward.row().id, 9), b"left behind")


def lose_the_removal(ward: Ward) -> None:
    ward.team.manager.delete(f"/v1/documents/{ward.row().id}").raise_for_status()
    ward.sql("DELETE FROM jobs WHERE kind = 'remove'")


def _others(ward: Ward) -> list[tuple[str, VectorPoint]]:
    from uuid import uuid4

    return [(str(uuid4()), point) for point in ward.points()]


DAMAGES: list[tuple[Callable[[Ward], None], str, int]] = [
    (lose_all_points, "missing_points", 1),
    (lose_one_point, "missing_points", 1),
    (lose_the_index, "missing_points", 8),
    (lose_chunk_rows, "missing_chunks", 1),
    (keep_points_of_nobody, "orphan_points", 1),
    (keep_points_of_a_deleted_document, "orphan_points", 1),
    (keep_points_of_another_version, "wrong_version", 1),
    (show_it_to_others, "wrong_access", 1),
    (forget_a_denial, "wrong_access", 1),
    (show_it_to_another_team, "wrong_team", 1),
    (lose_the_text, "missing_text", 1),
    (keep_blobs_of_nobody, "orphan_blobs", 1),
    (keep_blobs_of_an_old_version, "orphan_blobs", 1),
    (lose_the_removal, "unpurged", 1),
]


@pytest.mark.parametrize(("damage", "kind", "count"), DAMAGES, ids=lambda value: getattr(value, "__name__", None))
def test_each_kind_of_damage_is_found_and_mended(
    ward: Ward, damage: Callable[[Ward], None], kind: str, count: int
) -> None:
    assert ward.found() == {}
    damage(ward)
    assert ward.found() == {kind: (count, 0)}
    assert ward.found(mend=True) == {kind: (count, count)}
    assert ward.found() == {}
    answering = len(ward.team.retrieve("anchor bakery canteen dragon", top_k=50))
    assert answering == sum(ward.team.document(one)["chunk_count"] for one in _alive(ward))


def _alive(ward: Ward) -> list[str]:
    return [row["id"] for row in ward.team.manager.get("/v1/documents").json()["data"]]


def test_the_bytes_of_an_upload_are_found_missing_and_come_back_with_the_same_file(ward: Ward) -> None:
    row = ward.row()
    ward.runtime.blobs.delete(owner(row.id, row.version))
    assert ward.found()["missing_blobs"] == (1, 0)
    assert ward.found(mend=True)["missing_blobs"] == (1, 0)
    ward.team.put(text_of(0), external_id=NAMES[0])
    ward.service.work()
    assert ward.found() == {}


def test_the_bytes_of_a_source_come_back_with_its_next_sync(ward: Ward, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.md").write_text("# A\n\nSomething to read.")
    wanted = {"name": "s", "type": "files", "config": {"root": str(tmp_path / "files")}, "acl": {"public": True}}
    source = ward.team.admin.post("/v1/sources", json=wanted).json()["id"]
    ward.team.manager.post(f"/v1/sources/{source}/sync", json={})
    ward.service.work()
    listed = ward.team.manager.get("/v1/documents", params={"source": source}).json()["data"]
    ward.ids["a.md"] = listed[0]["id"]
    row = ward.row("a.md")
    ward.runtime.blobs.delete(owner(row.id, row.version))
    assert ward.found(mend=True)["missing_blobs"] == (1, 1)
    ward.team.manager.post(f"/v1/sources/{source}/sync", json={})
    ward.service.work()
    assert ward.found() == {}
    assert ward.team.retrieve("something to read")


def test_repair_takes_vectors_over_that_are_still_there(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[str] = []
    embed = type(ward.runtime.embedder).embed

    def counting(self: Any, texts: list[str], kind: Any) -> Any:
        embedded.extend(texts)
        return embed(self, texts, kind)

    lose_one_point(ward)
    monkeypatch.setattr(type(ward.runtime.embedder), "embed", counting)
    assert ward.found(mend=True) == {"missing_points": (1, 1)}
    assert len(embedded) == 1


def test_work_under_way_is_no_damage(ward: Ward) -> None:
    ward.team.put(text_of(50), external_id=NAMES[0])
    ward.team.put(text_of(51), external_id="a new one")
    ward.team.manager.patch(f"/v1/documents/{ward.ids[NAMES[1]]}/acl", json={"users": ["ada"]}).raise_for_status()
    ward.team.manager.delete(f"/v1/documents/{ward.ids[NAMES[2]]}").raise_for_status()
    assert ward.found() == {}
    ward.service.work()
    assert ward.found() == {}


def test_young_blobs_may_belong_to_an_upload_that_is_coming_in(ward: Ward) -> None:
    keep_blobs_of_nobody(ward)
    assert ward.runtime.upkeep.reconciler.run(quietly, mend=True)["found"] == 0
    assert ward.runtime.blobs.has(ward.runtime.blobs.put("doc_unknown.1", b"left behind"))


def test_nothing_is_removed_while_a_backup_is_taken(ward: Ward) -> None:
    keep_points_of_nobody(ward)
    with ward.runtime.database.transaction() as transaction:
        operations.begin(transaction.connection, OperationKind.BACKUP, lease_s=60)
    assert ward.found() == {"orphan_points": (1, 0)}
    with pytest.raises(PutOffError):
        ward.found(mend=True)


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[tuple[Service, Team]]:
    with Started(settings_for(tmp_path / "data")) as service:
        yield service, service.new_team()


def test_nothing_is_found_on_a_healthy_service_under_load(busy: tuple[Service, Team]) -> None:
    service, team = busy
    with churning(team, seed=1) as churn:
        looks = 0
        while churn.done < 60:
            told = service.runtime.upkeep.reconciler.run(quietly, mend=True)
            assert told["found"] == 0, told
            looks += 1
    assert looks > 3
    service.drain()
    with service.runtime.database.read() as connection:
        assert jobs.count_open(connection) == 0
    assert service.runtime.upkeep.reconciler.run(quietly, mend=False)["found"] == 0


def test_a_single_look_would_take_work_for_damage(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document replaced between the listing of the index and the look at its row: only looking again tells."""
    listing = reconcile._Index._held

    def then_replace(self: Any) -> Any:
        held = listing(self)
        ward.team.put(text_of(60 + ward.row().version), external_id=NAMES[0])
        ward.service.work()
        return held

    monkeypatch.setattr(reconcile._Index, "_held", then_replace)
    assert ward.found() == {}

    def once(self: Reconciler, index: str, document_id: str) -> Any:
        held = [reconcile.seen(point) for point in stale if point.document_id == document_id]
        return self._state(document_id), held

    stale = list(ward.runtime.vectors.stored(ward.index))
    monkeypatch.setattr(Reconciler, "look", once)
    assert ward.found() != {}
