"""What failed for a while: tried again when it is sent or listed again, and ready again where nothing is to be done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_service.errors import RetryableError, UnsupportedDocument
from rag_service.ingest.indexer import Indexer
from tests.conftest import Service, Started, Team, settings_for
from tests.flows.test_reindex import parsing
from tests.flows.test_sources import get, make

LONG = "# Parking\n\n" + "The rules on parking. " * 20


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Started(settings_for(tmp_path / "data"), worker=False) as started:
        yield started


@pytest.fixture
def source(team: Team, tmp_path: Path) -> dict[str, Any]:
    root = tmp_path / "folder"
    root.mkdir()
    (root / "parking.md").write_text(LONG)
    (root / "lunch.md").write_text("# Lunch")
    return make(team, root, deletion_protection={"max_percent": 100})


def sync(team: Team, source: dict[str, Any], **config: Any) -> dict[str, int]:
    """With this configuration; returns how many documents of the source are in which status then."""
    at = f"/v1/sources/{source['id']}"
    team.admin.patch(at, json={"config": {**source["config"], **config}}).raise_for_status()
    team.manager.post(f"{at}/sync").raise_for_status()
    team.service.work()
    statuses: dict[str, int] = get(team, source)["documents"]
    return statuses


class TestADocumentOutOfReachForAWhile:
    @pytest.mark.parametrize("touched", [False, True])
    def test_is_ready_again_as_soon_as_it_is_read(self, team: Team, source: dict[str, Any], touched: bool) -> None:
        assert sync(team, source) == {"ready": 2}
        assert sync(team, source, max_file_bytes=50) == {"ready": 1, "failed": 1}
        if touched:
            os.utime(Path(source["config"]["root"]) / "parking.md", (1e9, 1e9))
        assert sync(team, source) == {"ready": 2}
        (document,) = team.manager.get("/v1/documents", params={"external_id": "parking.md"}).json()["data"]
        assert document["error"] is None
        events = team.manager.get(f"/v1/documents/{document['id']}/events").json()["data"]
        assert [event["kind"] for event in events][:2] == ["restored", "failed"]
        assert bool(team.retrieve("parking", filter={"modified_at": {"$lt": "2002-01-01"}})) == touched

    def test_has_a_reason_also_where_it_had_been_deleted(
        self, service: Service, team: Team, source: dict[str, Any]
    ) -> None:
        file = Path(source["config"]["root"]) / "parking.md"
        sync(team, source)
        file.unlink()
        assert sync(team, source) == {"ready": 1, "deleted": 1}
        file.write_text(LONG)
        assert sync(team, source, max_file_bytes=50) == {"ready": 1, "failed": 1}
        (document,) = team.manager.get("/v1/documents", params={"status": "failed"}).json()["data"]
        assert (document["external_id"], document["error"]["code"]) == ("parking.md", "too_large")
        assert sync(team, source) == {"ready": 2}
        assert team.retrieve("parking")

    def test_loses_what_it_was_before_it_was_deleted(
        self, service: Service, team: Team, source: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = Path(source["config"]["root"]) / "parking.md"
        sync(team, source)
        file.unlink()
        with monkeypatch.context() as patch:
            patch.setattr("rag_service.ingest.removal.Removal._next", lambda *_job: [])
            sync(team, source)
        file.write_text(LONG + "More.")
        assert sync(team, source, max_file_bytes=50) == {"ready": 1, "failed": 1}
        blobs = (service.runtime.settings.data_dir / "blobs").rglob("*")
        assert not [path for path in blobs if path.is_file() and b"on parking" in path.read_bytes()]


class TestAFailedUpload:
    @pytest.mark.parametrize("corrected", [{}, {"title": "Leave"}, {"metadata": {"year": 2026}}])
    def test_is_tried_again_when_it_is_sent_again(
        self, service: Service, team: Team, corrected: dict[str, Any]
    ) -> None:
        with parsing(service, _too_slow):
            made = team.put("The rules on leave.", external_id="leave")
            service.work()
        assert team.document(made["id"])["status"] == "failed"
        again = team.put("The rules on leave.", external_id="leave", **corrected)
        assert (again["status"], again["version"]) == ("accepted", 1)
        service.work()
        record = team.document(made["id"])
        assert (record["status"], record["error"]) == ("ready", None)
        assert corrected.items() <= record.items()

    def test_is_tried_again_under_its_right_name(self, service: Service, team: Team) -> None:
        def send(name: str) -> str:
            file = (name, b"# Badges\n\nThe rules on badges.", "application/octet-stream")
            made = team.manager.post("/v1/documents", files={"file": file}, data={"external_id": "badges"})
            service.work()
            return str(team.document(made.json()["id"])["status"])

        assert [send("badges.xyz"), send("badges.md")] == ["failed", "ready"]


def test_a_job_that_gave_up_after_its_commit_leaves_its_document_ready_when_it_is_retried(
    service: Service, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise RetryableError

    with monkeypatch.context() as patch:
        patch.setattr("rag_service.ingest.runner.wait_s", lambda *_failure: None)
        patch.setattr(Indexer, "_clean_up", broken)
        made = team.put("The rules on leave.")
        service.work()
    assert team.document(made["id"])["status"] == "failed"
    retried = team.admin.post("/v1/admin/dead-letters:retry", json={"filter": {"document": made["id"]}})
    assert retried.json()["retried"] == 1
    service.work()
    assert team.document(made["id"])["status"] == "ready"


def _too_slow(*_document: object) -> None:
    raise UnsupportedDocument("It took too long.", code="timeout")
