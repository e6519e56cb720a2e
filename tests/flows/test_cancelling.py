"""Cancelling: wishes are, consequences are not, and no document waits for a job that never comes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_service.db import jobs
from rag_service.errors import UnsupportedDocument
from rag_service.types import JobKind
from tests.conftest import Service, Started, Team, settings_for
from tests.flows.test_reindex import parsing
from tests.flows.test_reindex import start as reindex
from tests.flows.test_sources import make

LETTERS = "/v1/admin/dead-letters"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Started(settings_for(tmp_path / "data"), worker=False) as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    root.mkdir()
    for name in ("leave", "parking", "lunch"):
        (root / f"{name}.md").write_text(f"# {name.title()}\n\nThe rules on {name}.")
    return root


def cancel(team: Team, job_id: str) -> dict[str, Any]:
    answer = team.manager.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 202, answer.text
    record: dict[str, Any] = answer.json()
    return record


def kept(service: Service, words: bytes) -> bool:
    """Whether any blob still holds these words."""
    blobs = (service.runtime.settings.data_dir / "blobs").rglob("*")
    return any(words in path.read_bytes() for path in blobs if path.is_file())


def everything(patch: pytest.MonkeyPatch) -> None:
    """A broken variant: whatever waits is cancelled."""
    patch.setattr(JobKind, "may_be_canceled", property(lambda _kind: True))
    patch.setattr(jobs, "_CANCELABLE", list(JobKind))


def _cancel_a_removal(service: Service, team: Team, _folder: Path) -> None:
    made = team.put("The rules on secrets.")
    service.work()
    gone = team.manager.delete(f"/v1/documents/{made['id']}").json()["job_id"]
    refused = team.manager.post(f"/v1/jobs/{gone}/cancel")
    service.work()
    assert not kept(service, b"secrets")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_cancelable")


def _cancel_a_sync(service: Service, team: Team, folder: Path) -> None:
    path = f"/v1/sources/{make(team, folder, deletion_protection={'max_percent': 100})['id']}/sync"
    team.manager.post(path)
    service.work()
    (folder / "leave.md").unlink()
    os.utime(folder / "lunch.md", (1e9, 1e9))
    job = team.manager.post(path).json()["job_id"]
    service.runtime.runner.run(job)
    assert cancel(team, job)["state"] == "canceled"
    service.work()
    assert not kept(service, b"on leave")
    touched = team.retrieve("lunch", filter={"modified_at": {"$lt": "2002-01-01"}})
    assert [hit["external_id"] for hit in touched] == ["lunch.md"]


@pytest.mark.parametrize("scenario", [_cancel_a_removal, _cancel_a_sync])
class TestWhatWasAcknowledged:
    def test_is_carried_out_whatever_is_cancelled(
        self, service: Service, team: Team, folder: Path, scenario: Callable[..., None]
    ) -> None:
        scenario(service, team, folder)

    def test_would_be_lost_if_all_that_waits_were_cancelled(
        self, service: Service, team: Team, folder: Path, scenario: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        everything(monkeypatch)
        with pytest.raises(AssertionError):
            scenario(service, team, folder)


def error_of(team: Team, document_id: str) -> tuple[str, str | None]:
    record = team.document(document_id)
    return record["status"], (record["error"] or {}).get("code")


class TestADocumentWhoseIndexingIsCancelled:
    def test_has_failed_and_says_how_to_try_again(self, service: Service, team: Team) -> None:
        made = team.put("The rules on leave.", external_id="leave")
        cancel(team, made["job_id"])
        record = team.document(made["id"])
        assert (record["status"], record["error"]["code"], record["error"]["stage"]) == ("failed", "canceled", "index")
        assert record["how_to_retry"] == f"PUT /v1/documents/{made['id']}/content with the same content."
        newest = team.manager.get(f"/v1/documents/{made['id']}/events").json()["data"][0]
        assert (newest["kind"], newest["detail"]["code"]) == ("failed", "canceled")
        assert team.admin.get(LETTERS).json()["data"] == []
        assert team.put("The rules on leave.", external_id="leave")["job_id"] is not None
        service.work()
        assert error_of(team, made["id"]) == ("ready", None)

    def test_answers_with_its_older_version(self, service: Service, team: Team) -> None:
        made = team.put("The rules on leave.", external_id="leave")
        service.work()
        cancel(team, team.put("New rules on leave.", external_id="leave")["job_id"])
        assert error_of(team, made["id"]) == ("failed", "canceled")
        assert [hit["text"] for hit in team.retrieve("leave")] == ["The rules on leave."]

    def test_is_ready_where_its_newest_version_answers(self, service: Service, team: Team) -> None:
        made = team.put("The rules on leave.")
        service.work()
        written = team.document(made["id"])["updated_at"]
        with parsing(service, _refuse):
            reindex(team, "parse")
            service.work()
        (letter,) = team.admin.get(LETTERS, params={"document": made["id"]}).json()["data"]
        team.admin.post(f"{LETTERS}:retry", json={"ids": [letter["job_id"]]})
        assert error_of(team, made["id"]) == ("accepted", None)
        cancel(team, letter["job_id"])
        assert error_of(team, made["id"]) == ("ready", None)
        assert team.document(made["id"])["updated_at"] == written
        assert team.manager.get(f"/v1/documents/{made['id']}/events").json()["data"][0]["kind"] == "canceled"

    def test_has_failed_too_where_its_job_ran_at_the_time(self, service: Service, team: Team) -> None:
        made = team.put("The rules on leave.")
        with service.runtime.database.transaction() as transaction:
            jobs.claim(transaction.connection, made["job_id"], 60)
        assert cancel(team, made["job_id"])["cancel_requested"]
        assert error_of(team, made["id"]) == ("accepted", None)
        with service.runtime.database.transaction() as transaction:
            jobs.release_all(transaction.connection)
        service.work()
        assert error_of(team, made["id"]) == ("failed", "canceled")

    def test_goes_on_where_another_job_carries_it(self, service: Service, team: Team) -> None:
        made = team.put("The rules on leave.")
        again = reindex(team, "parse")
        service.runtime.runner.run(again)
        cancel(team, again)
        assert error_of(team, made["id"]) == ("accepted", None)
        service.work()
        assert error_of(team, made["id"]) == ("ready", None)


def _refuse(*_document: object) -> None:
    raise UnsupportedDocument("It took too long.", code="timeout")
