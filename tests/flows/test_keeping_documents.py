"""What stays when its source is deleted: uploads like others, with the readers that they had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag_service.cli.documents import _next_step
from rag_service.db import documents
from rag_service.vectors.edge import EdgeVectorStore
from tests.conftest import Service, Team
from tests.flows.test_interleavings import held_with
from tests.flows.test_sources import make
from tests.flows.test_trying_again import LONG, service, sync

__all__ = ["service"]


@pytest.fixture
def source(service: Service, team: Team, tmp_path: Path) -> dict[str, Any]:
    root = tmp_path / "folder"
    root.mkdir()
    (root / "parking.md").write_text(LONG)
    made = make(team, root, acl={"users": ["ada"]}, deletion_protection={"max_percent": 100})
    sync(team, made)
    return made


def keep(team: Team, source: dict[str, Any]) -> None:
    """Delete the source without its documents."""
    team.manager.delete(f"/v1/sources/{source['id']}", params={"documents": "keep"}).raise_for_status()
    team.service.work()


def of(team: Team, **narrowing: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = team.manager.get("/v1/documents", params=narrowing).json()["data"]
    return found


def found(team: Team, **more: Any) -> list[str]:
    """What ada, and nobody else, is shown."""
    assert team.retrieve("rules on parking", team.client("query", user="bob"), **more) == []
    return [hit["text"] for hit in team.retrieve("rules on parking", team.client("query", user="ada"), **more)]


def test_is_replaced_and_found_as_an_upload_is_by_those_who_could_read_it(
    service: Service, team: Team, source: dict[str, Any]
) -> None:
    (before,) = of(team, external_id="parking.md")
    keep(team, source)
    assert found(team)
    assert found(team, filter={"source": source["id"]}) == []
    (kept,) = of(team, external_id="parking.md")
    assert (kept["id"], kept["source_id"], kept["acl"]["users"]) == (before["id"], None, ["ada"])
    replaced = team.manager.put(f"/v1/documents/{kept['id']}/content", json={"text": "Rules on parking, the second."})
    assert replaced.status_code == 202, replaced.text
    service.work()
    assert found(team) == ["Rules on parking, the second."]
    assert team.put("Rules on parking, the third.", external_id="parking.md", acl=None)["id"] == before["id"]
    service.work()
    assert found(team) == ["Rules on parking, the third."]


def test_a_deletion_that_was_on_its_way_is_carried_out(service: Service, team: Team, source: dict[str, Any]) -> None:
    file = Path(source["config"]["root"]) / "parking.md"
    file.rename(file.with_name("lunch.md")).write_text("# Lunch")
    service.runtime.runner.run(team.manager.post(f"/v1/sources/{source['id']}/sync").json()["job_id"])
    assert of(team, status="deleted")
    keep(team, source)
    assert held_with(service, "on parking") == []
    assert of(team, external_id="parking.md") == []


def test_a_deletion_that_runs_meanwhile_leaves_nothing_but_ids_and_times(
    service: Service, team: Team, source: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (document,) = of(team, external_id="parking.md")
    purge, left = EdgeVectorStore.delete, [1]

    def meanwhile(self: EdgeVectorStore, *arguments: Any, **more: Any) -> None:
        if left:
            left.pop()
            keep(team, source)
            with service.runtime.database.transaction() as transaction:  # and anything else that changes the row
                row = documents.load(transaction.connection, document["id"])
                assert row is not None
                documents.change(transaction.connection, row, {"title": "Changed"})
        purge(self, *arguments, **more)

    monkeypatch.setattr(EdgeVectorStore, "delete", meanwhile)
    team.manager.delete(f"/v1/documents/{document['id']}").raise_for_status()
    service.work()
    assert_is_bare(service, document["id"])


def test_a_tombstone_gets_no_readers(service: Service, team: Team, source: dict[str, Any]) -> None:
    (document,) = of(team, external_id="parking.md")
    (Path(source["config"]["root"]) / "parking.md").rename(Path(source["config"]["root"]) / "lunch.md")
    sync(team, source)
    keep(team, source)
    assert_is_bare(service, document["id"])


def assert_is_bare(service: Service, document_id: str) -> None:
    with service.runtime.database.read() as connection:
        row = documents.load(connection, document_id)
    assert row is not None
    assert (row.title, row.acl, row.content_hash, row.blob_key) == ("", None, "", "")


def test_one_whose_id_an_upload_has_says_that_its_source_is_gone(
    service: Service, team: Team, source: dict[str, Any]
) -> None:
    team.put("An upload of that name.", external_id="parking.md")
    sync(team, source, max_file_bytes=50)
    (stuck,) = of(team, status="failed")
    assert f"/v1/sources/{source['id']}/sync" in stuck["how_to_retry"]
    assert f"rag source sync {source['id']}" in str(_next_step(stuck, stuck["error"]))
    keep(team, source)
    (stuck,) = of(team, status="failed")
    assert stuck["source_id"] == source["id"]
    assert f"DELETE /v1/documents/{stuck['id']}" in stuck["how_to_retry"]
    assert "sync" not in stuck["how_to_retry"] + str(_next_step(stuck, stuck["error"]))
    refused = team.manager.put(f"/v1/documents/{stuck['id']}/content", json={"text": "x"})
    assert (refused.status_code, refused.json()["code"]) == (409, "source_gone")
    assert "sync" not in refused.json()["detail"]
